"""Sampling in a few steps, trained on the many guided steps of a teacher (after Frans et al. 2024,
"One step diffusion via shortcut models"), checked by
tests/flow/distillation/test_few_steps.py.

A grid of N = 2^K steps is halved K times: 2^k steps end at every (N / 2^k)-th of its points. Beside
the time the model is conditioned on the grid of its step, as the share s = 2^-k. A step from t to
t' is trained to equal two steps of the grid with twice as many, over m between them:

  (t' - t) u(x, t, s) = (m - t) u_1 + (t' - m) u_2,
  u_1 = u(x, t, s / 2), u_2 = u(x + (m - t) u_1, m, s / 2)

The two steps of the finest grid are guided ones of a frozen teacher. So the model learns guidance,
and sampling needs one evaluation a step. No derivative by time is needed. (In the paper the model
is its own teacher. With guidance ours lost what it had learned: a scale of 4 amplifies every error
of the teacher four times, and the next targets contain it.)
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Range, check, unpack
from mgjax.core.typing import Array, Batch, Float, Key, Metrics, Predict, Tree
from mgjax.flow.guidance import Guidance, check_guidance, make_guided
from mgjax.flow.path import FlowMatching
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.solvers import Velocity

STEP_SIZE = 'step_size'  # key of a batch: the share s of each row
_PARTS = 2  # of the rows of a batch: one learns the teacher's steps, one those of the model itself
_PATH = FlowMatching()


@dataclasses.dataclass(frozen=True)
class FewSteps:
  """`config.objective.few_steps`: what is learned in place of the velocity.

  Attributes:
    teacher: work directory of a model with the same backbone and conditions, whose averaged weights
      are taken; `config.start_from` is best the same.
    schedule: of the grid, as in `config.sample`: linear, with or without a shift, as the halves of
      others are no grids of their own.
    steps: N, of the finest grid: a power of two.

  Raises:
    ConfigError: N is no power of two, or half of the grid is another one.
  """

  teacher: str
  guidance: Guidance
  schedule: Fields
  steps: Annotated[int, Range(least=4, most=1024)] = 32

  def __post_init__(self):
    check(self)
    check_guidance(self.guidance)
    if self.steps & (self.steps - 1):
      raise ConfigError(f'steps = {self.steps}; expected a power of two, as in 32')
    half = unpack(make_time_grid, self.schedule, 'schedule', steps=self.steps // 2)
    if not np.allclose(self.times[::2], half, atol=1e-9):
      raise ConfigError(
        f'schedule = {dict(self.schedule)}: every second time of its {self.steps} steps is no time '
        "of half as many; expected {'name': 'linear'}, with a shift_factor or without"
      )

  @property
  def times(self) -> np.ndarray:
    """The times of the finest grid, (N + 1,)."""
    return make_time_grid(steps=self.steps, **self.schedule)

  @property
  def learnt(self) -> tuple[int, ...]:
    """Numbers of steps that the model learns to take."""
    return tuple(2**k for k in range(self.steps.bit_length() - 1))

  def grid(self, steps: int) -> np.ndarray:
    """Returns the times of a grid, (steps + 1,); s of its steps is 1 / steps.

    Raises ConfigError if the model did not learn a grid of `steps` steps.
    """
    check_trained_steps(steps, self.learnt)
    return self.times[:: self.steps // steps]


def check_trained_steps(steps: int, learnt: tuple[int, ...]) -> None:
  """Raises ConfigError if a model did not learn to take this number of steps."""
  if steps not in learnt:
    raise ConfigError(
      f'{steps} steps of a model that learned to take {", ".join(map(str, learnt))}; take one of '
      'these'
    )


def make_few_steps(few: FewSteps, teach: Callable[[Tree], Predict]):
  """Makes `objective(predict, batch, key, teacher) -> (loss, metrics)` of larger steps.

  `loss = E || u(X_t, t, s) - target ||^2`, the target as above and without a gradient, X_t on the
  path between noise and data, t among the times of the row's grid. Every other row learns the
  finest of the grids from the teacher, whose `predict` `teach` makes of its parameters.
  Raises DataError if (from the objective) the batch does not divide by two.
  """
  times = jnp.asarray(few.times, jnp.float32)
  levels = few.steps.bit_length() - 1

  def objective(predict: Predict, batch: Batch, key: Key, teacher: Tree) -> tuple[Array, Metrics]:
    latents = batch['latents'].astype(jnp.float32)
    if len(latents) % _PARTS:
      raise DataError(
        f'a batch of {len(latents)} rows, of which every other one learns from the teacher; take '
        'a batch size that divides by two, on each device'
      )
    noise_key, level_key, index_key = jax.random.split(key, 3)
    guided, own = (_rows(batch, part) for part in range(_PARTS))
    shape = (len(latents) // _PARTS,)
    drawn = jax.random.randint(level_key, shape, 0, levels - 1)
    level = jnp.stack([jnp.full(shape, levels - 1), drawn], axis=1).reshape(-1)
    # The index of the step among 2^level, and the number of finest steps in it.
    width = 2 ** (levels - level)
    luck = jax.random.uniform(index_key, level.shape)
    first_index = width * jnp.floor(luck * 2.0**level).astype(jnp.int32)
    start = times[first_index]
    middle = times[first_index + width // 2]
    end = times[first_index + width]
    x, _ = _PATH.train(latents, jax.random.normal(noise_key, latents.shape, jnp.float32), start)

    half = own | {STEP_SIZE: 2.0 ** -(drawn + 1.0)}
    velocities = (
      make_guided(teach(teacher), guided, few.guidance),
      lambda x, time: predict(x, time, half, {}),
    )
    ends = [array.reshape(*shape, _PARTS, *array.shape[1:]) for array in (x, start, middle, end)]
    targets = [_mean_of_two(v, *(array[:, n] for array in ends)) for n, v in enumerate(velocities)]
    target = jax.lax.stop_gradient(jnp.stack(targets, axis=1))

    answer = predict(x, start, batch | {STEP_SIZE: 2.0 ** -level.astype(jnp.float32)}, {})
    errors = jnp.square(answer.astype(jnp.float32).reshape(target.shape) - target)
    both = jnp.mean(errors, axis=(0, *range(2, errors.ndim)))
    loss = jnp.mean(both)
    return loss, {'loss': loss, 'loss/teachers_steps': both[0], 'loss/own_steps': both[1]}

  return objective


def _rows(batch: Batch, part: int) -> Batch:
  """Returns every other row of a batch; neighbours stay neighbours, and rows on their devices."""
  return jax.tree.map(lambda array: array.reshape(-1, _PARTS, *array.shape[1:])[:, part], batch)


def _mean_of_two(
  velocity: Velocity,
  x: Float[Array, 'b *axes'],
  start: Float[Array, ' b'],
  middle: Float[Array, ' b'],
  end: Float[Array, ' b'],
) -> Float[Array, 'b *axes']:
  """Returns the velocity of one step that moves x as far as two steps over the middle do."""
  axes = [1] * (x.ndim - 1)
  first = (middle - start).reshape(-1, *axes)
  second = (end - middle).reshape(-1, *axes)
  slope = velocity(x, start).astype(jnp.float32)
  after = velocity(x + first * slope, middle).astype(jnp.float32)
  return (first * slope + second * after) / (first + second)
