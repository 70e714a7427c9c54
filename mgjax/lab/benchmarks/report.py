"""Reports of benchmarks: rates, MFU, ratios to baselines, and a table for people."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import DataError
from mgjax.lab.planning.efficiency import BACKWARD, FORWARD, rates_of, words
from mgjax.lab.report.tables import aligned, markdown
from mgjax.parallel.chips import KINDS, Chip

Timings = Mapping[tuple[str, str], Mapping[str, float]]

OURS = 'mgjax'
COUNTED = (
  'FLOPs are those of the model: all matrix products, attention counted (4 b n^2 d a layer and '
  'forward pass), forward and backward as 3 forward passes, 2 of frozen maps, nothing for what is '
  'computed again'
)
# Dao et al. count the backward pass as 2.5 forward passes, with the scores that it computes again.
ATTENTION_COUNTED = f'{COUNTED}; papers on attention kernels count 3.5, 7/6 of these'
PASSES_COUNTED = (
  'FLOPs are those of our program before it is compiled: all convolutions, with the zeros that they'
  ' read at edges, and all matrix products, attention counted'
)


def rates(
  seconds: float, flops: int, *, rows: int, devices: int, chip: Chip | None, **counts: int
) -> dict[str, float | None]:
  """Returns what a program does in a second, and how much of the chips' peak that is.

  MFU = flops / (seconds x devices x peak of bfloat16 products)
  """
  return {
    **{f'{name}_per_second': count / seconds for name, count in counts.items()},
    'samples_per_second': rows / seconds,
    'tflops_per_second': flops / seconds / 1e12,
    'mfu': None if chip is None else flops / (seconds * devices * chip.flops),
  }


def rated(timings: Timings, flops: Mapping[str, int], **sizes: Any) -> dict[str, dict[str, JSON]]:
  """Returns 'mgjax' or a baseline -> program -> its times, operations, and rates of the median."""
  rated_programs: dict[str, dict[str, dict[str, Any]]] = {}
  for (name, program), times in timings.items():
    numbers = rates(times['median'], flops[program], **sizes)
    rated_programs.setdefault(name, {})[program] = {**times, 'flops': flops[program], **numbers}
  return rated_programs


def ratios(timings: Timings) -> dict[str, dict[str, dict[str, float]]]:
  """Returns baseline -> program -> its seconds, as a multiple of ours."""
  factors: dict[str, dict[str, dict[str, float]]] = {}
  for (name, program), times in timings.items():
    if name != OURS:
      ours = timings[OURS, program]
      factors.setdefault(name, {})[program] = {key: times[key] / ours[key] for key in ours}
  return factors


def describe_benchmark(report: Mapping[str, Any]) -> str:
  """Returns a benchmark of a model as text."""
  parts = [_heading(report), *aligned(_rows(report), names=2)]
  for name, variant in report['baseline_over_mgjax'].items():
    for program, times in variant.items():
      parts.append(f'{name} / {OURS}, {program}: {times["min"]:.2f} (min), {times["median"]:.2f}')
  parts += [f'{name} failed: {message}' for name, message in report['failed'].items()]
  parts.append(
    f'peak memory {report["peak_gib"]:.3g} GiB a device, as the {report["peak_from"]} says'
  )
  if report['peak_tflops'] is not None:
    parts.append(f'MFU is of {report["peak_tflops"]:.4g} TFLOP/s a device, its bfloat16 peak')
  return '\n'.join([*parts, report['counted'], *report['notes']])


def _heading(report: Fields) -> str:
  mesh = ', '.join(f'{axis} {size}' for axis, size in report['mesh'].items() if size > 1)
  devices = f'{report["devices"]} x {report["device"]}' + (f' ({mesh})' if mesh else '')
  return f'{report["what"]} on {devices}: {_sizes(report)}'


def _sizes(report: Fields) -> str:
  if 'sizes' in report:
    return f'{" x ".join(map(str, report["sizes"]))}, {report["dtype"]}'
  rows = report['latents'][0]
  tokens = report['tokens_per_sample']
  depth = f'{report["layers"]} of {report["layers_configured"]} layers, ' * bool(report['layers'])
  how = ', '.join(f'{key} {report[key]}' for key in ('remat', 'attention', 'exchange'))
  return f'{depth}{rows} x {tokens:,} tokens, {report["dtype"]}, {how}'


def _rows(report: Fields) -> list[tuple[str, ...]]:
  unit = report.get('unit', 'tokens')
  rows = [
    (
      '',
      '',
      'median s',
      'min s',
      'cpu s',
      'TFLOP/s',
      'MFU',
      f'{unit}/s',
      'samples/s',
      'GiB',
      'compiled in s',
    )
  ]
  for name, programs in report['programs'].items():
    for program, numbers in programs.items():
      rows.append(
        (
          name,
          program,
          f'{numbers["median"]:.4g}',
          f'{numbers["min"]:.4g}',
          f'{numbers["cpu"]:.4g}',
          f'{numbers["tflops_per_second"]:.4g}',
          '-' if numbers['mfu'] is None else f'{numbers["mfu"]:.1%}',
          f'{numbers[f"{unit}_per_second"]:,.0f}',
          f'{numbers["samples_per_second"]:.4g}',
          f'{numbers["compiled_gib"]:.3g}' if 'compiled_gib' in numbers else '-',
          f'{numbers["compile_seconds"]:.1f}' if 'compile_seconds' in numbers else '-',
        )
      )
  return rows


def describe_folder(folder: str | os.PathLike) -> str:
  """Returns the benchmarks of a folder as one table, a row a program, and those that failed.

  The planner's range for attention alone is beside its MFU, and the compiler's peak of a program
  beside the device's. `launch.bench --out` writes NAME.json and prints NAME.txt; a NAME.txt without
  NAME.json failed, and its last line says why. DataError: there is neither.
  """
  written, printed = (sorted(pathlib.Path(folder).glob(f'*.{kind}')) for kind in ('json', 'txt'))
  if not written and not printed:
    raise DataError(
      f'{folder} has no NAME.json; give a folder of what launch.bench --out=FOLDER/NAME.json wrote'
    )
  reports = {path.stem: json.loads(path.read_text()) for path in written}
  devices = sorted({f'{report["devices"]} x {report["device"]}' for report in reports.values()})
  about = [report.get(key) for report in reports.values() for key in ('machine', 'date')]
  machines = sorted({word for word in about if word})
  rows = [
    (
      'run',
      'what',
      'program',
      'of',
      'sizes',
      'median s',
      'min s',
      'processor s',
      'times ours',
      'TFLOP/s',
      'MFU',
      'assumed MFU',
      'peak GiB',
      'compiled GiB',
    )
  ]
  for name, report in reports.items():
    for whose, programs in report['programs'].items():
      for program, numbers in programs.items():
        rows.append(
          (
            name,
            report['what'],
            program,
            whose,
            _sizes(report),
            f'{numbers["median"]:.4g}',
            f'{numbers["min"]:.4g}',
            f'{numbers["cpu"]:.4g}',
            _times_ours(report, whose, program),
            f'{numbers["tflops_per_second"]:.4g}',
            '-' if numbers['mfu'] is None else f'{numbers["mfu"]:.1%}',
            _assumed(report, program),
            f'{report["peak_gib"]:.3g}',
            f'{numbers["compiled_gib"]:.3g}' if 'compiled_gib' in numbers else '-',
          )
        )
  lines = [', '.join([*devices, *machines]) or 'nothing was measured', '', markdown(rows)]
  lines += [f'- {name} {shares}' for name, report in reports.items() if (shares := _shares(report))]
  for path in (path for path in printed if path.stem not in reports):
    last = path.read_text(errors='replace').strip().splitlines()[-1:] or ['it printed nothing']
    lines.append(f'- {path.stem} failed: {last[0].strip()}')
  return '\n'.join(lines)


def _shares(report: Fields) -> str:
  """What attention alone says of two shares of `mgjax/lab/planning/efficiency.py`."""
  mfu = {name: numbers['mfu'] for name, numbers in report['programs'][OURS].items()}
  if report['what'] != 'attention' or not all(mfu.values()) or len(mfu) < 2:
    return ''
  backward = BACKWARD / FORWARD / (3 / mfu['forward_backward'] - 1 / mfu['forward'])
  return f'measures attention at {mfu["forward"]:.1%} of the peak forward, {backward:.1%} backward'


def _times_ours(report: Fields, whose: str, program: str) -> str:
  """How many times our median and our processor seconds a baseline takes."""
  times = report.get('baseline_over_mgjax', {}).get(whose, {}).get(program)
  return f'{times["median"]:.2f}, {times["cpu"]:.2f}' if times else '-'


def _assumed(report: Mapping[str, Any], program: str) -> str:
  """Returns the planner's range of the MFU of attention alone, '-' if it has none.

  The kernels run at the share f forward and b backward, and backward has 5 products for 2. MFU
  counts a backward pass as two forward ones: 3 / (1 / f + 5 / 2 / b).
  """
  if report['what'] != 'attention' or report['device'] not in KINDS:
    return '-'
  rates = rates_of(KINDS[report['device']])
  if program == 'forward':
    return words(rates.map(lambda efficiency: efficiency.forward), '.0%')
  share = rates.map(lambda r: 3 / (1 / r.forward + BACKWARD / FORWARD / r.backward))
  return words(share, '.0%')
