"""Plans of sampling as text for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.parallel.chips import GIB
from mgjax.planning.efficiency import Ends, words
from mgjax.planning.report import table
from mgjax.planning.search import mesh_flag


def describe_generation(answer: Mapping[str, Any]) -> str:
  """Returns what `plan_generation` found as a table for people."""
  frames, height, width = answer['shape']
  one, verdict = answer['pass'], 'fits' if answer['fits'] else 'does not fit'
  per = answer['evaluations'] / answer['passes']
  lines = [
    f'model       {answer["parameters"]:,} parameters',
    f'sample      {answer["bucket"]}: {frames} x {height} x {width}, {answer["tokens"]:,} tokens, '
    f'{answer["context"]:,} of text',
    f'passes      {answer["passes"]} of {per:g} rows a sample ({answer["steps"]} steps of '
    f'{answer["solver"]}), {answer["flops"]:.4g} FLOP for {answer["samples"]} at a time',
    f'on          {answer["topology"]}, {answer["devices"]} devices, {mesh_flag(answer["mesh"])}, '
    f'exchange {answer["exchange"]}',
    '',
    f'GiB a chip, of {answer["gib_of_a_chip"]:.1f}: {verdict}, {answer["peak_gib"]:.1f} at peak',
    *(f'  {name:20} {value:8.2f}' for name, value in answer['gib'].items()),
    *(f'  {name}: {_words_of(each)}' for name, each in answer['programs'].items()),
    '',
    *table(_collectives(one['collectives'])),
    f'a pass      {_range(one["seconds"], ".4g")} s: linear {_range(one["linear"])}, attention '
    f'{_range(one["attention"])}, element-wise {_range(one["elementwise"])}, waiting '
    f'{_range(one["waiting"])} of {one["communication"]:.3g} of communication; '
    f'{one["seconds"]["ideal"]:.3g} at the peak',
    '',
    *table([_HEADINGS, *(_cells(each['name'], each) for each in answer['levers'])]),
    '',
    'by formula, as configured, all chips on the same samples:',
    *table([_HEADINGS, *(_cells(each['topology'], each) for each in answer['slices'])]),
    '',
    *answer['notes'],
  ]
  return '\n'.join(lines)


_HEADINGS = (
  '', 'passes', 'rows', 'PFLOP', 's at the peak', 's low', 's high', 'MFU', 'an hour',
  'GiB', 'mesh',
)  # fmt: skip


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
  seconds = row['seconds']
  return (
    name, str(row['passes']), str(row['evaluations']), f'{row["flops"] / 1e15:.4g}',
    *(f'{seconds[key]:.3g}' for key in ('ideal', 'low', 'high')),
    _range(row['mfu'], '.0%'), _range(row['samples_per_hour']),
    f'{row["peak_gib"]:.1f}' + (' (too large)' if not row['fits'] else ''), mesh_flag(row['mesh']),
  )  # fmt: skip


def _collectives(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
  heading = (
    'collectives a pass',
    'kind',
    'axis',
    'GiB a chip',
    'count',
    'seconds',
    'waited for',
    '',
  )
  return [heading] + [
    (
      each['what'], each['kind'], each['axis'], f'{each["bytes"] / GIB:.2f}', f'{each["count"]:,}',
      f'{each["seconds"]:.3g}', _range(each['waits']),
      'asynchronous' if each['asynchronous'] else 'waits',
    )
    for each in found
  ]  # fmt: skip


def _range(numbers: Mapping[str, float], form: str = '.3g') -> str:
  return words(Ends(numbers['high'], numbers['low']), form)


def _words_of(program: Mapping[str, Any]) -> str:
  return (
    f'{program["peak_gib"]:.1f} GiB at the peak, {program["arguments_gib"]:.1f} of them arguments; '
    f'compiled in {program["compile_seconds"]:.0f} s'
  )
