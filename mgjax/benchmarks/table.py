"""A table in Markdown of benchmarks that were written to files, beside what the planner assumes."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mgjax.core.errors import DataError
from mgjax.parallel.chips import KINDS
from mgjax.planning.efficiency import BACKWARD, FORWARD, rates_of, words

HEADINGS = (
  'run', 'what', 'program', 'of', 'sizes', 'median s', 'min s', 'TFLOP/s', 'MFU', 'assumed MFU',
  'peak GiB',
)  # fmt: skip


def describe_folder(folder: str | os.PathLike) -> str:
  """Returns the benchmarks of a folder as one table, a row a program, and those that failed.

  Args:
    folder: has NAME.json of `launch.bench --out`, and NAME.txt of what it printed; one without the
      other failed, and its last line says why.

  Raises:
    DataError: there is neither.
  """
  folder = pathlib.Path(folder)
  written = {path.stem: path for path in sorted(folder.glob('*.json'))}
  printed = {path.stem: path for path in sorted(folder.glob('*.txt'))}
  if not written and not printed:
    raise DataError(
      f'{folder} has no NAME.json; give a folder of what launch.bench --out=FOLDER/NAME.json wrote'
    )
  reports = {name: json.loads(path.read_text()) for name, path in written.items()}
  devices = sorted({f'{each["devices"]} x {each["device"]}' for each in reports.values()})
  lines = [', '.join(devices) or 'nothing was measured', '']
  lines += [_line(HEADINGS), _line(['---'] * len(HEADINGS))]
  for name, report in reports.items():
    lines += [_line(row) for row in _rows(name, report)]
  lost = {name: path for name, path in printed.items() if name not in written}
  if lost:
    lines.append('')
  for name, path in lost.items():
    last = path.read_text(errors='replace').strip().splitlines()[-1:] or ['it printed nothing']
    lines.append(f'- {name} failed: {last[0].strip()}')
  return '\n'.join(lines)


def _rows(name: str, report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
  for whose, programs in report['programs'].items():
    for program, numbers in programs.items():
      yield (
        name, report['what'], program, whose, _sizes(report), f'{numbers["median"]:.4g}',
        f'{numbers["min"]:.4g}', f'{numbers["tflops_per_second"]:.4g}',
        '-' if numbers['mfu'] is None else f'{numbers["mfu"]:.1%}', _assumed(report, program),
        f'{report["peak_gib"]:.3g}',
      )  # fmt: skip


def _sizes(report: Mapping[str, Any]) -> str:
  if 'latents' not in report:
    return ' x '.join(map(str, report.get('video') or report.get('prompts') or ()))
  layers = f'{report["layers"]} layers, ' if report['layers'] else ''
  return f'{layers}{report["latents"][0]} x {report["tokens_per_sample"]:,} tokens'


def _assumed(report: Mapping[str, Any], program: str) -> str:
  """The planner's range for attention alone: shares forward, and with five products of two more.

  MFU counts a backward pass as two forward ones: 3 / (1 / f + 5 / 2 / b).
  """
  if report['what'] != 'attention' or report['device'] not in KINDS:
    return '-'
  rates = rates_of(KINDS[report['device']])
  if program == 'forward':
    return words(rates.map(lambda each: each.forward), '.0%')
  share = rates.map(lambda r: 3 / (1 / r.forward + BACKWARD / FORWARD / r.backward))
  return words(share, '.0%')


def _line(cells) -> str:
  return f'| {" | ".join(cells)} |'
