"""A rehearsal as text for people, as JSON values, and as a picture."""

import dataclasses
import io
import math
import os
import pathlib
from typing import Any

from mgjax.core.files import write_bytes, write_json
from mgjax.core.plug_ins import load_package
from mgjax.lab.planning.efficiency import Ends, words
from mgjax.lab.planning.plan import Plan
from mgjax.lab.planning.rehearsal.assumptions import DAY, HOUR, MINUTE, Assumptions
from mgjax.lab.planning.rehearsal.simulation import AGAIN, PROGRESS
from mgjax.lab.planning.rehearsal.study import Estimate, Rehearsal
from mgjax.lab.planning.search import mesh_flag

NO_REPLICAS = 'none: no replica can leave; on GPUs those of a mesh with data > 1 can'


def describe(rehearsal: Rehearsal, plan: Plan, price: float) -> str:
  """Returns the table for people; `price` is dollars a chip-hour."""
  job = rehearsal.job
  assumed = rehearsal.assumed
  best = rehearsal.interval
  goodput = rehearsal.goodput
  times = words(plan.chosen.time.map(lambda roofline: roofline.step))
  rows: list[tuple[str, str]] = [
    (
      'job',
      f'{plan.topology.name}, {job.chips} chips in machines of {job.machine}, mesh '
      f'{mesh_flag(plan.chosen.sizes)}, {plan.chosen.rows} samples a step of {times} s by formula',
    ),
    (
      'state',
      f'{job.piece * job.chips / job.replicas / 1e9:.0f} GB, written in '
      f'{job.write(assumed):.3g} s, read in {job.read(assumed):.3g} s; steps wait '
      f'{job.pause(assumed):.2g} s for a checkpoint',
    ),
    ('failures', f'one every {_span(job.between_failures(assumed))}'),
    (
      'runs',
      f'{rehearsal.runs} of {rehearsal.days:g} days, seed {rehearsal.seed}; means with 95% '
      'intervals',
    ),
    ('', ''),
    (
      'goodput',
      f'{_share(goodput)}; single runs {goodput.least:.1%} to {goodput.most:.1%}',
    ),
  ]
  rows += [('', f'{name:28} {_share(estimate, 2)}') for name, estimate in _losses(rehearsal)]
  rows.append(('', ''))
  if math.isinf(best.best):
    rows.append(('checkpoints', 'no failures: none is needed'))
  else:
    rows.append(
      (
        'checkpoints',
        f'best every {_span(best.best)} ({_span(best.low)} to '
        f'{_span(best.high)}), {max(best.best / job.step, 1):.0f} steps; Young '
        f'{_span(best.young)}, Daly {_span(best.daly)}, possible from '
        f'{_span(best.least)}',
      )
    )
  planned = (
    f'; planned with {rehearsal.spares}' if rehearsal.spares != rehearsal.recommended else ''
  )
  rows.append(
    ('spares', f'a kept step is cheapest with {_machines(rehearsal.recommended)}{planned}')
  )
  spare_counts = sorted(
    {0, 1, rehearsal.recommended // 2, rehearsal.recommended, rehearsal.recommended + 1}
  )
  counts = (n for n in spare_counts if n < len(rehearsal.by_spares))
  rows += [('', f'{count:3} {_share(rehearsal.by_spares[count])}') for count in counts]
  if rehearsal.elastic is None or rehearsal.elastic_without_spares is None:
    rows.append(('elastic', NO_REPLICAS))
  else:
    rows.append(
      (
        'elastic',
        f'{job.separate} replicas of the state: {_gain(rehearsal.elastic)} of all '
        f'time, {_money(rehearsal.elastic.mean * rehearsal.chip_hours, price)}; without spares '
        f'{_gain(rehearsal.elastic_without_spares)}',
      )
    )
  lost = _money((1 - goodput.mean) * rehearsal.chip_hours, price)
  rows.append(
    (
      'cost',
      f'{_money(rehearsal.chip_hours, price)} for {rehearsal.days:g} days with '
      f'{_machines(rehearsal.spares)} to spare, of which {lost} for no step',
    )
  )
  if stage := plan.stage():
    days = Ends(stage[1].slow / goodput.mean, stage[1].fast / goodput.mean)
    hours = days.map(lambda length: length * rehearsal.chip_hours / rehearsal.days)
    rows.append(
      (
        'stage',
        f'{stage[0]} in {words(days)} days, {words(stage[1])} without failures, '
        f'were all samples as long; {hours.fast * price / 1e6:.2g} to '
        f'{hours.slow * price / 1e6:.2g} million dollars',
      )
    )
  rows.append(('sensitivity', 'goodput with half and with twice the'))
  rows += [
    ('', f'{name:12} {_gain(half):24} {_gain(twice)}')
    for name, (half, twice) in _ordered(rehearsal)
  ]
  rows.append(('assumed', ''))
  texts = Assumptions.texts().items()
  rows += [('', f'{name} = {getattr(assumed, name):g}: {text}') for name, text in texts]
  return '\n'.join(f'{name:12}{text}'.rstrip() for name, text in rows)


def as_json(rehearsal: Rehearsal, plan: Plan, price: float) -> dict[str, Any]:
  """Returns all numbers as plain JSON values; what is infinite is null."""
  lost = (1 - rehearsal.goodput.mean) * rehearsal.chip_hours
  numbers = dataclasses.asdict(rehearsal) | {
    'topology': plan.topology.name,
    'mesh': dict(plan.chosen.sizes),
    'seconds_between_failures': rehearsal.job.between_failures(rehearsal.assumed),
    'chip_hours': rehearsal.chip_hours,
    'chip_hours_lost': lost,
    'dollars': rehearsal.chip_hours * price,
    'dollars_lost': lost * price,
  }
  return _finite(numbers)


def write(
  rehearsal: Rehearsal, plan: Plan, price: float, folder: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Writes rehearsal.png and rehearsal.json into a folder, and returns their paths.

  Raises ConfigError where matplotlib is not installed.
  """
  folder = pathlib.Path(folder)
  write_json(folder / 'rehearsal.json', as_json(rehearsal, plan, price))
  write_bytes(folder / 'rehearsal.png', _draw(rehearsal, plan))
  return [folder / 'rehearsal.png', folder / 'rehearsal.json']


def check_pictures() -> None:
  """Raises ConfigError where there is nothing to draw with: before the work, not after it."""
  load_package('matplotlib', 'a picture, which --out= leaves away, needs matplotlib', 'plots')


def _draw(rehearsal: Rehearsal, plan: Plan) -> bytes:
  """Where time goes; goodput by interval and by spares; what changes it."""
  from matplotlib.figure import Figure  # half a second, which --help need not wait for
  from matplotlib.ticker import LogLocator, NullFormatter

  figure = Figure((10.5, 7.2), dpi=100, layout='constrained')
  (losses, intervals), (spares, changes) = figure.subplots(2, 2)
  figure.suptitle(
    f'{plan.topology.name}, {rehearsal.days:g} days: goodput {_share(rehearsal.goodput)}'
  )
  _bars(losses, _losses(rehearsal)[::-1], 'C0')
  losses.set(title='causes of lost time', xlabel='share of wall time, %')
  intervals.set(title='checkpoint interval', xlabel='interval, minutes', ylabel='goodput, %')
  best = rehearsal.interval
  if best.tried:
    _curve(
      intervals, [tau / MINUTE for tau, _ in best.tried], [estimate for _, estimate in best.tried]
    )
    marks = enumerate({'best': best.best, 'Young': best.young, 'Daly': best.daly}.items(), 1)
    for n, (name, tau) in marks:
      intervals.axvline(tau / MINUTE, color=f'C{n}', linestyle=(0, (n, n)), label=name)
    intervals.set_xscale('log')
    intervals.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    intervals.xaxis.set_major_formatter('{x:g}')
    intervals.xaxis.set_minor_formatter(NullFormatter())
    intervals.legend()
  _curve(spares, list(range(len(rehearsal.by_spares))), list(rehearsal.by_spares))
  spares.axvline(rehearsal.recommended, color='C1', label='cheapest kept step')
  spares.legend()
  spares.set(title='spare machines', xlabel='number of spare machines', ylabel='goodput, %')
  for side, colour, label in ((0, 'C2', 'half'), (1, 'C3', 'twice')):
    _bars(changes, [(name, both[side]) for name, both in _ordered(rehearsal)[::-1]], colour, label)
  changes.axvline(0, color='black', linewidth=0.8)
  changes.legend()
  changes.set(title='one assumption halved or doubled')
  changes.set(xlabel='change of goodput, percentage points')
  data = io.BytesIO()
  figure.savefig(data, format='png', metadata={'Software': None})
  return data.getvalue()


def _bars(axis: Any, named: list[tuple[str, Estimate]], colour: str, label: str = '') -> None:
  names, estimates = zip(*named, strict=True)
  half = [100 * (estimate.high - estimate.mean) for estimate in estimates]
  axis.barh(
    names, [100 * e.mean for e in estimates], xerr=half, color=colour, alpha=0.75, label=label
  )


def _curve(axis: Any, x: list[float], estimates: list[Estimate]) -> None:
  means, lows, highs = zip(
    *((100 * e.mean, 100 * e.low, 100 * e.high) for e in estimates), strict=True
  )
  axis.plot(x, means, 'o-', color='C0', markersize=3)
  axis.fill_between(x, lows, highs, alpha=0.25)
  axis.grid(alpha=0.3)


def _losses(rehearsal: Rehearsal) -> list[tuple[str, Estimate]]:
  """Returns the causes of lost time, the largest first."""
  lost = [(name, e) for name, e in rehearsal.causes.items() if name != PROGRESS and e.mean > 0]
  return sorted(lost, key=lambda pair: -pair[1].mean) or [('nothing', rehearsal.causes[AGAIN])]


def _ordered(rehearsal: Rehearsal) -> list[tuple[str, tuple[Estimate, Estimate]]]:
  """Returns the changed assumptions, the one with the largest effect first."""
  return sorted(rehearsal.changes.items(), key=lambda pair: -max(abs(e.mean) for e in pair[1]))


def _finite(value: object) -> object:
  if isinstance(value, dict):
    return {key: _finite(entry) for key, entry in value.items()}
  if isinstance(value, tuple | list):
    return [_finite(entry) for entry in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _share(estimate: Estimate, digits: int = 1) -> str:
  return f'{estimate.mean:.{digits}%} ({estimate.low:.{digits}%} to {estimate.high:.{digits}%})'


def _gain(estimate: Estimate) -> str:
  return (
    f'{100 * estimate.mean:+.2f} ({100 * estimate.low:+.2f} to {100 * estimate.high:+.2f}) points'
  )


def _money(chip_hours: float, price: float) -> str:
  return f'{chip_hours:,.0f} chip-hours (${chip_hours * price:,.0f})'


def _machines(count: int) -> str:
  return f'{count} machine{"s" * (count != 1)}'


def _span(seconds: float) -> str:
  """Returns '2.5 hours' in the largest unit that is at least 1."""
  for unit, name in ((DAY, 'days'), (HOUR, 'hours'), (MINUTE, 'minutes')):
    if seconds >= unit:
      return 'never' if math.isinf(seconds) else f'{seconds / unit:.3g} {name}'
  return f'{seconds:.3g} s'
