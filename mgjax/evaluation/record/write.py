"""Writes what an evaluation found: its record, files of samples, and the page that shows both."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mgjax.core.errors import printable
from mgjax.core.files import read_json, write_bytes, write_json
from mgjax.core.typing import UInt8
from mgjax.evaluation.record.against import Other, compare_records
from mgjax.evaluation.record.measured import Measured
from mgjax.media.viewing import write_clip
from mgjax.runtime.report.charts import format_number
from mgjax.runtime.report.evaluation import evaluation_page

PAGE = 'evaluation.html'
SAMPLES = 'evaluation/each'  # files of the samples of a page, in the work directory
# Place of a sample, where to write it without an ending -> the file that shows it; None for none.
Show = Callable[[int, pathlib.Path], pathlib.Path | None]


@dataclasses.dataclass(frozen=True)
class Findings:
  """The results of an evaluation.

  Attributes:
    table: the numbers, for people.
    paths: what was written; the last two are the page and the record: weights, settings and numbers
      in JSON.
  """

  table: str
  paths: list[pathlib.Path]


@runtime_checkable
class Evaluated(Protocol):
  """What every evaluation finds, of whatever kind."""

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    ...

  def table(self) -> str:
    """Formats the numbers, for people."""
    ...

  def measured(self) -> Measured:
    """Returns all numbers with their intervals, sample by sample where there are such."""
    ...


def write_findings(
  task: str,
  found: Evaluated,
  about: Mapping[str, Any],
  path: pathlib.Path,
  written: Sequence[pathlib.Path] = (),
  *,
  page: pathlib.Path,
  show: Show | None = None,
) -> Findings:
  """Writes the record, the samples to show, and the page.

  Args:
    task: what was evaluated, such as 'video'; records of other tasks are not compared.
    found: the numbers.
    about: where they are from: weights, settings, seed.
    path: of the record.
    written: pictures that were written before.
    page: where the page goes.
    show: writes the file of a sample; without it no sample is shown.
  """
  measured, folder = found.measured(), page.parent / SAMPLES
  files = {}
  for earlier in folder.glob('[0-9]*.*'):
    earlier.unlink()  # of an evaluation that showed others
  if show is not None:
    for place in measured.shown():
      if (file := show(place, folder / f'{place:05d}')) is not None:
        files[place] = _relative(file, page.parent)
  record = {'task': task} | dict(about) | found.as_dict() | {'measured': measured.as_dict(files)}
  write_json(path, record)
  _write_page(page, record)
  return Findings(found.table(), [*written, page, path])


def add_comparison(findings: Findings, other: Other) -> Findings:
  """Adds the comparison with another record to a record, its page and its table."""
  page, path = findings.paths[-2:]
  record = read_json(path)
  record['against'] = compare_records(record, other)
  write_json(path, record)
  _write_page(page, record)
  return Findings(f'{findings.table}\n\n{_told(record)}', findings.paths)


def clips_of(videos: Sequence[np.ndarray] | UInt8[np.ndarray, 'b t h w 3'], fps: float) -> Show:
  """Returns what writes videos as .mp4, and those of one frame as .png."""

  def show(place: int, stem: pathlib.Path) -> pathlib.Path:
    video = np.asarray(videos[place])
    path = stem.with_suffix('.mp4' if len(video) > 1 else '.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, video, fps)
    return path

  return show


def _relative(path: pathlib.Path, folder: pathlib.Path) -> str:
  path, folder = path.absolute(), folder.absolute()
  return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _write_page(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  title = f'Evaluation of {path.parent.absolute().name}'
  write_bytes(path, evaluation_page(printable(title), record, path.parent).encode())


def _told(record: Mapping[str, Any]) -> str:
  """The comparison in lines, for people."""
  against, metrics = record['against'], record['measured']['metrics']
  lines = [f'against {printable(against["path"])}:', *against['notes']]
  for name, change in against['metrics'].items():
    metric = metrics[name]
    ends = [change['low'], change['high']]
    interval = '' if None in ends else f' [{ends[0]:+.3g}, {ends[1]:+.3g}]'
    how = f'paired over {change["prompts"]} prompts' if change['prompts'] else 'not paired'
    numbers = ' -> '.join(format_number(number) for number in (change['other'], metric['value']))
    warning = f'; {change["warning"]}' if change['warning'] else ''
    label = printable(metric['label'] or name)
    lines.append(f'{label}: {numbers}, {change["difference"]:+.3g}{interval}, {how}{warning}')
  return '\n'.join(lines)
