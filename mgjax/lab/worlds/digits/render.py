"""Draws scenes of digits at any size and number of frames: pictures, masks, geometry.

A frame is B (1 - A) + C L A, with background B, opacity A, colour C and texture L of the digit. For
'soft', L is 1 and A is 8 samples of handwriting a side, linearly interpolated. Such an image has no
detail, and bicubic upsampling restores it. Otherwise A is that handwriting cut at 0.45 of full
opacity. L is then 1 or 0.3 stripe by stripe, or 0.65 everywhere for 'sharp', averaged over every
pixel. A stripe is one pixel of a frame of 64 and half a pixel of one of 32, where all
textures are therefore the same grey.
"""

from typing import Any

import numpy as np

from mgjax.core.resize import averaging
from mgjax.core.typing import Float, UInt8
from mgjax.lab.worlds.digits.handwriting import image_of
from mgjax.lab.worlds.digits.scene import COLOURS, GRID, TINTS, Scene, corners

PITCH = 7  # samples from one digit to the next: one less than a digit has, as its margins are empty
_INK = 0.45  # of full opacity, from which on handwriting is ink; no sample lies on it exactly
_FINE = 16  # samples a pixel of a frame of 32, of what has sharp edges
_DARK, _BRIGHT = 0.3, 1.0  # what textures multiply a colour by
_MEAN = (_DARK + _BRIGHT) / 2
LAYER = 0.3  # opacity of a mark: too little to be taken for the digit
_TILE = 4  # side of a tile of a mosaic, pixels of a frame of 32


def render(scene: Scene, frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, 't h w 3']:
  """Returns the clip of a scene, of so many frames of `size` (height, width) in pixels."""
  opacity, light = _ink(scene, frames, size)
  behind = _background(scene, size)
  layer = np.float32(LAYER) * box(scene, frames, size) if scene.mark else None
  video = np.empty((*opacity.shape, 3), np.uint8)
  # By plane: twice as fast as broadcasting.
  for channel, brightness in enumerate(COLOURS[scene.colour]):
    plane = behind[..., channel]
    mixed = opacity * (light * np.float32(brightness) - plane) + plane
    if layer is not None:
      mixed += layer * (np.float32(COLOURS[scene.mark][channel]) - mixed)
    video[..., channel] = mixed * np.float32(255) + np.float32(0.5)
  return video


def mask(scene: Scene, frames: int, size: tuple[int, int]) -> Float[np.ndarray, 't h w']:
  """Returns the opacity of the digit, in [0, 1]."""
  return _ink(scene, frames, size)[0]


def box(scene: Scene, frames: int, size: tuple[int, int]) -> Float[np.ndarray, 't h w']:
  """Returns how much of each pixel lies in the digit's box, in [0, 1]."""
  where = geometry(scene, frames, size)
  rows, columns = (
    np.clip(
      np.minimum(np.arange(length) + 1, (start + extent)[:, None])
      - np.maximum(np.arange(length), start[:, None]),
      0,
      1,
    ).astype(np.float32)
    for start, extent, length in (
      (where[:, 0], where[:, 2], size[0]),
      (where[:, 1], where[:, 3], size[1]),
    )
  )
  return rows[:, :, None] * columns[:, None]


