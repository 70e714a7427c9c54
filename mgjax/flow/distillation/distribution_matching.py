"""Sampling in one to a few steps whose samples are distributed as a teacher's (after Yin et al.
2024, "Improved Distribution Matching Distillation for Fast Image Synthesis", DMD2), checked by
tests/flow/distillation/test_distribution_matching.py.

A student takes the n steps of a grid from noise, as in sampling, up to a random one. It is
conditioned on s = 1 / n. From there it goes straight to a sample:

  X = X_t + (1 - t) u(X_t, t, s)

With noise of another time, X_r = r X + (1 - r) Z, two models estimate the sample behind it,
E[X | X_r] = X_r + (1 - r) u(X_r, r). One is the teacher, guided, which models data. The other is a
critic, which learns the student's samples by flow matching. X gets a gradient that moves samples to
where the teacher expects more of them; nothing else is differentiated:

  (E_critic[X | X_r] - E_teacher[X | X_r]) / mean |X - E_teacher[X | X_r]|

It approximates that of the divergence KL(student || teacher) of samples with noise. The normaliser
of each row weights rows in a way that the divergence does not. The weights are nearly equal if a
row has many values. With one value they are unbounded, and the mean over rows can even have the
other sign. Training needs conditions but no data. docs/decisions/0030 says what this leaves out of
DMD2, and why.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, check, unpack
from mgjax.core.typing import Array, Batch, Critic, Key, Metrics, Predict, Tree
from mgjax.flow.distillation.few_steps import STEP_SIZE, check_trained_steps
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
    steps: numbers of steps that are learned, each as often as the others.

  Raises:
    ConfigError: there are no numbers of steps, or one twice.
  """

  teacher: str
  schedule: Fields
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
    """Returns the times of a grid, (steps + 1,). Raises ConfigError if it was not trained."""
    check_trained_steps(steps, self.learnt)
    return make_time_grid(steps=steps, **self.schedule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionMatching(Simulated):
  """`config.objective.distribution_matching`: what is learned in place of the velocity.

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
  """Makes the student's objective.

  It is `objective(predict, batch, key, judge, teacher) -> (loss, metrics, samples)`. `loss` is half
  of the mean square of the gradient above, and its gradient by X is that gradient. `samples` are X,
  from which the critic learns (`make_critic_objective`). Of X_1, the `latents` of the batch, only
  the shape is read.

  Args:
    teach: the teacher's parameters, -> its `predict`.
    sample_time: key, shape (b,) -> times r.
  """
  simulate = make_simulate(matching)

  def objective(
    predict: Predict, batch: Batch, key: Key, judge: Critic, teacher: Tree
  ) -> tuple[Array, Metrics, Array]:
    student_key, time_key, noise_key = jax.random.split(key, 3)
    samples = simulate(predict, batch, batch['latents'].shape, student_key)
    count = len(samples)
    fixed_samples = jax.lax.stop_gradient(samples)
    time = sample_time(time_key, (count,))
    x, _ = _PATH.train(
      fixed_samples, jax.random.normal(noise_key, samples.shape, jnp.float32), time
    )
    real = make_guided(teach(teacher), batch, matching.guidance)(x, time).astype(jnp.float32)
    fake = judge.predict(x, time, batch, {}).astype(jnp.float32)

    rest = (1 - time).reshape(-1, *[1] * (samples.ndim - 1))
    off = jnp.mean(
      jnp.abs(fixed_samples - (x + rest * real)), axis=range(1, samples.ndim), keepdims=True
    )
    wrong = rest * (fake - real) / jnp.maximum(off, jnp.finfo(jnp.float32).tiny)
    wrong = jax.lax.stop_gradient(jnp.where(judge.active, wrong, 0.0))
    loss = 0.5 * jnp.mean(jnp.square(samples - (fixed_samples - wrong)))
    return loss, {'loss': loss, 'loss/gap': jnp.mean(jnp.square(fake - real))}, fixed_samples

  return objective


def make_critic_objective(*, sample_time: SampleTime):
  """Makes the critic's `objective(predict, batch, samples, key) -> (loss, metrics)`: flow matching.

  `samples` of the student replace the batch's `latents`.
  """
  flow = make_objective(dropout={}, sample_time=sample_time)

  def objective(predict: Predict, batch: Batch, samples: Array, key: Key) -> tuple[Array, Metrics]:
    loss, _ = flow(predict, batch | {'latents': samples}, key)
    return loss, {'discriminator_loss': loss}

  return objective


def make_matching_validation(
  student: Simulated, teach: Callable[[Tree], Predict], *, sample_time: SampleTime
):
  """Makes `objective(predict, batch, key, teacher) -> (loss, metrics)`, without a critic.

  `loss` is the teacher's flow matching loss, without guidance, on the student's samples: the
  teacher denoises well what it finds likely. 'loss/of_data' is the same loss on data. Arguments are
  those of `make_distribution_matching`.
  """
  simulate = make_simulate(student)
  flow = make_objective(dropout={}, sample_time=sample_time)

  def objective(predict: Predict, batch: Batch, key: Key, teacher: Tree) -> tuple[Array, Metrics]:
    student_key, key = jax.random.split(key)
    samples = simulate(predict, batch, batch['latents'].shape, student_key)
    loss, _ = flow(teach(teacher), batch | {'latents': samples}, key)
    data_loss, _ = flow(teach(teacher), batch, key)
    return loss, {'loss': loss, 'loss/of_data': data_loss}

  return objective


def make_simulate(student: Simulated) -> Callable[..., Array]:
  """Makes `simulate(predict, batch, shape, key) -> X`, with one random step for all rows."""
  longest = max(student.steps)
  counts = jnp.asarray(student.steps, jnp.int32)
  padded = [np.pad(student.grid(n), (0, longest - n), mode='edge') for n in student.steps]
  grids = jnp.asarray(np.stack(padded), jnp.float32)

  def simulate(predict: Predict, batch: Batch, shape: tuple[int, ...], key: Key) -> Array:
    noise_key, grid_key, index_key = jax.random.split(key, 3)
    which = jax.random.randint(grid_key, (), 0, len(student.steps))
    times = grids[which]
    steps = counts[which]
    index = jax.random.randint(index_key, (), 0, steps)
    conditioned = batch | {STEP_SIZE: jnp.full(shape[0], 1 / steps, jnp.float32)}

    def velocity(x: Array, time: Array) -> Array:
      return predict(x, jnp.full(shape[0], time), conditioned, {}).astype(jnp.float32)

    def step(i: Array | int, x: Array) -> Array:
      slope = jax.lax.stop_gradient(velocity(x, times[i]))
      return x + (times[i + 1] - times[i]) * slope

    noise = jax.random.normal(noise_key, shape, jnp.float32)
    x = jax.lax.stop_gradient(jax.lax.fori_loop(0, index, step, noise))
    time = times[index]
    return x + (1 - time) * velocity(x, time)

  return simulate
