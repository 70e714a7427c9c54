"""Distributions of flow times in training (Movie Gen §3.1.2), checked by tests/flow/test_times.py.

A sampler maps a key and a shape to float32 times in [0, 1]; 0 is noise, 1 is data.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Finite, Fraction, Magnitude, arguments
from mgjax.core.typing import Array, Float, Key

SampleTime = Callable[[Key, tuple[int, ...]], Array]


def logit_normal(
  key: Key,
  shape: tuple[int, ...],
  mean: Finite = 0.0,
  std: Magnitude = 1.0,
  low: Fraction = 0.0,
  high: Fraction = 1.0,
) -> Float[Array, '...']:
  """Draws `t = 1 / (1 + exp(-z))`, `z ~ N(mean, std^2)` (Movie Gen §3.1.2: mean 0, std 1).

  The distribution is truncated to [`low`, `high`], for experts of some noise levels
  (`models.flow_model.sampling.Experts`).
  Raises ConfigError if `low` is not below `high`.
  """
  if not low < high:
    raise ConfigError(f'objective.time: low = {low}, high = {high}; expected low < high')
  if (low, high) == (0.0, 1.0):
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape, jnp.float32))
  least, most = ((jax.scipy.special.logit(jnp.float32(t)) - mean) / std for t in (low, high))
  z = jax.random.truncated_normal(key, least, most, shape, jnp.float32)
  return jax.nn.sigmoid(mean + std * z)


def uniform(key: Key, shape: tuple[int, ...]) -> Float[Array, '...']:
  """Draws `t ~ U[0, 1)`."""
  return jax.random.uniform(key, shape, jnp.float32)


def stratified(key: Key, shape: tuple[int, ...]) -> Float[Array, '...']:
  """Returns the fixed grid `t_i = (i + 1/2) / n` of n times and ignores the key.

  A validation loss on it has no sampling noise, and compares runs with other training times.
  """
  count = math.prod(shape)
  return ((jnp.arange(count, dtype=jnp.float32) + 0.5) / count).reshape(shape)


def stratified_logit_normal(
  key: Key, shape: tuple[int, ...], mean: Finite = 0.0, std: Magnitude = 1.0
) -> Float[Array, '...']:
  """Returns the same grid of quantiles of `logit_normal`: the training loss without sampling noise.

  Times that training seldom draws have as little weight as there. A uniform grid also has times
  that a narrow distribution hardly draws, at which a model is not trained.
  """
  return jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(stratified(key, shape)))


TIMES: dict[str, SampleTime] = {
  'logit_normal': logit_normal,
  'uniform': uniform,
  'stratified': stratified,
  'stratified_logit_normal': stratified_logit_normal,
}


def make_sampler(name: str, **parameters: float) -> SampleTime:
  """Makes the sampler that a configuration names, `make_sampler('logit_normal', mean=1.)`.

  Raises ConfigError if no sampler has this name, or it does not take one of the parameters or
  values.
  """
  if name not in TIMES:
    raise ConfigError(f'unknown time sampler {name!r}; choose one of {", ".join(TIMES)}')
  sampler = TIMES[name]
  options = arguments(sampler, parameters, 'objective.time', given=('key', 'shape'))
  return functools.partial(sampler, **options)
