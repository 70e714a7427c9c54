"""Patches: latents to tokens and back (Movie Gen §3.1.3)."""

import einops

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float

Patch = tuple[int, int, int]


def grid(shape: tuple[int, ...], patch: Patch) -> Patch:
  """Returns the patches along t, h, w of (b t h w c); ConfigError if sizes do not divide."""
  sizes = shape[1:4]
  if any(size % step for size, step in zip(sizes, patch, strict=True)):
    raise ConfigError(f'latents of (t, h, w) = {sizes} do not divide into patches of {patch}')
  t, h, w = (size // step for size, step in zip(sizes, patch, strict=True))
  return t, h, w


def patchify(x: Float[Array, 'b t h w c'], patch: Patch) -> Float[Array, 'b n p']:
  """Cuts latents into patches, ordered by t, then h, then w.

  With the linear map that follows, this is the paper's 3D convolution with kernel = stride =
  (1, 2, 2); n = t h w / 4, e.g. 32 x 96 x 96 latents -> 73,728 tokens.
  """
  grid(x.shape, patch)
  t, h, w = patch
  return einops.rearrange(x, 'b (t dt) (h dh) (w dw) c -> b (t h w) (dt dh dw c)', dt=t, dh=h, dw=w)


def unpatchify(x: Float[Array, 'b n p'], sizes: Patch, patch: Patch) -> Float[Array, 'b t h w c']:
  """Inverts `patchify`; `sizes` is the grid of patches along t, h, w."""
  (t, h, w), (dt, dh, dw) = sizes, patch
  return einops.rearrange(
    x, 'b (t h w) (dt dh dw c) -> b (t dt) (h dh) (w dw) c', t=t, h=h, w=w, dt=dt, dh=dh, dw=dw
  )