def background(scene: Scene, size: tuple[int, int]) -> UInt8[np.ndarray, 'h w 3']:
  """Returns what is behind the digit, which stands still."""
  behind = np.broadcast_to(_background(scene, size), (*size, 3))
  return (behind * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def geometry(scene: Scene, frames: int, size: tuple[int, int]) -> Float[np.ndarray, 't 4']:
  """Returns y and x of the digit's upper left corner, and its height and width, in pixels."""
  scale = min(size) / 32
  height = scene.digit_size * scale
  width = height * (PITCH * len(scene.identities) + 1) / 8
  path = corners(scene, frames, np.array(size, np.float64) - [height, width], scale)
  return np.concatenate([path, np.broadcast_to([height, width], path.shape)], 1)


def written(identities: tuple[int, ...], turn: float = 0.0) -> Float[np.ndarray, '8 c']:
  """Returns the ink of handwriting, side by side, in [0, 1]; `turn` as of `Scene`."""
  image = np.zeros((8, PITCH * len(identities) + 1), np.float32)
  for index, identity in enumerate(identities):
    columns = slice(PITCH * index, PITCH * index + 8)
    image[:, columns] = np.maximum(image[:, columns], image_of(identity)[0])
  if turn:
    from scipy.ndimage import rotate  # 100 ms, which those who draw nothing need not wait for

    image = rotate(image, -turn, reshape=False, order=3).clip(0, 1)
  return image


def weighted(image: Float[np.ndarray, '*_ 8 c'], weight: Any) -> Float[np.ndarray, '*_ 8 c']:
  """Returns ink with bolder or thinner strokes, see `Scene.weight`."""
  return image ** np.float32(2.0**-weight) if np.any(weight) else image


def _handwriting(scene: Scene) -> Float[np.ndarray, '8 c']:
  return weighted(written(scene.identities, scene.turn), scene.weight)


def _ink(
  scene: Scene, frames: int, size: tuple[int, int]
) -> tuple[Float[np.ndarray, 't h w'], np.ndarray | np.float32]:
  """Returns the opacity of the digit, and the factor of its colour."""
  if scene.hidden:
    return np.zeros((frames, *size), np.float32), np.float32(1)
  where = geometry(scene, frames, size)
  image = _handwriting(scene)
  height, width = where[0, 2:]
  if scene.texture == 'soft':
    rows = stretching(where[:, 0], size[0], height, 8)
    columns = stretching(where[:, 1], size[1], height, image.shape[1])
    return rows @ image @ columns.transpose(0, 2, 1), np.float32(1)
  ink, lit = _sprite(scene)
  rows, columns = (
    np.clip((np.arange(length + 1) - start[:, None]) * (count / extent), 0, count)
    for start, length, extent, count in zip(where.T, size, (height, width), ink.shape, strict=False)
  )
  pixel = ink.shape[0] / height * ink.shape[1] / width  # samples in it
  opacity, lit = (_sums(samples, rows, columns) / pixel for samples in (ink, lit))
  return opacity, lit / np.maximum(opacity, np.float32(1e-6))


def stretching(
  start: Float[np.ndarray, 't'], length: int, digit_size: float, count: int
) -> Float[np.ndarray, 't h c']:
  """Weights that place samples, 8 of them stretched to `digit_size` pixels, at a sub-pixel place.

  `start` is that of the first of `count` samples, in pixels as `length`.
  """
  centres = np.arange(length, dtype=np.float32) + np.float32(0.5)
  position = (centres - start[:, None].astype(np.float32)) * np.float32(8 / digit_size)
  samples = np.arange(count, dtype=np.float32) + np.float32(0.5)
  return np.maximum(1 - np.abs(position[..., None] - samples), 0)


def _sums(
  samples: Float[np.ndarray, 'i j'],
  rows: Float[np.ndarray, 't y'],
  columns: Float[np.ndarray, 't x'],
) -> Float[np.ndarray, 't h w']:
  """Sums samples between edges of rows and of columns, one less than there are edges.

  Between samples their running sum, whose differences these are, is linear in the edge.
  """
  total = np.pad(samples.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
  total = _between(total, rows)  # t h j
  total = np.stack(
    [_between(frame.T, edges).T for frame, edges in zip(total, columns, strict=True)]
  )
  return np.diff(np.diff(total, axis=1), axis=2).astype(np.float32)


def _between(
  table: Float[np.ndarray, 'i j'], rows: Float[np.ndarray, '*b']
) -> Float[np.ndarray, '*b j']:
  below = np.minimum(rows.astype(np.int64), len(table) - 2)
  return table[below] + (rows - below)[..., None] * (table[below + 1] - table[below])


def _sprite(scene: Scene) -> tuple[Float[np.ndarray, 'i j'], Float[np.ndarray, 'i j']]:
  """Ink (0 or 1) and ink times its texture, finely sampled; see the top of the file."""
  image = _handwriting(scene)
  start = np.zeros(1)
  height, width = (round(_FINE * scene.digit_size * side / 8) for side in image.shape)
  rows, columns = (
    stretching(start, length, height, side)[0]
    for length, side in zip((height, width), image.shape, strict=True)
  )
  ink = (rows @ image @ columns.T > _INK).astype(np.float64)
  stripes, bars = (
    np.where((np.floor((np.arange(length) + 0.5) / (_FINE * GRID)) + parity) % 2, -1, 1)
    for length, parity in zip((height, width), scene.parity, strict=True)
  )
  wave = {
    'sharp': np.zeros((1, 1)),
    'striped': stripes[:, None],
    'barred': bars[None],
    'checked': np.outer(stripes, bars),
  }[scene.texture]
  return ink, ink * (_MEAN + (_BRIGHT - _MEAN) * wave)


def _background(scene: Scene, size: tuple[int, int]) -> Float[np.ndarray, '...']:
  """Dark enough that the digit stays the brightest thing in sight."""
  first, second = np.array(scene.shades, np.float32)
  if scene.background == 'tinted':  # shades are what walls of one tint differ by
    tint = np.array(TINTS[scene.tint], np.float32)
    first, second = (
      np.clip(tint + np.float32(0.4) * (shade - np.float32(0.125)), 0, 1)
      for shade in (first, second)
    )
    second = np.float32(0.6) * second
  if scene.background == 'black':
    return np.zeros(3, np.float32)
  if scene.background == 'coloured':
    return first
  if scene.background == 'gradient':
    slope = np.linspace(0, 1, size[1], dtype=np.float32)[:, None]
    return np.broadcast_to(first + slope * (second - first), (*size, 3))
  # The brightest tile is brighter than the darkest by 0.05 at least, whatever the shades.
  grid = [round(side * 32 / min(size) / _TILE) for side in size]
  share = np.random.default_rng(scene.tiles).uniform(size=grid).astype(np.float32)
  rows, columns = (averaging(*sides) for sides in zip(grid, size, strict=True))
  share = (rows @ share @ columns.T)[..., None]
  return np.float32(0.4) * ((1 - share) * first + share * second) + np.float32(0.15) * share
