"""Time grids for sampling (Movie Gen §3.4.2), checked by tests/flow/test_schedules.py.

A schedule of S steps is a float64 numpy array of S + 1 times from 0 (noise) to 1 (data).
"""

from collections.abc import Callable

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Positive, annotations, unpack


def linear(steps: int) -> np.ndarray:
  """Returns `t_i = i / S`."""
  return np.arange(steps + 1) / steps


def linear_quadratic(
  steps: int, *, emulated: Positive = 1000, linear_steps: Count | None = None
) -> np.ndarray:
  """Returns the first steps of a long linear schedule, then quadratically growing ones.

  With S steps, N emulated ones and L linear ones (half of S unless given),
  `t_i = i / N + (1 - S / N) (max(0, i - L) / (S - L))^2`.
  The first L steps are those of the N-step linear schedule. The rest leave the joint with the same
  value and slope and end at 1 (Movie Gen §3.4.2; S = 50). Accounts of the paper disagree on
  N: 1000 explains its figure and speed-up, 250 is quoted as well. In terms of the threshold that
  other implementations take, the noise removed at the joint, `N = L / threshold`.
  Raises ConfigError if S > N, or L is not in [0, S).
  """
  if linear_steps is None:
    linear_steps = steps // 2
  if emulated < steps:
    raise ConfigError(
      f'{steps} steps cannot emulate the {emulated} of a linear schedule; '
      f'take emulated >= {steps} or fewer steps'
    )
  if not 0 <= linear_steps < steps:
    raise ConfigError(f'linear_steps is {linear_steps}; of {steps} steps, 0 to {steps - 1} can be')
  index = np.arange(steps + 1)
  quadratic = np.maximum(index - linear_steps, 0) / (steps - linear_steps)
  times = index / emulated + (1 - steps / emulated) * quadratic**2
  times[-1] = 1.0  # not 1 - 1e-16
  return times


def shift(times: np.ndarray, factor: float) -> np.ndarray:
  """Returns times moved towards the noise, for factor s > 1: `t' = t / (t + s (1 - t))`.

  This is `u' = s u / (1 + (s - 1) u)` of the noise level u = 1 - t, as Stable Diffusion 3 and
  HunyuanVideo write it. s = 1 changes nothing and 1/s undoes s. Not in Movie Gen.
  Raises ConfigError if s is not positive, or infinite.
  """
  if not isinstance(factor, int | float) or not 0 < factor < np.inf:
    raise ConfigError(f'shift_factor = {factor}; expected more than 0, and 1 changes nothing')
  return times / (times + factor * (1 - times))


def wan(steps: int) -> np.ndarray:
  """Returns 1 - s for noise levels s that fall evenly from 0.999 to 0: Wan's own sampler."""
  return 1 - np.linspace(0.999, 0, steps + 1)


def diffusers(steps: int) -> np.ndarray:
  """Returns 1 - s for noise levels s that fall evenly from 1 towards 0.001, and then 0.

  So diffusers samples Wan; from `wan`, levels differ by up to 0.007.
  """
  return 1 - np.append(np.linspace(1, 0.001, steps + 1)[:-1], 0)


SCHEDULES: dict[str, Callable[..., np.ndarray]] = {
  'linear': linear,
  'linear_quadratic': linear_quadratic,
  'wan': wan,
  'diffusers': diffusers,
}


def changed_schedule(old: Fields, changes: Fields) -> JSON:
  """Returns the fields of a schedule, `name` and options, with changes.

  Options of `old` that the schedule does not accept are dropped.
  """
  fields = {**old, **changes}
  accepted = {'name', 'shift_factor', *annotations(SCHEDULES.get(fields['name'], linear)), *changes}
  return {key: value for key, value in fields.items() if key in accepted}


def make_time_grid(
  name: str, steps: int, *, shift_factor: float = 1.0, **options: object
) -> np.ndarray:
  """Makes the schedule that a configuration names: (steps + 1,) times, shifted by a factor.

  Raises ConfigError if no schedule has this name, it does not take one of the options, or a value
  is out of range.
  """
  if name not in SCHEDULES:
    raise ConfigError(f'unknown schedule {name!r}; choose one of {", ".join(SCHEDULES)}')
  if steps < 1:
    raise ConfigError(f'a schedule of {steps} steps goes nowhere; take 1 or more')
  times = unpack(SCHEDULES[name], options, 'sample.schedule', steps=steps)
  return shift(times, shift_factor)
