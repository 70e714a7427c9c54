"""Reads the texture of a moving digit back from pixels: stripes, bars or checks of one pixel of 64.

The clip is brought to 64 pixels on its shorter side and projected on the colour of what stands out
of it. Of every 2 x 2 pixels a b / c d inside the digit there are

  M = (a + b + c + d) / 4          V = (a + b - c - d) / 4
  H = (a - b + c - d) / 4          D = (a - b - c + d) / 4

and sum V^2 / sum M^2 is large for stripes, that of H for bars, that of D for checks: whatever the
phase of the texture, and frame by frame, so that motion does no harm.
"""

import numpy as np
from scipy.ndimage import uniform_filter

from mgjax.core.resize import averaging
from mgjax.core.typing import Float, UInt8

FINE = 64  # shorter side at which textures have stripes of one pixel
_INSIDE = 0.8  # of the brightness of all but 1% of 2 x 2 pixels, that those inside the digit reach
_PATCH = 5  # pixels of 64 a side, over which a texture has one phase
_LEAST = 0.07  # a share of the energy that makes a texture; a rendered one has 0.29

_Plane = Float[np.ndarray, 't y x']


def read_texture(video: UInt8[np.ndarray, 't h w 3']) -> str:
  """Returns 'striped', 'barred' or 'checked', or '' if none of them stands out."""
  return _texture(*_waves(video))


def texture_phase(video: UInt8[np.ndarray, 't h w 3']) -> float:
  """Returns how much the phase of the texture, seen from the digit, jumps from frame to frame.

  A digit with sharp edges moves by whole pixels of 64, and its texture with it. So the wave w of
  the texture (V, H or D at the top of the file) times its sign is the same in all frames. The sign
  is (-1)^y, (-1)^x or (-1)^(x + y), counted from the digit's corner. Of its means over 5 x 5
  pixels,

    sum_t |w_t+1 - w_t| / sum_t (|w_t+1| + |w_t|)

  inside the digit of both frames: 0 where the phase stays, 0.5 where it is random in each frame,
  1 where it turns each time. NaN where no texture can be read, and of one frame. The corner is
  found from where the digit's light is, which may err by a pixel in noise or where the phase jumps.
  """
  mean, inside, waves = _waves(video)
  texture = _texture(mean, inside, waves)
  if not texture or len(video) < 2:
    return float('nan')
  coordinates = np.indices(mean.shape[1:], np.float64)
  light = mean * inside
  positions = np.einsum('thw,ahw->ta', light, coordinates) / light.sum((1, 2))[:, None].clip(1e-6)
  moves = np.rint(positions - positions[0]).astype(int)
  # Every frame is moved back to where the digit was in the first, where signs are alike.
  wave, within = (
    np.stack([np.roll(frame, -move, (0, 1)) for frame, move in zip(values, moves, strict=True)])
    for values in (waves[texture], inside)
  )
  y, x = coordinates.astype(int)
  sign = {'striped': y, 'barred': x, 'checked': y + x}[texture] % 2 * -2 + 1
  both = within[1:] & within[:-1]
  before, after = (
    uniform_filter(both * part * sign, _PATCH, axes=(1, 2)) * both for part in (wave[:-1], wave[1:])
  )
  total = np.sum(np.abs(after) + np.abs(before))
  return float(np.sum(np.abs(after - before)) / total) if total else float('nan')


def _waves(video: UInt8[np.ndarray, 't h w 3']) -> tuple[_Plane, np.ndarray, dict[str, _Plane]]:
  """M, where it is inside the digit, and four times V, H and D by the textures that they show."""
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
  return mean, inside, waves


def _texture(mean: _Plane, inside: np.ndarray, waves: dict[str, _Plane]) -> str:
  energies = {name: float(np.sum((wave[inside] / 4) ** 2)) for name, wave in waves.items()}
  best = max(energies, key=lambda name: energies[name])
  return best if energies[best] > _LEAST * float(np.sum(mean[inside] ** 2)) else ''
