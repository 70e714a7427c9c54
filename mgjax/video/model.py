"""Movie Gen Video: the backbone and whatever conditions it (Movie Gen §3.1)."""

import flax.linen as nn
import jax.numpy as jnp

from mgjax.backbone.transformer import Transformer
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.ports import Ports, combine
from mgjax.core.typing import Array, Batch, Drop, Float
from mgjax.tae.autoencoder import Autoencoder


class VideoModel(nn.Module):
  """u(X_t, P, t): velocity of latents under the conditions that a batch carries.

  Attributes:
    backbone: the transformer, which knows ports only.
    conditionings: modules `(batch, drop) -> Ports`. Each is named (`name='text'`), and its
      parameters, its dropout and its guidance scale go by that name.
  """

  backbone: Transformer
  conditionings: tuple[nn.Module, ...] = ()
  # Or Linen would call the first one 'conditionings_0', and no dropout would ever find 'text'.
  preserve_adopted_names = True

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t h w c'], time: Float[Array, ' b'], batch: Batch, drop: Drop
  ) -> Float[Array, 'b t h w c']:
    """Returns the velocity; a conditioning that `drop` does not name is never dropped.

    Raises:
      DataError: the batch lacks what a conditioning requires.
    """
    ports: list[Ports] = []
    keep = jnp.zeros(x.shape[0], bool)
    for conditioning in self.conditionings:
      if missing := [key for key in conditioning.requires() if key not in batch]:
        raise DataError(
          f'conditioning {conditioning.name!r} requires {missing}, the batch has {sorted(batch)}'
        )
      ports.append(conditioning(batch, drop.get(conditioning.name, keep)))
    return self.backbone(x, time, combine(ports))


def check_shape(
  backbone: Transformer, autoencoder: Autoencoder, shape: tuple[int, int, int]
) -> None:
  """Checks that a model can see videos of `shape`: frames, height, width in pixels.

  Raises:
    ConfigError: sizes do not divide, or are larger than the position tables.
  """
  _, height, width = autoencoder.compression
  patch, most = backbone.patch, backbone.positions
  latents = autoencoder.latent_shape(shape)[:3]
  fits = (
    min(shape) > 0
    and shape[1] % (height * patch[1]) == 0
    and shape[2] % (width * patch[2]) == 0
    and all(size <= step * count for size, step, count in zip(latents, patch, most, strict=True))
  )
  if not fits:
    largest = [s * c * f for s, c, f in zip(patch, most, autoencoder.compression, strict=True)]
    raise ConfigError(
      f'this model cannot make {shape[0]} frames of {shape[1]} x {shape[2]}: height is a '
      f'multiple of {height * patch[1]}, width of {width * patch[2]}, and at most {largest[0]} '
      f'frames of {largest[1]} x {largest[2]}'
    )
