"""What a rehearsal assumes of machines and of a job, and the intervals that formulas recommend."""

import dataclasses
import math
import typing
from typing import Annotated

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Fraction, Magnitude, Range
from mgjax.lab.planning.plan import Plan
from mgjax.lab.planning.roofline import HOST
from mgjax.parallel.chips import GIB

MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0
# Chips that are replaced together: GPUs of a host; of a torus in three dimensions a cube of 4 x 4 x
# 4, which optical switches put in the place of another (TPU v4, in Gemini's report, arXiv
# 2312.11805; assumed of v5p and TPU7x); of a torus in two all of it.
HOST_OF_GPUS, CUBE = 8, 64


@dataclasses.dataclass(frozen=True)
class Assumptions(Checked):
  """How often what happens, and how long it takes.

  Published rates of failures in 1,000 chip-days:

    0.474        Llama 3, arXiv 2407.21783: 419 on 16,384 H100 in 54 days, 78% by hardware
    0.81, 0.29   two clusters of A100, arXiv 2410.21680: 6.50 and 2.34 in 1,000 node-days
    1.8          OPT-175B, its logbook: 105 restarts of 992 A100 in two months

  The first run also had 47 planned interruptions and more than 90% of effective time. That leaves
  at most 16.7 minutes of all losses for each. Its storage had 2 TB/s. Of TPUs no rate was found.
  Defaults without a source say so. `restart` and `pause` are such that Llama 3's run comes to its
  share of effective time (`test_large_runs_lose_what_was_published_of_them`).
  """

  failures: Annotated[Magnitude, 'interruptions in 1,000 chip-days; of Llama 3'] = 0.474
  shape: Annotated[
    Annotated[float, Range(least=0.2, most=10)],
    'Weibull shape of the times between them; 1 is memoryless',
  ] = 1
  hardware: Annotated[Fraction, 'share that takes a machine away; of Llama 3'] = 0.78
  planned: Annotated[Magnitude, 'planned stops a day; of Llama 3'] = 0.87
  detect: Annotated[Magnitude, 'minutes until a failure is noticed; not in public sources'] = 3
  restart: Annotated[
    Magnitude, 'minutes from there to the first step, reading apart; not in public sources'
  ] = 8
  repair: Annotated[Magnitude, 'hours, mean, of a machine; not in public sources'] = 24
  storage: Annotated[
    Annotated[float, Range(above=0)], 'GB/s a chip, read and written; of Llama 3'
  ] = 0.122
  blocking: Annotated[Fraction, '1 where training waits for a checkpoint to be written'] = 0
  pause: Annotated[
    Magnitude, 'seconds that a checkpoint holds up steps beside that; not in public sources'
  ] = 2
  slow: Annotated[Magnitude, 'slow machines in 1,000 chip-days; not in public sources'] = 0.05
  slowdown: Annotated[
    Annotated[float, Range(least=1)], 'of all steps by one of them; not in public sources'
  ] = 1.1
  find: Annotated[Magnitude, 'hours, mean, until it is found; not in public sources'] = 2
  stalls: Annotated[Magnitude, 'a day, of data; not in public sources'] = 0.5
  stall: Annotated[Magnitude, 'minutes, mean, of one; not in public sources'] = 5
  regroup: Annotated[
    Magnitude, 'minutes in which replicas leave or join elastically; not in public sources'
  ] = 1

  @classmethod
  def texts(cls) -> dict[str, str]:
    """Returns what each field is, in words with its unit and source."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hint.__metadata__[-1] for name, hint in hints.items()}

  def times(self, **factors: float) -> 'Assumptions':
    """Returns others, some of these multiplied."""
    return dataclasses.replace(
      self, **{name: getattr(self, name) * by for name, by in factors.items()}
    )


@dataclasses.dataclass(frozen=True)
class Job:
  """What fails, in numbers.

  Attributes:
    chips: of the job, spares apart.
    machine: chips that are replaced together.
    replicas: copies of the state, those of the mesh axis data; each writes its part of it.
    separate: replicas of which one can leave: 1 on a torus, whose wires they share.
    step: seconds.
    piece: bytes of the state on one chip: parameters, moments and their average.
  """

  chips: int
  machine: int
  replicas: int
  separate: int
  step: float
  piece: float

  @classmethod
  def of(cls, plan: Plan) -> 'Job':
    """Returns the job of a plan, with the middle of its seconds; its replicas are those of data.

    Raises ConfigError for a plan that does not fit.
    """
    chosen = plan.chosen
    chip = plan.topology.chip
    if not plan.fits:
      raise ConfigError(
        f'a step takes {plan.peak_gib:.0f} of {chip.memory / GIB:.0f} GiB on {plan.topology.name}, '
        'without a tenth left; give more chips, another --mesh or fewer --rows'
      )
    step = (chosen.time.slow.step + chosen.time.fast.step) / 2
    piece = sum(chosen.bytes[kind] for kind in ('parameters', 'moments', 'average'))
    chips = plan.topology.devices
    replicas = chosen.sizes['data']
    machine = {0: HOST_OF_GPUS, 3: CUBE * chip.cores}.get(chip.rank, chips)
    return cls(chips, min(machine, chips), replicas, 1 if chip.rank else replicas, step, piece)

  def between_failures(self, assumed: Assumptions) -> float:
    """Mean seconds between failures of any chip, M; infinite without any."""
    a_day = assumed.failures * self.chips / 1000
    return DAY / a_day if a_day else math.inf

  def write(self, assumed: Assumptions) -> float:
    """Seconds in which all chips write the state, each replica a part of it."""
    return self.piece / self.replicas / (assumed.storage * 1e9)

  def read(self, assumed: Assumptions) -> float:
    """Seconds in which every chip reads its piece."""
    return self.piece / (assumed.storage * 1e9)

  def pause(self, assumed: Assumptions) -> float:
    """Seconds that steps wait for a checkpoint, C: for its writing too, or its copy to the host."""
    copy = self.piece / self.replicas / HOST
    return assumed.pause + (self.write(assumed) if assumed.blocking >= 0.5 else copy)


def young(pause: float, between: float) -> float:
  """Returns Young's interval, sqrt(2 C M) (Comm. ACM 17(9), 1974).

  Seconds of work between two checkpoints that each take C, for failures every M on average.
  """
  return math.sqrt(2 * pause * between)


def daly(pause: float, between: float) -> float:
  """Returns Daly's interval (Future Generation Computer Systems 22(3), 2006).

  sqrt(2 C M) (1 + sqrt(C / 2M) / 3 + C / 2M / 9) - C for C < 2M, else M.
  """
  if pause >= 2 * between:
    return between
  ratio = pause / (2 * between)
  return young(pause, between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - pause
