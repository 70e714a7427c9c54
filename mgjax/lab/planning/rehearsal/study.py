"""What rehearsals of a job answer: goodput, interval of checkpoints, spares, elasticity, cost."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from mgjax.lab.planning.rehearsal.assumptions import DAY, HOUR, Assumptions, Job, daly, young
from mgjax.lab.planning.rehearsal.simulation import CAUSES, Scenario, simulate

AROUND = np.geomspace(0.25, 4, 13)  # intervals tried, in Daly's
CHANGED = (
  'failures',
  'detect',
  'restart',
  'repair',
  'storage',
  'slow',
  'find',
  'stalls',
  'planned',
)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean over runs with its 95% interval, and the range that holds 95% of the runs."""

  mean: float
  low: float
  high: float
  least: float
  most: float

  @classmethod
  def of(cls, values: np.ndarray) -> 'Estimate':
    """Estimates by Student's t."""
    mean = float(values.mean())
    spread = float(stats.sem(values)) if len(values) > 1 else math.inf
    half = float(stats.t.ppf(0.975, max(len(values) - 1, 1))) * spread if spread else 0.0
    least, most = (float(quantile) for quantile in np.quantile(values, (0.025, 0.975)))
    return cls(mean, mean - half, mean + half, least, most)


@dataclasses.dataclass(frozen=True)
class CheckpointInterval:
  """Seconds of work between checkpoints: the best by simulation, with 95%, and by formula.

  `tried` are intervals and the goodput of each; `least` is the shortest that a step and the writing
  of the one before allow. Without failures there is no best one.
  """

  best: float
  low: float
  high: float
  young: float
  daly: float
  least: float
  tried: tuple[tuple[float, Estimate], ...]


@dataclasses.dataclass(frozen=True)
class Rehearsal:
  """All answers about a job. Differences are paired: both runs meet the same failures.

  Attributes:
    causes: share of all time by cause.
    by_spares: goodput with 0, 1, 2 ... spare machines.
    recommended: spares that make a kept step cheapest.
    elastic, elastic_without_spares: what elastic data parallelism adds to goodput; None where no
      replica can leave.
    changes: assumption -> what halving and doubling it add to goodput.
  """

  job: Job
  assumed: Assumptions
  days: float
  runs: int
  seed: int
  interval: CheckpointInterval
  spares: int
  recommended: int
  goodput: Estimate
  causes: dict[str, Estimate]
  by_spares: tuple[Estimate, ...]
  elastic: Estimate | None
  elastic_without_spares: Estimate | None
  changes: dict[str, tuple[Estimate, Estimate]]

  @property
  def chip_hours(self) -> float:
    """Of all chips, spares included."""
    return (self.job.chips + self.spares * self.job.machine) * self.days * DAY / HOUR


def rehearse(
  job: Job,
  assumed: Assumptions,
  days: float,
  *,
  runs: int,
  seed: int = 0,
  spares: int | None = None,
  tell: Callable[[int], None] = lambda done: None,
) -> Rehearsal:
  """Simulates the job under many scenarios, each `runs` times.

  Args:
    days: of each run.
    spares: standby machines; None takes the number that makes a kept step cheapest.
    tell: is called with how many of `count_scenarios` are done.
  """
  done = 0

  def goodputs(spares: int, interval: float, elastic=False, changed=assumed) -> np.ndarray:
    nonlocal done
    done += 1
    shares = simulate(Scenario(job, changed, days, interval, spares, elastic), runs, seed)
    tell(done)
    return shares

  ample = _ample(job, assumed)
  counts = range(max(ample, spares or 0) + 1)
  best = best_interval(job, assumed, lambda tau: goodputs(ample, tau)[:, 0], seed)
  tau = min(best.best, days * DAY)
  by_spares = [goodputs(count, tau)[:, 0] for count in counts]
  prices = [(job.chips + n * job.machine) / max(by_spares[n].mean(), 1e-9) for n in counts]
  recommended = int(np.argmin(prices))
  chosen_spares = recommended if spares is None else spares
  base = goodputs(chosen_spares, tau)
  changes = {}
  for name in CHANGED:
    both = (goodputs(chosen_spares, tau, changed=assumed.times(**{name: by})) for by in (0.5, 2.0))
    changes[name] = tuple(Estimate.of(shares[:, 0] - base[:, 0]) for shares in both)
  elastic = without = None
  if job.separate > 1:
    elastic = Estimate.of(goodputs(chosen_spares, tau, elastic=True)[:, 0] - base[:, 0])
    without = Estimate.of(goodputs(0, tau, elastic=True)[:, 0] - by_spares[0])
  return Rehearsal(
    job,
    assumed,
    days,
    runs,
    seed,
    best,
    chosen_spares,
    recommended,
    Estimate.of(base[:, 0]),
    {cause: Estimate.of(base[:, column]) for column, cause in enumerate(CAUSES)},
    tuple(map(Estimate.of, by_spares)),
    elastic,
    without,
    changes,
  )


