"""A rehearsal as text for people, as JSON values, and as a picture."""

import dataclasses
import io
import math
import os
import pathlib
from typing import Any

from mgjax.core.configuration.keys import JSON
from mgjax.core.files import write_bytes, write_json
from mgjax.core.plug_ins import load_package
from mgjax.lab.planning.efficiency import Ends, words
from mgjax.lab.planning.plan import Plan
from mgjax.lab.planning.rehearsal.assumptions import DAY, HOUR, MINUTE, Assumptions
from mgjax.lab.planning.rehearsal.simulation import AGAIN, PROGRESS
from mgjax.lab.planning.rehearsal.study import Estimate, Rehearsal
from mgjax.lab.planning.search import mesh_flag

NO_REPLICAS = 'none: no replica can leave; on GPUs those of a mesh with data > 1 can'


def describe(found: Rehearsal, plan: Plan, price: float) -> str:
  """Returns the table for people; `price` is dollars a chip-hour."""
  job, assumed, best = found.job, found.assumed, found.interval
  times = words(plan.chosen.time.map(lambda each: each.step))
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
    ('runs', f'{found.runs} of {found.days:g} days, seed {found.seed}; means with 95% intervals'),
    ('', ''),
    (
      'goodput',
      f'{_share(found.goodput)}; single runs {found.goodput.least:.1%} to {found.goodput.most:.1%}',
    ),
  ]
  rows += [('', f'{name:28} {_share(each, 2)}') for name, each in _losses(found)]
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
  other = f'; planned with {found.spares}' if found.spares != found.recommended else ''
  rows.append(('spares', f'a kept step is cheapest with {_machines(found.recommended)}{other}'))
  shown = sorted({0, 1, found.recommended // 2, found.recommended, found.recommended + 1})
  counts = (n for n in shown if n < len(found.by_spares))
  rows += [('', f'{count:3} {_share(found.by_spares[count])}') for count in counts]
  if found.elastic is None or found.elastic_without_spares is None:
    rows.append(('elastic', NO_REPLICAS))
  else:
    rows.append(
      (
        'elastic',
        f'{job.separate} replicas of the state: {_gain(found.elastic)} of all '
        f'time, {_money(found.elastic.mean * found.chip_hours, price)}; without spares '
        f'{_gain(found.elastic_without_spares)}',
      )
    )
  lost = _money((1 - found.goodput.mean) * found.chip_hours, price)
  rows.append(
    (
      'cost',
      f'{_money(found.chip_hours, price)} for {found.days:g} days with '
      f'{_machines(found.spares)} to spare, of which {lost} for no step',
    )
  )
  if stage := plan.stage():
    days = Ends(stage[1].slow / found.goodput.mean, stage[1].fast / found.goodput.mean)
    hours = days.map(lambda each: each * found.chip_hours / found.days)
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
    ('', f'{name:12} {_gain(half):24} {_gain(twice)}') for name, (half, twice) in _ordered(found)
  ]
  rows.append(('assumed', ''))
  texts = Assumptions.texts().items()
  rows += [('', f'{name} = {getattr(assumed, name):g}: {text}') for name, text in texts]
  return '\n'.join(f'{name:12}{text}'.rstrip() for name, text in rows)


def as_json(found: Rehearsal, plan: Plan, price: float) -> JSON:
  """Returns all numbers as plain JSON values; what is infinite is null."""
  lost = (1 - found.goodput.mean) * found.chip_hours
  numbers = dataclasses.asdict(found) | {
    'topology': plan.topology.name,
    'mesh': dict(plan.chosen.sizes),
    'seconds_between_failures': found.job.between_failures(found.assumed),
    'chip_hours': found.chip_hours,
    'chip_hours_lost': lost,
    'dollars': found.chip_hours * price,
    'dollars_lost': lost * price,
  }
  return _finite(numbers)


def write(
  found: Rehearsal, plan: Plan, price: float, folder: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Writes rehearsal.png and rehearsal.json into a folder, and returns their paths.

  Raises ConfigError where matplotlib is not installed.
  """
  folder = pathlib.Path(folder)
  write_json(folder / 'rehearsal.json', as_json(found, plan, price))
  write_bytes(folder / 'rehearsal.png', _draw(found, plan))
  return [folder / 'rehearsal.png', folder / 'rehearsal.json']


def check_pictures() -> None:
  """Raises ConfigError where there is nothing to draw with: before the work, not after it."""
  load_package('matplotlib', 'a picture, which --out= leaves away, needs matplotlib', 'plots')


def _draw(found: Rehearsal, plan: Plan) -> bytes:
  """Where time goes; goodput by interval and by spares; what changes it."""
  from matplotlib.figure import Figure  # half a second, which --help need not wait for
  from matplotlib.ticker import LogLocator, NullFormatter

  figure = Figure((10.5, 7.2), dpi=100, layout='constrained')
  (losses, intervals), (spares, changes) = figure.subplots(2, 2)
  figure.suptitle(f'{plan.topology.name}, {found.days:g} days: goodput {_share(found.goodput)}')
  _bars(losses, _losses(found)[::-1], 'C0')
  losses.set(title='where the rest of the time goes', xlabel='% of all time')
  intervals.set(title='checkpoints', xlabel='minutes of work between two', ylabel='goodput, %')
  best = found.interval
  if best.tried:
    _curve(intervals, [tau / MINUTE for tau, _ in best.tried], [each for _, each in best.tried])
    marks = enumerate({'best': best.best, 'Young': best.young, 'Daly': best.daly}.items(), 1)
    for n, (name, tau) in marks:
      intervals.axvline(tau / MINUTE, color=f'C{n}', linestyle=(0, (n, n)), label=name)
    intervals.set_xscale('log')
    intervals.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    intervals.xaxis.set_major_formatter('{x:g}')
    intervals.xaxis.set_minor_formatter(NullFormatter())
    intervals.legend()
  _curve(spares, list(range(len(found.by_spares))), list(found.by_spares))
  spares.axvline(found.recommended, color='C1', label='cheapest kept step')
  spares.legend()
  spares.set(title='spare machines', xlabel='machines', ylabel='goodput, %')
  for side, colour, label in ((0, 'C2', 'half'), (1, 'C3', 'twice')):
    _bars(changes, [(name, both[side]) for name, both in _ordered(found)[::-1]], colour, label)
  changes.axvline(0, color='black', linewidth=0.8)
  changes.legend()
  changes.set(title='an assumption halved or doubled', xlabel='change of goodput, points')
  data = io.BytesIO()
  figure.savefig(data, format='png', metadata={'Software': None})
  return data.getvalue()


def _bars(axis: Any, named: list[tuple[str, Estimate]], colour: str, label: str = '') -> None:
  names, found = zip(*named, strict=True)
  half = [100 * (each.high - each.mean) for each in found]
  axis.barh(names, [100 * e.mean for e in found], xerr=half, color=colour, alpha=0.75, label=label)


def _curve(axis: Any, x: list[float], found: list[Estimate]) -> None:
  means, lows, highs = zip(*((100 * e.mean, 100 * e.low, 100 * e.high) for e in found), strict=True)
  axis.plot(x, means, 'o-', color='C0', markersize=3)
  axis.fill_between(x, lows, highs, alpha=0.25)
  axis.grid(alpha=0.3)


def _losses(found: Rehearsal) -> list[tuple[str, Estimate]]:
  """Returns where the rest of the time goes, the largest first."""
  lost = [(name, e) for name, e in found.causes.items() if name != PROGRESS and e.mean > 0]
  return sorted(lost, key=lambda pair: -pair[1].mean) or [('nothing', found.causes[AGAIN])]


def _ordered(found: Rehearsal) -> list[tuple[str, tuple[Estimate, Estimate]]]:
  """Returns what was changed, what matters most first."""
  return sorted(found.changes.items(), key=lambda pair: -max(abs(e.mean) for e in pair[1]))


def _finite(value: object) -> object:
  if isinstance(value, dict):
    return {key: _finite(each) for key, each in value.items()}
  if isinstance(value, tuple | list):
    return [_finite(each) for each in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _share(each: Estimate, digits: int = 1) -> str:
  return f'{each.mean:.{digits}%} ({each.low:.{digits}%} to {each.high:.{digits}%})'


def _gain(each: Estimate) -> str:
  return f'{100 * each.mean:+.2f} ({100 * each.low:+.2f} to {100 * each.high:+.2f}) points'


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
