"""The training loss of every flow model (Movie Gen §3.1.2), checked by
tests/flow/test_objective.py.
"""

import math
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Array, Batch, Bool, Drop, Key, Metrics, Objective, Predict
from mgjax.flow import times
from mgjax.flow.path import FlowMatching
from mgjax.flow.prediction import Prediction

RANGES = 4  # of time, in which the loss is reported
_FLOW = FlowMatching()


def make_objective(
  *,
  dropout: Mapping[str, float],
  drop_all_probability: float = 0.0,
  sample_time: times.SampleTime = times.logit_normal,
  data: str = 'latents',
  prediction: Prediction = _FLOW,
  min_snr: float = 0.0,
  places: int = 0,
) -> Objective:
  """Makes `objective(predict, batch, key) -> (loss, metrics)`, the flow matching loss or another.

  `loss = E || u(X_t, P, t) - V_t ||^2`, the mean over all elements in float32, with X_1 the batch's
  `data`, `X_0 ~ N(0, 1)`, one t per row, and P the rest of the batch (Movie Gen §3.1.2). Another
  `prediction` has another mixture in place of X_t and another answer in place of V_t.

  Args:
    dropout: conditioning name -> probability that a row does not see it, which trains the
      unconditional model that guidance needs. For video the rates are not in public sources.
    drop_all_probability: that a row sees none of the conditionings with a dropout rate, in addition
      to their own dropout (Movie Gen §6: 0.2 for audio).
    sample_time: key, shape (b,) -> times.
    data: the batch key of X_1, (b ...).
    prediction: the input and the target of the model, from `make_prediction`.
    min_snr: g of the weight min(t^2, g (1 - t)^2) of a velocity's squared error: that of X_1 then
      has the weight min(SNR, g), SNR = t^2 / (1 - t)^2 (Hang et al. 2023, arXiv 2303.09556: 5).
      0 weights all times equally.
    places: latent places of a sample that `sample_time` is meant for; where there are n, times are
      those of `places` at the same noise a place: logit t falls by log sqrt(n / places) (Esser et
      al. 2024, arXiv 2403.03206, §5.3.2). 0 for the same times everywhere.

  The objective calls `predict(x, time, batch, drop)` once, where `drop` holds a mask (b,) for every
  name in `dropout`. Times, noise and masks are drawn from the key for the whole batch: they depend
  on its shape but not on its contents. A conditioning's mask depends on its own name and rate
  alone, so adding another conditioning changes no other draw. A row's draws do depend on its place
  in the batch and on the batch size.

  Raises:
    ConfigError: a dropout rate is not a probability.
    DataError: (from the objective) the batch has no `data`.
  """
  dropout = dict(dropout)
  for name, rate in (*dropout.items(), ('all of them together', drop_all_probability)):
    if not 0 <= rate <= 1:
      raise ConfigError(f'dropout of {name!r} is {rate}; a probability lies in [0, 1]')

  def objective(predict: Predict, batch: Batch, key: Key) -> tuple[Array, Metrics]:
    if data not in batch:
      raise DataError(f'the batch has no {data!r}, it has {", ".join(sorted(batch)) or "nothing"}')
    latents = batch[data].astype(jnp.float32)
    count = latents.shape[0]
    time_key, noise_key, drop_key = jax.random.split(key, 3)

    time = sample_time(time_key, (count,))
    if places:
      ratio = math.sqrt(math.prod(latents.shape[1:-1]) / places)
      time = time / (time + ratio * (1 - time))
    noise = jax.random.normal(noise_key, latents.shape, jnp.float32)
    drop = draw_drop(drop_key, dropout, count, drop_all_probability)

    x, target = prediction.train(latents, noise, time)
    answer = predict(x, time, batch, drop)
    if answer.shape != target.shape:  # broadcasting would give a plausible but wrong loss
      raise ValueError(f'predict returned {answer.shape} for {data!r} of shape {target.shape}')
    weight = prediction.weight(time)
    if min_snr:
      weight *= jnp.minimum(time**2, min_snr * (1 - time) ** 2)
    errors = weight.reshape(-1, *[1] * (target.ndim - 1)) * jnp.square(
      answer.astype(jnp.float32) - target
    )
    loss = jnp.mean(errors)
    return loss, {'loss': loss, **losses_by_kind(loss, errors, time)}

  return objective


def losses_by_kind(loss: Array, errors: Array, time: Array) -> Metrics:
  """Returns the loss of images or videos (b t h w c), and (sum, rows) of it by ranges of time."""
  rows = jnp.mean(errors, axis=tuple(range(1, errors.ndim)))
  which = jnp.clip(jnp.floor(time * RANGES), 0, RANGES - 1)
  metrics: Metrics = {}
  if errors.ndim == 5:
    metrics['loss/image' if errors.shape[1] == 1 else 'loss/video'] = loss
  for index in range(RANGES):
    inside = (which == index).astype(jnp.float32)
    name = f'loss/time_{index / RANGES:g}_{(index + 1) / RANGES:g}'
    # Not a product, so that NaN at another time does not reach this range.
    metrics[name] = jnp.stack([jnp.sum(jnp.where(inside > 0, rows, 0.0)), jnp.sum(inside)])
  return metrics


def draw_drop(
  key: Key, dropout: Mapping[str, float], count: int, drop_all_probability: float = 0.0
) -> Drop:
  """Draws for each conditioning the (count,) mask of the rows in which it is dropped.

  A conditioning of rate 0 is never dropped, also with `drop_all_probability`.
  """

  def draw(name: str, rate: float) -> Bool[Array, ' b']:
    # Unlike Python's own hash this one is equal in every process and version.
    return jax.random.bernoulli(jax.random.fold_in(key, zlib.crc32(name.encode())), rate, (count,))

  masks = {name: draw(name, rate) for name, rate in dropout.items()}
  if not drop_all_probability:
    return masks
  all_of_them = draw('', drop_all_probability)
  return {name: mask | all_of_them if dropout[name] else mask for name, mask in masks.items()}
