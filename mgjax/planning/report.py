"""Plans and searches as text for people, and as JSON values."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mgjax.parallel.chips import GIB, Topology
from mgjax.planning.plan import ESTIMATED, Plan, recommended_remat
from mgjax.planning.policies import ORDER
from mgjax.planning.roofline import ASSUMED, Roofline
from mgjax.planning.search import FREE, LongestVideo, MeshCandidate, fits, mesh_flag
from mgjax.planning.workload import Workload

SHOWN = 12  # candidates of a search


def describe_plan(plan: Plan) -> str:
  """Returns a plan as text: model, mesh, memory, collectives and seconds."""
  parts = [_model(plan.work), _mesh(plan), _memory(plan), _collectives(plan), _time(plan)]
  return '\n\n'.join('\n'.join(part) for part in parts)


def describe_search(
  work: Workload, topology: Topology, found: Sequence[MeshCandidate], longest: LongestVideo | None
) -> str:
  """Returns a search as text: what fits, the fastest first, and the longest video."""
  lines = [
    *_model(work),
    '',
    f'on {topology.name}, {topology.devices} devices, by formula: what fits',
  ]
  rows = [
    ('mesh', 'remat', 'exchange', 'rows', 'GiB', 'step s', 'samples/s', 'MFU low-likely-high')
  ]
  for each in found[:SHOWN]:
    time = each.time
    mfu = '-'.join(
      f'{time.utilisation(seconds):.0%}' for seconds in (time.slowest, time.step, time.fastest)
    )
    rows.append(
      (
        mesh_flag(each.sizes), each.remat, each.exchange, str(each.rows),
        f'{each.peak / GIB:.1f}', f'{time.step:.4g}', f'{each.rate:.3f}', mfu,
      )
    )  # fmt: skip
  lines += table(rows) if found else ['nothing: take more chips or a smaller model']
  if len(found) > SHOWN:
    lines.append(f'and {len(found) - SHOWN} more')
  lines += ['', _longest(work, longest), ASSUMED]
  return '\n'.join(lines)


def _longest(work: Workload, longest: LongestVideo | None) -> str:
  if longest is None:
    return 'longest video: none fits'
  _, height, width = work.shape
  candidate = longest.candidate
  name, frames = ('sound', f'{longest.frames:,} latents')
  if work.is_video:
    name, frames = f'video of {height} x {width}', f'{8 * longest.frames:,} frames'
  return (
    f'longest {name}: {frames}, {longest.tokens:,} '
    f'tokens ({longest.tokens / 73_728:.1f} x 73,728), with {mesh_flag(candidate.sizes)}, '
    f'{candidate.remat}, {candidate.exchange}'
  )


def _model(work: Workload) -> list[str]:
  flops = work.flops
  parts = (
    ('linear', flops.linear),
    ('self-attention', flops.self_attention),
    ('cross-attention', flops.cross_attention),
  )
  shares = ', '.join(f'{name} {value / flops.forward:.1%}' for name, value in parts)
  frames, height, width = work.shape
  what = f'{frames} frames of {height} x {width}' if work.is_video else f'{frames} latents of sound'
  return [
    f'model       {work.count:,} parameters',
    f'sample      {work.bucket}: {what}, {work.tokens:,} tokens, {work.context:,} of text',
    f'work        {flops.training:.4g} FLOP a sample, forward and backward ({shares})',
  ]


def _mesh(plan: Plan) -> list[str]:
  chosen = plan.chosen
  lines = [f'topology    {plan.topology.name}, {plan.topology.devices} devices']
  for axis, wires in chosen.axes.items():
    many = len(getattr(wires, 'wires', ())) > 2
    note = '; over three axes gathers become all-reduces of twice the bytes' if many else ''
    lines.append(f'mesh        {axis} = {chosen.sizes[axis]} on {wires.layout}{note}')
  lines.append(
    f'step        {chosen.rows} samples, remat {chosen.remat}, exchange {chosen.exchange}'
  )
  return lines


def _memory(plan: Plan) -> list[str]:
  capacity = plan.topology.chip.memory / GIB
  rows = [(kind, f'{value / GIB:.3g}') for kind, value in plan.chosen.bytes.items()]
  rows.append(('peak by formula', f'{plan.chosen.peak / GIB:.3g}'))
  rows += [(f'compiler: {kind}', f'{value:.3g}') for kind, value in plan.measured.items()]
  free = f'{plan.free:.0%} free'
  verdict = f'fits, {free}' if plan.fits else f'does not fit: {free}, {FREE:.0%} wanted'
  lines = [f'GiB a chip, of {capacity:.1f}: {verdict}', *table(rows)]
  policies = (plan.policies[name] for name in ORDER if name in plan.policies)
  words = [
    f'{each.remat} {each.peak / GIB:.1f} GiB {each.time.step:.3g} s'
    + ('' if fits(each, plan.topology) else ' (too large)')
    for each in policies
  ]
  best = recommended_remat(plan)
  lines += [
    f'policies    {"; ".join(words)}',
    f'recommended --config.model.remat={best}' if best else 'recommended more chips: none fits',
  ]
  return lines


def _collectives(plan: Plan) -> list[str]:
  rows = [('collectives a step', 'kind', 'axis', 'GiB a chip', 'count', 'seconds', '')]
  rows += [
    (
      each.what, each.kind, each.axis, f'{each.bytes / GIB:.2f}', f'{each.count:,}',
      f'{each.seconds:.3g}', 'asynchronous' if each.asynchronous else 'waits',
    )
    for each in plan.chosen.collectives
  ]  # fmt: skip
  return table(rows)


def _time(plan: Plan) -> list[str]:
  time = plan.chosen.time
  low, likely, high = (
    time.utilisation(seconds) for seconds in (time.slowest, time.step, time.fastest)
  )
  lines = [
    f'seconds     {time.step:.4g} a step: linear {time.linear:.3g}, attention '
    f'{time.attention:.3g}, element-wise {time.elementwise:.3g}, update {time.optimizer:.3g}, '
    f'waiting {time.waiting:.3g}',
    f'ideal       {time.ideal:.4g} at the peak of every chip',
    f'MFU         {low:.1%} (nothing hidden) .. {high:.1%} (all hidden); {likely:.1%} if what is '
    'asynchronous hides',
    f'bound by    {time.bound}',
    f'samples/s   {plan.chosen.rate:.4g}',
  ]
  if stage := plan.stage():
    lines.append(f'stage       {stage[0]} in {stage[1]:,.0f} days, if all samples were as long')
  return [*lines, f'            {ASSUMED}', *plan.notes]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns columns as wide as they need; numbers to the right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = [
      cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
      for cell, width in zip(row, widths, strict=True)
    ]
    lines.append('  ' + '  '.join(cells).rstrip())
  return lines


def plan_as_json(plan: Plan) -> dict[str, Any]:
  """Returns a plan as one object of plain JSON values."""
  work, chosen, time = plan.work, plan.chosen, plan.chosen.time
  stage = plan.stage()
  return {
    'notes': list(plan.notes),
    'topology': plan.topology.name,
    'devices': plan.topology.devices,
    'mesh': dict(chosen.sizes),
    'torus': {axis: each.layout for axis, each in chosen.axes.items()},
    'bucket': work.bucket,
    'tokens': work.tokens,
    'rows': chosen.rows,
    'remat': chosen.remat,
    'exchange': chosen.exchange,
    'parameters': work.count,
    'flops_per_sample': work.flops.training,
    'flops': {name: 3 * value for name, value in dataclasses.asdict(work.flops).items()},
    'gib_per_chip': {kind: value / GIB for kind, value in chosen.bytes.items()},
    'peak_gib_per_chip': plan.peak_gib,
    'compiler_gib_per_chip': dict(plan.measured),
    'capacity_gib': plan.topology.chip.memory / GIB,
    'free': plan.free,
    'fits': plan.fits,
    'collectives': [dataclasses.asdict(each) for each in chosen.collectives],
    'assumed': ASSUMED,
    'ideal_seconds': time.ideal,
    'compute_seconds': {
      name: getattr(time, name) for name in ('linear', 'attention', 'elementwise', 'optimizer')
    },
    'communication_seconds': {'waited_for': time.waiting, 'all': time.communication},
    'step_seconds': time.step,
    'roofline_mfu': _utilisation(time),
    'bound': time.bound,
    'samples_per_second': chosen.rate,
    'stage': {'name': stage[0], 'days': stage[1]} if stage else None,
    'recommended_remat': recommended_remat(plan),
  }


def search_as_json(
  work: Workload, topology: Topology, found: Sequence[MeshCandidate], longest: LongestVideo | None
) -> dict[str, Any]:
  """Returns a search as one object of plain JSON values."""
  return {
    'notes': [ESTIMATED],
    'topology': topology.name,
    'devices': topology.devices,
    'bucket': work.bucket,
    'tokens': work.tokens,
    'parameters': work.count,
    'flops_per_sample': work.flops.training,
    'assumed': ASSUMED,
    'candidates': [_candidate(each) for each in found],
    'longest': longest
    and {
      'latent_frames': longest.frames,
      'tokens': longest.tokens,
      **_candidate(longest.candidate),
    },
  }


def _candidate(each: MeshCandidate) -> dict[str, Any]:
  time = each.time
  return {
    'mesh': dict(each.sizes),
    'rows': each.rows,
    'remat': each.remat,
    'exchange': each.exchange,
    'peak_gib_per_chip': each.peak / GIB,
    'step_seconds': time.step,
    'samples_per_second': each.rate,
    'roofline_mfu': _utilisation(time),
  }


def _utilisation(time: Roofline) -> dict[str, float]:
  return {
    'low': time.utilisation(time.slowest),
    'audited': time.utilisation(time.step),
    'high': time.utilisation(time.fastest),
  }
