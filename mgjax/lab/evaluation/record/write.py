"""Writes the results of an evaluation: its record, sample files, and the page that shows both."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import printable
from mgjax.core.files import read_json, write_bytes, write_json
from mgjax.core.run_names import is_name, read_name
from mgjax.lab.evaluation.record.against import Other, compare_records
from mgjax.lab.evaluation.record.measured import Measured, table_of
from mgjax.lab.evaluation.record.show import Show
from mgjax.lab.report.charts import format_number
from mgjax.lab.report.evaluation_page import evaluation_page

RECORD = 'evaluation.json'
PAGE = 'evaluation.html'
SAMPLES = 'evaluation/each'  # files of the samples of a page, in the run's folder


@dataclasses.dataclass(frozen=True)
class Findings:
  """The numbers of an evaluation as text, and the written files, the page and the record last."""

  table: str
  paths: list[pathlib.Path]


class Files(NamedTuple):
  """Paths of the record and the page of an evaluation, relative to the run's folder."""

  record: str
  page: str


MAIN = Files(RECORD, PAGE)


def apart(name: str) -> Files:
  """Returns the files of an additional evaluation, such as 'evaluation/seams'."""
  return Files(f'{name}.json', f'{name}.html')


def folder_of(run: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder for results of a run: its own, or owner/name here for a published run."""
  return pathlib.Path(read_name(run).place.partition('://')[2].strip('/') if is_name(run) else run)


def evaluation_of(run: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of pictures and samples of a run's evaluation."""
  return folder_of(run) / 'evaluation'


def write_findings(
  run: str | os.PathLike[str],
  task: str,
  measured: Measured,
  about: Fields,
  written: Sequence[pathlib.Path] = (),
  show: Show | None = None,
  files: Files = MAIN,
) -> Findings:
  """Writes the record, the samples to show, and the page.

  `run` is the model or the folder of the videos. Only records of the same `task`, such as 'video',
  can be compared. `about` is the provenance of the numbers (weights, settings, seed), `show` writes
  the file of a sample, and `written` lists pictures that exist already.
  """
  folder = folder_of(run)
  path = folder / files.record
  page = folder / files.page
  samples = page.parent / SAMPLES
  sample_files = {}
  for earlier in samples.glob('[0-9]*.*'):
    earlier.unlink()  # an earlier evaluation may have shown other samples
  if show is not None:
    for index in measured.samples_to_show():
      if (file := show(index, samples / f'{index:05d}')) is not None:
        sample_files[index] = _relative(file, page.parent)
  record = {'task': task, **about, **measured.record, 'measured': measured.as_dict(sample_files)}
  write_json(path, record)
  _write_page(page, record)
  return Findings(table_of(measured), [*written, page, path])


def add_comparison(findings: Findings, other: Other) -> Findings:
  """Adds the comparison with another record to a record, its page and its table."""
  page, path = findings.paths[-2:]
  record = read_json(path)
  record['against'] = compare_records(record, other)
  write_json(path, record)
  _write_page(page, record)
  return Findings(f'{findings.table}\n\n{_comparison_lines(record)}', findings.paths)


def _relative(path: pathlib.Path, folder: pathlib.Path) -> str:
  path, folder = path.absolute(), folder.absolute()
  return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _write_page(path: pathlib.Path, record: Fields) -> None:
  title = f'Evaluation of {path.parent.absolute().name}'
  write_bytes(path, evaluation_page(printable(title), record, path.parent).encode())


def _comparison_lines(record: Mapping[str, Any]) -> str:
  """Returns the comparison as lines of text."""
  against = record['against']
  metrics = record['measured']['metrics']
  lines = [f'against {printable(against["path"])}:', *against['notes']]
  for name, change in against['metrics'].items():
    metric = metrics[name]
    ends = [change['low'], change['high']]
    interval = '' if None in ends else f' [{ends[0]:+.3g}, {ends[1]:+.3g}]'
    how = f'paired over {change["prompts"]} prompts' if change['prompts'] else 'not paired'
    if won := change.get('wins'):
      sure = '' if None in won else f' [{won[1]:.2f}, {won[2]:.2f}]'
      how += f', larger in {won[0]:.2f}{sure} of them'
    numbers = ' -> '.join(format_number(number) for number in (change['other'], metric['value']))
    warning = f'; {change["warning"]}' if change['warning'] else ''
    label = printable(metric['label'] or name)
    lines.append(f'{label}: {numbers}, {change["difference"]:+.3g}{interval}, {how}{warning}')
  return '\n'.join(lines)
