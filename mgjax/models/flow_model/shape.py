"""Checks which video shapes a model supports (Movie Gen §3.1.3)."""

from mgjax.core.errors import ConfigError
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.models.wan.transformer import WanTransformer


def check_shape(
  backbone: Transformer | WanTransformer,
  autoencoder: Autoencoder | WanAutoencoder,
  shape: tuple[int, int, int],
) -> None:
  """Checks that a model supports videos of `shape`: frames, height, width in pixels.
  Raises ConfigError if sizes do not divide, or are larger than the position tables.
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