def count_scenarios(job: Job, assumed: Assumptions, spares: int | None) -> int:
  """Returns how many scenarios `rehearse` simulates."""
  counts = max(_ample(job, assumed), spares or 0) + 1
  changes = 1 + 2 * len(CHANGED) + 2 * (job.separate > 1)
  return len(_intervals(job, assumed)) + counts + changes


def _ample(job: Job, assumed: Assumptions) -> int:
  """Spares that nearly never run out: machines in repair are Poisson, of which this is 4 sigma."""
  a_day = job.chips / 1000 * (assumed.failures * assumed.hardware + assumed.slow)
  away = a_day * assumed.repair * HOUR / DAY
  return min(math.ceil(away + 4 * math.sqrt(away)) + 1, job.chips // job.machine)


def _least(job: Job, assumed: Assumptions) -> float:
  """A step, or the writing of the checkpoint before."""
  return max(job.step, 0.0 if assumed.blocking >= 0.5 else job.write(assumed))


def _intervals(job: Job, assumed: Assumptions) -> np.ndarray:
  """Returns the intervals to try: around Daly's, as far as they are possible."""
  between = job.between_failures(assumed)
  least = _least(job, assumed)
  if math.isinf(between):
    return np.empty(0)
  tried = np.unique(np.maximum(daly(job.pause(assumed), between) * AROUND, least))
  return tried if len(tried) > 3 else least * AROUND[AROUND >= 1]


def best_interval(
  job: Job, assumed: Assumptions, goodput: Callable[[float], np.ndarray], seed: int = 0
) -> CheckpointInterval:
  """Finds the interval of most goodput: the top of a parabola in its logarithm.

  Noise of single intervals would move the best one of them; the parabola goes through all that are
  near. Its interval is of 95%, from runs drawn again. `goodput` tells that of each run by seconds.
  """
  tried = _intervals(job, assumed)
  between, pause = job.between_failures(assumed), job.pause(assumed)
  formulas = (young(pause, between), daly(pause, between))
  least = _least(job, assumed)
  if not len(tried):
    return CheckpointInterval(math.inf, math.inf, math.inf, *formulas, least, ())
  curves = np.stack([goodput(tau) for tau in tried], axis=1)
  best = _top(tried, curves.mean(axis=0))
  stream = np.random.default_rng(seed)
  again = [
    _top(tried, curves[stream.integers(0, len(curves), len(curves))].mean(axis=0))
    for _ in range(400)
  ]
  low, high = np.quantile(again, (0.025, 0.975))
  pairs = tuple((float(tau), Estimate.of(curves[:, n])) for n, tau in enumerate(tried))
  return CheckpointInterval(best, float(low), float(high), *formulas, least, pairs)


def _top(tried: np.ndarray, means: np.ndarray) -> float:
  """Returns where a parabola through goodput over log(interval) is highest, within those tried."""
  x = np.log(tried)
  nearby = np.abs(x - x[np.argmax(means)]) < math.log(3)
  if nearby.sum() < 4:
    nearby = np.ones_like(nearby)
  bend, slope, _ = np.polyfit(x[nearby], means[nearby], 2)
  if bend >= 0:
    return float(tried[int(np.argmax(means))])
  return float(np.exp(np.clip(-slope / (2 * bend), x[0], x[-1])))
