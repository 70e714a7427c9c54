"""Plans and searches as text for people, and as JSON values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.configuration.keys import JSON
from mgjax.lab.planning.communication import Collective
from mgjax.lab.planning.efficiency import Ends, bounds, lasting, spread, words
from mgjax.lab.planning.plan import ESTIMATED, Plan, recommended_remat
from mgjax.lab.planning.policies import ORDER
from mgjax.lab.planning.roofline import Roofline, describe_assumptions
from mgjax.lab.planning.search import FREE, MeshCandidate, fits, mesh_flag
from mgjax.lab.planning.workload import Workload
from mgjax.lab.report.tables import aligned
from mgjax.parallel.chips import GIB, Topology

SHOWN = 12  # candidates of a search
COLLECTIVES = ('kind', 'axis', 'GiB a chip', 'count', 'seconds', 'waited for', '')


def describe_plan(plan: Plan) -> str:
  """Returns a plan as text: model, mesh, memory, collectives and seconds."""
  rows = (collective_row(collective_as_json(collective)) for collective in plan.chosen.collectives)
  collectives = table([('collectives a step', *COLLECTIVES), *rows], names=3)
  parts = [_model(plan.work), _mesh(plan), _memory(plan), collectives, _time(plan)]
  return '\n\n'.join('\n'.join(part) for part in parts)


def describe_search(work: Workload, topology: Topology, candidates: Sequence[MeshCandidate]) -> str:
  """Returns a search as text: what fits, the fastest first."""
  on = f'on {topology.name}, {topology.devices} devices, by formula: what fits'
  lines = [*_model(work), '', on]
  rows = [('mesh', 'remat', 'exchange', 'rows', 'GiB', 'step s', 'samples/s', 'MFU')]
  for candidate in candidates[:SHOWN]:
    rows.append(
      (
        mesh_flag(candidate.sizes),
        candidate.remat,
        candidate.exchange,
        str(candidate.rows),
        f'{candidate.peak / GIB:.1f}',
        _of(candidate.time, 'step'),
        words(candidate.rate),
        _of(candidate.time, 'utilisation', '.0%'),
      )
    )
  lines += table(rows, names=3) if candidates else ['nothing: take more chips or a smaller model']
  if len(candidates) > SHOWN:
    lines.append(f'and {len(candidates) - SHOWN} more')
  lines += ['', *describe_assumptions(work, topology.chip.name, (), backward=True)]
  return '\n'.join(lines)


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
    many_wires = len(getattr(wires, 'wires', ())) > 2
    note = '; over three axes gathers become all-reduces of twice the bytes' if many_wires else ''
    lines.append(f'mesh        {axis} = {chosen.sizes[axis]} on {wires.layout}{note}')
  lines.append(
    f'step        {chosen.rows} samples, remat {chosen.remat}, exchange {chosen.exchange}'
  )
  work = plan.work
  own = [f'remat {work.remat}, a row of the policies below'] * (chosen.remat != work.remat)
  own += [f'{work.batch} samples, which --rows={work.batch} plans'] * (chosen.rows != work.batch)
  return [*lines, f'configured  {"; ".join(own)}'] if own else lines


def _memory(plan: Plan) -> list[str]:
  capacity = plan.topology.chip.memory / GIB
  rows = [(kind, f'{value / GIB:.3g}') for kind, value in plan.chosen.bytes.items()]
  rows.append(('peak by formula', f'{plan.chosen.peak / GIB:.3g}'))
  rows += [(f'compiler: {kind}', f'{value:.3g}') for kind, value in plan.measured.items()]
  free = f'{plan.free:.0%} free'
  verdict = f'fits, {free}' if plan.fits else f'does not fit: {free}, {FREE:.0%} wanted'
  lines = [f'GiB a chip, of {capacity:.1f}: {verdict}', *table(rows)]
  policies = (plan.policies[name] for name in ORDER if name in plan.policies)
  for index, candidate in enumerate(policies):
    notes = [] if fits(candidate, plan.topology) else ['too large']
    notes += ['as configured'] if candidate.remat == plan.work.remat else []
    notes += ['planned here'] if candidate.remat == plan.chosen.remat else []
    text = f'{candidate.remat} {candidate.peak / GIB:.1f} GiB {_of(candidate.time, "step")} s'
    note = f' ({", ".join(notes)})' if notes else ''
    lines.append(f'{"" if index else "policies":12}{text}{note}')
  best = recommended_remat(plan)
  return [*lines, f'recommended {_recommended(plan, best) if best else "more chips: none fits"}']


def _recommended(plan: Plan, best: str) -> str:
  own = plan.policies[plan.work.remat]
  new = plan.policies[best]
  if new is own:
    return f'remat {best}, as configured'
  if not fits(own, plan.topology):
    return f'--config.model.remat={best}; as configured it does not fit'
  ends = zip((own.time.slow, own.time.fast), (new.time.slow, new.time.fast), strict=True)
  saving = words(Ends(*(1 - b.step / a.step for a, b in ends)), '.0%')
  return f'--config.model.remat={best}, {saving} less time a step than as configured'


def collective_row(collective: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns a collective (`collective_as_json`) as cells of a table."""
  return (
    collective['what'],
    collective['kind'],
    collective['axis'],
    f'{collective["bytes"] / GIB:.2f}',
    f'{collective["count"]:,}',
    f'{collective["seconds"]:.3g}',
    spread(collective['waits']),
    'asynchronous' if collective['asynchronous'] else 'waits',
  )


