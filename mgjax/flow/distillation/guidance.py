"""Guidance in one evaluation, distilled from the two or more of a teacher (Meng et al. 2023, "On
distillation of guided diffusion models", first stage), checked by
tests/flow/distillation/test_guidance.py.

The student is conditioned on the scale s and learns the guided velocity of a frozen teacher:

  u(x, t, c, s) = v(x, t, 0) + s (v(x, t, c) - v(x, t, 0))

for scales of a range. Everything else of sampling stays free: solver, schedule, number of steps.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Finite, check
from mgjax.core.typing import Array, Batch, Key, Metrics, Predict, Tree
from mgjax.flow.guidance import Guidance, check_guidance, make_guided
from mgjax.flow.objective import losses_by_kind
from mgjax.flow.path import FlowMatching
from mgjax.flow.times import SampleTime

SCALES = 'guidance_scales'  # key of a batch: s of each guided condition of a row, (b k)
_PATH = FlowMatching()


@dataclasses.dataclass(frozen=True)
class GuidanceDistillation:
  """`config.objective.guidance_distillation`: whose guided velocity is learned, at which scales.

  Attributes:
    teacher: work directory of a model with the same backbone and conditions, whose averaged weights
      are taken; `config.start_from` is best the same.
    scales: pairs of a condition's name and its (lowest, highest) scale, in the order in which
      guidance is nested. Training draws scales uniformly, for every row and condition. Every range
      contains 1, the scale of a condition without guidance.

  Raises:
    ConfigError: no condition is named or one twice, or a range does not hold 1.
  """

  teacher: str
  scales: tuple[tuple[str, tuple[Finite, Finite]], ...]

  def __post_init__(self):
    check(self)
    if not self.scales:
      raise ConfigError("scales names no condition; expected (('text', (1.0, 6.0)),)")
    check_guidance(tuple((name, high) for name, (_, high) in self.scales))
    for name, (low, high) in self.scales:
      if not 0 < low <= 1 < high:
        raise ConfigError(
          f'scales of {name!r} go from {low:g} to {high:g}; expected from above 0 and at most 1 to '
          'above 1, as in (1.0, 6.0)'
        )

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the conditions, in their order."""
    return tuple(name for name, _ in self.scales)

  def told(self, guidance: Guidance) -> tuple[float, ...]:
    """Returns s of each condition for `SCALES` of a batch; 1 for a condition that is not named.

    Raises ConfigError if a scale was not learned, or the conditions are nested in another order.
    """
    requested = dict(guidance)
    learnt = dict(self.scales)
    if [name for name, _ in guidance] != [name for name in self.names if name in requested]:
      raise ConfigError(
        f'guidance names {[name for name, _ in guidance]} of a model that learned that of '
        f'{list(self.names)} in one pass; name these, in this order'
      )
    for name, scale in requested.items():
      low, high = learnt[name]
      if isinstance(scale, tuple) or not low <= scale <= high:
        raise ConfigError(
          f'guidance of {name!r} is {scale} of a model that learned scales from {low:g} to '
          f'{high:g}, each at all times; give one of these'
        )
    return tuple(float(requested.get(name, 1.0)) for name in self.names)  # type: ignore


def make_guidance_distillation(
  distilled: GuidanceDistillation, teach: Callable[[Tree], Predict], *, sample_time: SampleTime
):
  """Makes `objective(predict, batch, key, teacher) -> (loss, metrics)` of the teacher's velocity.

  `loss = E || u(X_t, t, P, s) - v_s(X_t, t, P) ||^2` in float32, without a gradient through v_s,
  X_t on the path between noise and data. No condition is dropped.

  Args:
    teach: the teacher's parameters, -> its `predict`.
    sample_time: key, shape (b,) -> times.
  """

  def objective(predict: Predict, batch: Batch, key: Key, teacher: Tree) -> tuple[Array, Metrics]:
    latents = batch['latents'].astype(jnp.float32)
    time_key, noise_key, scale_key = jax.random.split(key, 3)
    time = sample_time(time_key, (len(latents),))
    x, _ = _PATH.train(latents, jax.random.normal(noise_key, latents.shape, jnp.float32), time)
    low, high = jnp.asarray([ends for _, ends in distilled.scales], jnp.float32).T[:, None]
    luck = jax.random.uniform(scale_key, (len(latents), len(distilled.scales)))
    scales = low + luck * (high - low)

    guidance: Any = tuple(zip(distilled.names, scales.T, strict=True))
    target = jax.lax.stop_gradient(make_guided(teach(teacher), batch, guidance)(x, time))
    answer = predict(x, time, batch | {SCALES: scales}, {})
    errors = jnp.square(answer.astype(jnp.float32) - target)
    loss = jnp.mean(errors)
    return loss, {'loss': loss, **losses_by_kind(loss, errors, time)}

  return objective
