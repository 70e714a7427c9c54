"""Reads the texture of a moving digit back from pixels: stripes, bars or checks of one pixel of 64.

The clip is brought to 64 pixels on its shorter side and projected on the colour of what stands out
of it. Of every 2 x 2 pixels a b / c d inside the digit there are

  M = (a + b + c + d) / 4          V = (a + b - c - d) / 4
  H = (a - b + c - d) / 4          D = (a - b - c + d) / 4

and sum V^2 / sum M^2 is large for stripes, that of H for bars, that of D for checks: whatever the
phase of the texture, and frame by frame, so that motion does no harm.
"""

import numpy as np

from mgjax.core.resize import averaging
from mgjax.core.typing import UInt8

FINE = 64  # shorter side at which textures have stripes of one pixel
_INSIDE = 0.8  # of the brightness of all but 1% of 2 x 2 pixels, that those inside the digit reach
_LEAST = 0.07  # a share of the energy that makes a texture; a rendered one has .29


def read_texture(video: UInt8[np.ndarray, 't h w 3']) -> str:
  """Returns 'striped', 'barred' or 'checked', or '' if none of them stands out."""
  sides = [round(FINE * length / min(video.shape[1:3])) for length in video.shape[1:3]]
  rows, columns = (averaging(*pair) for pair in zip(video.shape[1:3], sides, strict=True))
  planes = rows @ (np.moveaxis(video, -1, 1).astype(np.float32) / 255) @ columns.T  # t c h w
  above = planes - np.median(planes, axis=(0, 2, 3), keepdims=True)
  brightest = above * (above.sum(1, keepdims=True) > 0.5 * above.sum(1).max())
  colour = brightest.sum((0, 2, 3))
  digit = np.einsum('tchw,c->thw', above, colour / max(float(np.linalg.norm(colour)), 1e-6))
  a, b, c, d = (
    digit[:, i : i + sides[0] - 1, j : j + sides[1] - 1] for i in (0, 1) for j in (0, 1)
  )
  mean = (a + b + c + d) / 4
  inside = mean > _INSIDE * np.quantile(mean, 0.99)
  waves = {'striped': a + b - c - d, 'barred': a - b + c - d, 'checked': a - b - c + d}
  energies = {name: float(np.sum((wave[inside] / 4) ** 2)) for name, wave in waves.items()}
  best = max(energies, key=lambda name: energies[name])
  return best if energies[best] > _LEAST * float(np.sum(mean[inside] ** 2)) else ''
