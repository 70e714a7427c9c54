"""Latents as the flow model sees them: encoded, and normalised channel by channel."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float, Tree, UInt8
from mgjax.tae.autoencoder import Autoencoder


def to_unit(video: UInt8[Array, 'b t h w 3']) -> Float[Array, 'b t h w 3']:
  """Maps bytes to [-1, 1]: x / 127.5 - 1."""
  return video.astype(jnp.float32) / 127.5 - 1


def to_bytes(video: Float[Array, 'b t h w 3']) -> UInt8[Array, 'b t h w 3']:
  """Maps [-1, 1] to bytes, rounded; what lies outside is clipped."""
  return jnp.clip(jnp.round((video.astype(jnp.float32) + 1) * 127.5), 0, 255).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Mean and standard deviation of each latent channel over data."""

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def as_dict(self) -> dict[str, list[float]]:
    """Returns plain JSON values."""
    return {'mean': list(self.mean), 'std': list(self.std)}

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Statistics':
    """Reads what `as_dict` gave."""
    return cls(tuple(values['mean']), tuple(values['std']))


def estimate_statistics(latents: Iterable[np.ndarray]) -> Statistics:
  """Estimates the statistics over arrays (... c), summed in float64."""
  count, total, squares = 0, 0.0, 0.0
  for array in latents:
    rows = np.asarray(array, np.float64).reshape(-1, array.shape[-1])
    count, total, squares = count + len(rows), total + rows.sum(0), squares + (rows**2).sum(0)
  if not count:
    raise ValueError('no latents were given to estimate statistics over')
  mean = total / count
  std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
  return Statistics(tuple(mean.tolist()), tuple(std.tolist()))


class LatentCodec:
  """A trained autoencoder with its statistics: bytes to normalised latents and back.

  z = (mean of q(z | x) - m_c) / s_c. Encoding takes the posterior's mean, not a sample of it.
  """

  def __init__(self, model: Autoencoder, params: Tree, statistics: Statistics):
    self.model, self.params, self.statistics = model, params, statistics
    self._encode = jax.jit(self._raw_encode)
    self._decode = jax.jit(self._raw_decode, static_argnames='frames')

  def encode(self, video: UInt8[Array, 'b t h w 3']) -> Float[Array, 'b u i j c']:
    """Encodes bytes into normalised latents."""
    return self._encode(self.params, video)

  def decode(self, latents: Float[Array, 'b t h w c'], frames: int) -> UInt8[Array, 'b u i j 3']:
    """Decodes normalised latents into the first `frames` frames."""
    return self._decode(self.params, latents, frames=frames)

  def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Returns (t, h, w, c) of the latents of a video of `shape` (t, h, w)."""
    return self.model.latent_shape(shape)

  def _raw_encode(self, params: Tree, video: Array) -> Array:
    posterior = self.model.apply({'params': params}, to_unit(video), method='encode')
    mean, std = self._moments()
    return (posterior.mean.astype(jnp.float32) - mean) / std

  def _raw_decode(self, params: Tree, latents: Array, *, frames: int) -> Array:
    mean, std = self._moments()
    latents = latents * std + mean
    return to_bytes(self.model.apply({'params': params}, latents, frames, method='decode'))

  def _moments(self) -> tuple[Array, Array]:
    mean, std = (jnp.array(x, jnp.float32) for x in (self.statistics.mean, self.statistics.std))
    return mean[None, None, None, None], std[None, None, None, None]