def _time(plan: Plan) -> list[str]:
  time = plan.chosen.time
  chosen = plan.chosen
  parts = ('linear', 'attention', 'elementwise', 'optimizer', 'waiting')
  seconds = ', '.join(f'{name} {_of(time, name)}' for name in parts)
  lines = [
    f'seconds     {_of(time, "step", ".4g")} a step: {seconds} of '
    f'{time.fast.communication:.3g} of communication',
    f'ideal       {time.fast.ideal:.4g} at the peak of every chip',
    f'MFU         {_of(time, "utilisation", ".1%")}, by formula',
    f'bound by    {" or ".join(_bound(time))}',
    f'samples/s   {words(chosen.rate, ".4g")}',
  ]
  if stage := plan.stage():
    lines.append(f'stage       {stage[0]} in {lasting(stage[1])}, if all samples were as long')
  return [*lines, *(f'            {line}' for line in _assumed(plan)), *plan.notes]


def _assumed(plan: Plan) -> list[str]:
  collectives = plan.chosen.collectives
  chip = plan.topology.chip.name
  return describe_assumptions(plan.work, chip, collectives, backward=True)


def _of(time: Ends[Roofline], name: str, form: str = '.3g') -> str:
  return words(time.map(lambda roofline: getattr(roofline, name)), form)


def _bound(time: Ends[Roofline]) -> list[str]:
  return list(dict.fromkeys((time.fast.bound, time.slow.bound)))


def table(rows: Sequence[Sequence[str]], names: int = 1) -> list[str]:
  """Returns lines of a table below a heading, see `lab.report.tables.aligned`."""
  return [f'  {line}' for line in aligned(rows, names)]


def plan_as_json(plan: Plan) -> JSON:
  """Returns a plan as one object of plain JSON values."""
  work = plan.work
  chosen = plan.chosen
  time = plan.chosen.time
  stage = plan.stage()
  return {
    **_about(work, plan.topology),
    'notes': list(plan.notes),
    'mesh': dict(chosen.sizes),
    'torus': {axis: network.layout for axis, network in chosen.axes.items()},
    'rows': chosen.rows,
    'remat': chosen.remat,
    'exchange': chosen.exchange,
    'flops': {name: 3 * value for name, value in dataclasses.asdict(work.flops).items()},
    'gib_per_chip': {kind: value / GIB for kind, value in chosen.bytes.items()},
    'peak_gib_per_chip': plan.peak_gib,
    'compiler_gib_per_chip': dict(plan.measured),
    'capacity_gib': plan.topology.chip.memory / GIB,
    'free': plan.free,
    'fits': plan.fits,
    'collectives': [collective_as_json(collective) for collective in chosen.collectives],
    'assumed': _assumed(plan),
    'ideal_seconds': time.fast.ideal,
    'compute_seconds': {
      name: bounds_of(time, name) for name in ('linear', 'attention', 'elementwise', 'optimizer')
    },
    'communication_seconds': {
      'waited_for': bounds_of(time, 'waiting'),
      'all': time.fast.communication,
    },
    'step_seconds': bounds_of(time, 'step'),
    'roofline_mfu': bounds_of(time, 'utilisation'),
    'bound': _bound(time),
    'samples_per_second': bounds(chosen.rate),
    'stage': {'name': stage[0], 'days': bounds(stage[1])} if stage else None,
    'configured_remat': work.remat,
    'recommended_remat': recommended_remat(plan),
  }


def search_as_json(
  work: Workload, topology: Topology, candidates: Sequence[MeshCandidate]
) -> dict[str, Any]:
  """Returns a search as one object of plain JSON values."""
  assumed = describe_assumptions(work, topology.chip.name, (), backward=True)
  rows = [_candidate(candidate) for candidate in candidates]
  results = {'notes': [ESTIMATED], 'assumed': assumed, 'candidates': rows}
  return _about(work, topology) | results


def _about(work: Workload, topology: Topology) -> JSON:
  return {
    'topology': topology.name,
    'devices': topology.devices,
    'bucket': work.bucket,
    'tokens': work.tokens,
    'parameters': work.count,
    'flops_per_sample': work.flops.training,
  }


def collective_as_json(collective: Collective) -> dict[str, Any]:
  """Returns a collective as plain JSON values."""
  fields = {key: value for key, value in vars(collective).items() if key != 'scheduled'}
  return fields | {
    'by_schedule': collective.scheduled is not None,
    'waits': bounds(collective.waits),
    'exposed_bytes': bounds(collective.exposed),
  }


def bounds_of(time: Ends[Roofline], name: str) -> dict[str, float]:
  """Returns one number of the rooflines at both ends, the smaller one first."""
  return bounds(time.map(lambda roofline: getattr(roofline, name)))


def _candidate(candidate: MeshCandidate) -> dict[str, Any]:
  return {
    'mesh': dict(candidate.sizes),
    'rows': candidate.rows,
    'remat': candidate.remat,
    'exchange': candidate.exchange,
    'peak_gib_per_chip': candidate.peak / GIB,
    'step_seconds': bounds_of(candidate.time, 'step'),
    'samples_per_second': bounds(candidate.rate),
    'roofline_mfu': bounds_of(candidate.time, 'utilisation'),
  }
