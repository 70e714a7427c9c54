"""Sampling in one step, learnt from data alone: the mean velocity of a step (Geng et al. 2025,
"Mean Flows for One-step Generative Modeling", arXiv 2505.13447; improved in arXiv 2512.02012, iMF),
checked by tests/flow/distillation/test_mean_flow.py.

Beside the time t the model is told the length s of a step, and answers its mean velocity

  u(X_t, t, s) = 1/s integral from t to t + s of v(X_r, r) dr,   u(X_t, t, 0) = v(X_t, t).

With the end of the step held, its derivative along the path says how it differs from v:

  v(X_t, t) = u(X_t, t, s) - s du/dt,   du/dt = u_x v + u_t - u_s,

a Jacobian-vector product, forward. What stands on the right is learnt as a velocity is, from X_1 -
X_0 of pairs; v in du/dt is the model's own, u(X_t, t, 0), and du/dt has no gradient (iMF: of the
pair's instead, and with u as what is learnt, the target depends on the answer). Guidance is learnt
with it: what a pair says is moved by (1 - 1/w) of what the condition changes,

  V = X_1 - X_0 + (1 - 1/w) (u(X_t, t, 0 | c) - u(X_t, t, 0)),

whose mean is the velocity guided by w where the model's own is.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.derivatives import forward_mode
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Fraction, Magnitude, Range
from mgjax.core.typing import Array, Batch, Key, Metrics, Objective, Predict
from mgjax.flow.distillation.few_steps import STEP
from mgjax.flow.objective import draw_drop, losses_by_kind
from mgjax.flow.path import FlowMatching
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.times import SampleTime

_PATH = FlowMatching()
_FLOOR = 1e-3  # of squared errors, beside which a row's weight grows no more (arXiv 2505.13447: c)


@dataclasses.dataclass(frozen=True)
class MeanFlow(Checked):
  """`config.objective.mean_flow`: what is learnt in place of the velocity.

  Attributes:
    guidance: w of all conditions that are ever dropped together; 1 for none.
    share: of the rows, which learn a step; the others learn the velocity (s = 0).
    power: p of each row's weight 1 / (error^2 + c)^p; 0 for the plain square.
  """

  guidance: Annotated[float, Range(least=1)] = 1.0
  share: Fraction = 0.5
  power: Magnitude = 1.0

  @property
  def schedule(self) -> Mapping[str, Any]:
    """The grid whose steps have one length, which the model is told."""
    return {'name': 'linear'}

  def grid(self, steps: int) -> np.ndarray:
    """Returns the times of so many steps, (steps + 1,)."""
    return make_time_grid(steps=steps, **self.schedule)


def make_mean_flow(
  mean: MeanFlow,
  *,
  dropout: Mapping[str, float],
  drop_all_probability: float = 0.0,
  conditions: Collection[str],
  sample_time: SampleTime,
) -> Objective:
  """Makes `objective(predict, batch, key) -> (loss, metrics)`, as above.

  Of two times of `sample_time` a row's step begins at the earlier one and ends at the other;
  guidance leads away from `conditions` dropped together.
  Raises ConfigError if guidance is to be learnt and nothing is ever dropped.
  """
  dropout, ratio = dict(dropout), 1 - 1 / mean.guidance
  if ratio and not conditions:
    raise ConfigError(
      f'mean_flow.guidance = {mean.guidance:g}, but objective.dropout drops nothing: expected a '
      'rate above 0 for what guidance shall lead to, as in 0.1'
    )

  def objective(predict: Predict, batch: Batch, key: Key) -> tuple[Array, Metrics]:
    latents = batch['latents'].astype(jnp.float32)
    count = len(latents)
    keys = jax.random.split(key, 5)
    one, other = (sample_time(each, (count,)) for each in keys[:2])
    start, step = jnp.minimum(one, other), jnp.abs(one - other)
    learns = jax.random.uniform(keys[2], (count,)) < mean.share
    start, step = jnp.where(learns, start, one), jnp.where(learns, step, 0.0)
    noise = jax.random.normal(keys[3], latents.shape, jnp.float32)
    x, target = _PATH.train(latents, noise, start)
    drop = draw_drop(keys[4], dropout, count, drop_all_probability)

    def answers(x: Array, time: Array, step: Array, drop=drop) -> Array:
      return predict(x, time, batch | {STEP: step}, drop).astype(jnp.float32)

    zero = jnp.zeros_like(step)
    own = jax.lax.stop_gradient(answers(x, start, zero))
    if ratio:
      none = drop | dict.fromkeys(conditions, jnp.ones(count, bool))
      target += ratio * (own - jax.lax.stop_gradient(answers(x, start, zero, none)))
    with forward_mode():
      along = (own, jnp.ones_like(start), -jnp.ones_like(step))
      _, slope = jax.jvp(answers, (x, start, step), along)
    length = step.reshape(-1, *[1] * (x.ndim - 1))
    velocity = answers(x, start, step) - length * jax.lax.stop_gradient(slope)
    errors = jnp.square(velocity - target)
    rows = jnp.mean(errors, axis=tuple(range(1, errors.ndim)))
    weights = jax.lax.stop_gradient((rows + _FLOOR) ** -mean.power)
    plain = jnp.mean(rows)
    return jnp.mean(weights * rows), {'loss': plain, **losses_by_kind(plain, errors, start)}

  return objective
