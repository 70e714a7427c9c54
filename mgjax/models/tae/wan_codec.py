"""Encodes clips with the autoencoder of Wan, and decodes them, never in tiles of time."""

import dataclasses
from collections.abc import Sequence

from mgjax.core.typing import Array, Float, Tree
from mgjax.models.tae.latents import LatentCodec, Statistics
from mgjax.models.tae.tiling import Tiling
from mgjax.models.tae.wan import WanAutoencoder, decode, encode

_WHOLE = 2**30  # frames; memory does not grow with them, since chunks are scanned


class WanCodec(LatentCodec):
  """A `LatentCodec` of clips of 1 + 4 k frames, which are encoded and decoded in one piece.

  Tiles of time would blink. Those of space are as configured.
  """

  def __init__(
    self,
    model: WanAutoencoder,
    params: Tree,
    statistics: Statistics,
    tiling: Tiling | None = None,
    fingerprints: Sequence[str] = (),
  ):
    """Binds what makes up the codec; see `LatentCodec`."""
    tiling = dataclasses.replace(tiling or Tiling(), frames=_WHOLE, overlap=0)
    super().__init__(model, params, statistics, tiling, fingerprints)

  def frames_of(self, latents: int) -> int:
    """Returns how many frames so many latents stand for: 1 + 4 (n - 1)."""
    return 1 + (latents - 1) * self.model.compression[0]

  def _encode_clip(
    self, params: Tree, video: Float[Array, 'b t h w 3']
  ) -> Float[Array, 'b u i j c']:
    return encode(self.model, params, video)

  def _decode_clip(
    self, params: Tree, latents: Float[Array, 'b t h w c']
  ) -> Float[Array, 'b u i j 3']:
    return decode(self.model, params, latents)
