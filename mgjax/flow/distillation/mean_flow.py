"""Sampling in one step, learned from data alone: the mean velocity of a step (Geng et al. 2025,
"Mean Flows for One-step Generative Modeling", arXiv 2505.13447; improved in arXiv 2512.02012, iMF),
checked by tests/flow/distillation/test_mean_flow.py.

The model is conditioned on the length s of a step beside the time t, and predicts its mean velocity

  u(X_t, t, s) = 1/s integral from t to t + s of v(X_r, r) dr,   u(X_t, t, 0) = v(X_t, t).

With the end of the step fixed, the derivative of u along the path relates it to v:

  v(X_t, t) = u(X_t, t, s) - s du/dt,   du/dt = u_x v + u_t - u_s,

a Jacobian-vector product in forward mode. The right side is trained like a velocity, on X_1 - X_0
of pairs. The v in du/dt is the model's own, u(X_t, t, 0), and du/dt has no gradient. (This follows
iMF: with the pair's velocity, the target would depend on the answer.) Guidance is trained with it:
the velocity of a pair is moved by (1 - 1/w) of what the condition changes,

  V = X_1 - X_0 + (1 - 1/w) (u(X_t, t, 0 | c) - u(X_t, t, 0)),

whose mean is the velocity guided by w where the model's own is. A row's s du/dt, which is u - v, is
cut to the size of v: near noise it is many times that at first, and such rows would not help
(docs/experiments/mean_flow.md; not in the papers). It starts from a model that predicts the
velocity.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.derivatives import forward_mode
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Magnitude, Positive, Range
from mgjax.core.typing import Array, Batch, Drop, Key, Metrics, Objective, Predict
from mgjax.flow.distillation.few_steps import STEP_SIZE
from mgjax.flow.objective import draw_drop, losses_by_kind
from mgjax.flow.path import FlowMatching
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.times import SampleTime

_PATH = FlowMatching()
_FLOOR = 1e-3  # of squared errors, beside which a row's weight grows no more (arXiv 2505.13447: c)


@dataclasses.dataclass(frozen=True)
class MeanFlow(Checked):
  """`config.objective.mean_flow`: what is learned in place of the velocity.

  Attributes:
    guidance: w of all conditions that are ever dropped together; 1 for none.
    every: one row in so many learns a step; the others learn the velocity (s = 0).
    power: p of each row's weight 1 / (error^2 + c)^p; 0 for the plain square.
  """

  guidance: Annotated[float, Range(least=1)] = 1.0
  every: Positive = 4
  power: Magnitude = 1.0

  @property
  def schedule(self) -> Mapping[str, Any]:
    """The grid whose steps have one length, on which the model is conditioned."""
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
  Raises ConfigError if guidance is to be learned and nothing is ever dropped.
  """
  dropout = dict(dropout)
  ratio = 1 - 1 / mean.guidance
  if ratio and not conditions:
    raise ConfigError(
      f'mean_flow.guidance = {mean.guidance:g}, but objective.dropout drops nothing: expected a '
      'rate above 0 for what guidance shall lead to, as in 0.1'
    )

  def objective(predict: Predict, batch: Batch, key: Key) -> tuple[Array, Metrics]:
    latents = batch['latents'].astype(jnp.float32)
    count = len(latents)
    keys = jax.random.split(key, 4)
    first_time, second_time = (sample_time(time_key, (count,)) for time_key in keys[:2])
    learns_step = np.arange(count) % mean.every == 0
    start = jnp.where(learns_step, jnp.minimum(first_time, second_time), first_time)
    step = jnp.where(learns_step, jnp.abs(first_time - second_time), 0.0)
    noise = jax.random.normal(keys[2], latents.shape, jnp.float32)
    x, target = _PATH.train(latents, noise, start)
    drop = draw_drop(keys[3], dropout, count, drop_all_probability)

    def answers(x: Array, time: Array, step: Array, batch: Batch, drop: Drop) -> Array:
      return predict(x, time, batch | {STEP_SIZE: step}, drop).astype(jnp.float32)

    zero = jnp.zeros_like(step)
    own = jax.lax.stop_gradient(answers(x, start, zero, batch, drop))
    if ratio:
      none = drop | dict.fromkeys(conditions, jnp.ones(count, bool))
      target += ratio * (own - jax.lax.stop_gradient(answers(x, start, zero, batch, none)))
    step_inputs = (x, start, step, own, batch, drop)
    x_rows, start_rows, step_rows, velocity_rows, batch_rows, drop_rows = jax.tree.map(
      lambda leaf: leaf[:: mean.every], step_inputs
    )
    with forward_mode():
      _, slope = jax.jvp(
        lambda x, time, step: answers(x, time, step, batch_rows, drop_rows),
        (x_rows, start_rows, step_rows),
        (velocity_rows, jnp.ones_like(start_rows), -jnp.ones_like(step_rows)),
      )
    correction = step_rows.reshape(-1, *[1] * (x.ndim - 1)) * jax.lax.stop_gradient(slope)
    axes = tuple(range(1, x.ndim))
    size = lambda array: jnp.sqrt(jnp.mean(jnp.square(array), axes, keepdims=True))  # noqa: E731
    correction *= jnp.minimum(1.0, size(velocity_rows) / (size(correction) + _FLOOR))
    velocity = answers(x, start, step, batch, drop).at[:: mean.every].add(-correction)
    errors = jnp.square(velocity - target)
    rows = jnp.mean(errors, axes)
    weights = jax.lax.stop_gradient((rows + _FLOOR) ** -mean.power)
    loss = jnp.mean(rows)
    return jnp.mean(weights * rows), {'loss': loss, **losses_by_kind(loss, errors, start)}

  return objective
