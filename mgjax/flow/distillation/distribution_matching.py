"""Sampling in one to a few steps whose samples are distributed as a teacher's (after Yin et al.
2024, "Improved Distribution Matching Distillation for Fast Image Synthesis", DMD2), checked by
tests/flow/distillation/test_distribution_matching.py.

A student takes the n steps of a grid from noise, as it will when it samples, up to one that is
drawn; s = 1 / n tells it how many there are. Going on straight from there it is at a sample:

  X = X_t + (1 - t) u(X_t, t, s)

With noise of another time, X_r = r X + (1 - r) Z, two models say which samples are behind it,
E[X | X_r] = X_r + (1 - r) u(X_r, r): the teacher, guided, which knows data, and a critic, which
learns by flow matching what the student makes. The gradient that X is given, and nothing else is
differentiated, leads the student's samples to where the teacher expects more of them:

  (E_critic[X | X_r] - E_teacher[X | X_r]) / mean |X - E_teacher[X | X_r]|

It approximates that of the divergence KL(student || teacher) of samples with noise. The normaliser,
each row's own, gives weights to rows that the divergence does not have: nearly the same ones where
a row has many values, unbounded ones where it has one, and there the mean over rows can even have
the other sign. No data are needed but what conditions say. What this leaves out of DMD2, and why:
docs/decisions/0030.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, check, unpack
from mgjax.core.typing import Array, Batch, Critic, Key, Metrics, Predict, Tree
from mgjax.flow.distillation.few_steps import STEP, check_learnt
from mgjax.flow.guidance import Guidance, check_guidance, make_guided
from mgjax.flow.objective import make_objective
from mgjax.flow.path import FlowMatching
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.times import SampleTime

Steps = tuple[Annotated[int, Range(least=1, most=1024)], ...]  # numbers of steps
_PATH = FlowMatching()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulated:
  """A student that is trained on samples as it makes them, by steps of Euler from noise.

  Attributes:
    teacher: work directory of a model with the same backbone and conditions, whose averaged weights
      are taken.
    schedule: of the grid, as in `config.sample`.
    steps: numbers of steps that are learnt, each as often as the others.

  Raises:
    ConfigError: there are no numbers of steps, or one twice.
  """

  teacher: str
  schedule: Mapping[str, Any]
  steps: Steps

  def __post_init__(self):
    check(self)
    if not self.steps or len(set(self.steps)) < len(self.steps):
      raise ConfigError(f'steps = {self.steps}; expected each number once, as in (1, 2, 4)')
    unpack(make_time_grid, self.schedule, 'schedule', steps=1)

  @property
  def learnt(self) -> tuple[int, ...]:
    """Numbers of steps that the model learns to take."""
    return tuple(sorted(self.steps))

  def grid(self, steps: int) -> np.ndarray:
    """Returns the times of so many steps, (steps + 1,); ConfigError if they were not learnt."""
    check_learnt(steps, self.learnt)
    return make_time_grid(steps=steps, **self.schedule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionMatching(Simulated):
  """`config.objective.distribution_matching`: what is learnt in place of the velocity.

  The critic begins as the teacher is, and `config.start_from` is best the same.
  """

  guidance: Guidance
  steps: Steps = (1, 2, 4)

  def __post_init__(self):
    super().__post_init__()
    check_guidance(self.guidance)


def make_distribution_matching(
  matching: DistributionMatching, teach: Callable[[Tree], Predict], *, sample_time: SampleTime
):
  """Makes the student's `objective(predict, batch, key, judge, teacher) -> (loss, metrics, made)`.

  `loss` is half of the mean square of the gradient above, whose gradient by X it has, and `made`
  are the samples X, which the critic learns from (`make_critic_objective`). Of X_1, the `latents`
  of the batch, the shape is read alone.

  Args:
    teach: the teacher's parameters, -> its `predict`.
    sample_time: key, shape (b,) -> times r.
  """
  simulate = make_simulate(matching)

  def objective(
    predict: Predict, batch: Batch, key: Key, judge: Critic, teacher: Tree
  ) -> tuple[Array, Metrics, Array]:
    student_key, time_key, noise_key = jax.random.split(key, 3)
    made = simulate(predict, batch, batch['latents'].shape, student_key)
    count = len(made)
    held = jax.lax.stop_gradient(made)
    time = sample_time(time_key, (count,))
    x, _ = _PATH.train(held, jax.random.normal(noise_key, made.shape, jnp.float32), time)
    real = make_guided(teach(teacher), batch, matching.guidance)(x, time).astype(jnp.float32)
    fake = judge.predict(x, time, batch, {}).astype(jnp.float32)

    rest = (1 - time).reshape(-1, *[1] * (made.ndim - 1))
    off = jnp.mean(jnp.abs(held - (x + rest * real)), axis=range(1, made.ndim), keepdims=True)
    wrong = rest * (fake - real) / jnp.maximum(off, jnp.finfo(jnp.float32).tiny)
    wrong = jax.lax.stop_gradient(jnp.where(judge.active, wrong, 0.0))
    loss = 0.5 * jnp.mean(jnp.square(made - (held - wrong)))
    return loss, {'loss': loss, 'loss/gap': jnp.mean(jnp.square(fake - real))}, held

  return objective


def make_critic_objective(*, sample_time: SampleTime):
  """Makes the critic's `objective(predict, batch, made, key) -> (loss, metrics)`: flow matching.

  `made`, the samples of the student, come in the place of the batch's `latents`.
  """
  flow = make_objective(dropout={}, sample_time=sample_time)

  def objective(predict: Predict, batch: Batch, made: Array, key: Key) -> tuple[Array, Metrics]:
    loss, _ = flow(predict, batch | {'latents': made}, key)
    return loss, {'discriminator_loss': loss}

  return objective


def make_matching_validation(
  student: Simulated, teach: Callable[[Tree], Predict], *, sample_time: SampleTime
):
  """Makes `objective(predict, batch, key, teacher) -> (loss, metrics)`, without a critic.

  `loss` is the teacher's own, flow matching without guidance, where the student's samples stand in
  for data: what the teacher finds likely it knows to denoise. Beside it 'loss/of_data', the same of
  data. Arguments are those of `make_distribution_matching`.
  """
  simulate = make_simulate(student)
  flow = make_objective(dropout={}, sample_time=sample_time)

  def objective(predict: Predict, batch: Batch, key: Key, teacher: Tree) -> tuple[Array, Metrics]:
    student_key, key = jax.random.split(key)
    made = simulate(predict, batch, batch['latents'].shape, student_key)
    loss, _ = flow(teach(teacher), batch | {'latents': made}, key)
    other, _ = flow(teach(teacher), batch, key)
    return loss, {'loss': loss, 'loss/of_data': other}

  return objective


def make_simulate(student: Simulated) -> Callable[..., Array]:
  """Makes `simulate(predict, batch, shape, key) -> X`, of a step that is drawn for all rows."""
  longest = max(student.steps)
  counts = jnp.asarray(student.steps, jnp.int32)
  padded = [np.pad(student.grid(n), (0, longest - n), mode='edge') for n in student.steps]
  grids = jnp.asarray(np.stack(padded), jnp.float32)

  def simulate(predict: Predict, batch: Batch, shape: tuple[int, ...], key: Key) -> Array:
    noise_key, grid_key, place_key = jax.random.split(key, 3)
    which = jax.random.randint(grid_key, (), 0, len(student.steps))
    times, steps = grids[which], counts[which]
    place = jax.random.randint(place_key, (), 0, steps)
    told = batch | {STEP: jnp.full(shape[0], 1 / steps, jnp.float32)}

    def velocity(x: Array, time: Array) -> Array:
      return predict(x, jnp.full(shape[0], time), told, {}).astype(jnp.float32)

    def step(index: Array | int, x: Array) -> Array:
      slope = jax.lax.stop_gradient(velocity(x, times[index]))
      return x + (times[index + 1] - times[index]) * slope

    noise = jax.random.normal(noise_key, shape, jnp.float32)
    x = jax.lax.stop_gradient(jax.lax.fori_loop(0, place, step, noise))
    time = times[place]
    return x + (1 - time) * velocity(x, time)

  return simulate
