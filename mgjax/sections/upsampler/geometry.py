"""Windows of time and tiles of space, and the sizes that there are (Movie Gen §3.1.5)."""

import dataclasses
from collections.abc import Sequence

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Count, fields_of, unpack
from mgjax.flow.windows import Cover, windows

_LARGEST = 16_384  # pixels of a side, for H.264
MOST_PIXELS = 139_264 * 16**2  # of a frame, in the largest level of H.264, 6.2
CHUNK = 8  # frames that the autoencoder gets at a time


@dataclasses.dataclass(frozen=True)
class Windows(Checked):
  """`config.windows`: how what is larger than the clips of training is made.

  Attributes:
    overlap: frames that windows share; 4 of 14 in the paper.
    feather: pixels that tiles share. Not in public sources.
  """

  overlap: Count = 4
  feather: Count = 64

  @classmethod
  def of(cls, fields: Fields) -> 'Windows':
    """Reads `windows` of a configuration as a plain dictionary."""
    return unpack(cls, fields_of(fields, 'windows'), 'windows')


def frame_covers(
  size: tuple[int, int],
  crop: tuple[int, int],
  *,
  feather: int,
  compression: Sequence[int],
  patch: Sequence[int],
) -> tuple[Cover, Cover]:
  """Returns the tiles of rows and columns that cover a frame, filled up to patches, in latents.

  Args:
    size: height and width in pixels.
    crop: those of a tile at the most, what the model was trained on.
    feather: pixels that tiles share.
    compression: pixels of a latent, (t, h, w).
    patch: latents of a token, (t, h, w).

  Raises:
    ConfigError: the size is none that can be made.
  """
  check_size(size)
  covers = []
  for length, most, step, unit in zip(size, crop, compression[1:], patch[1:], strict=True):
    padded = -(-length // (step * unit)) * unit
    tile = min(padded, most // step)
    covers.append(windows(padded, tile, min(feather // step, tile // 2)))
  return covers[0], covers[1]


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
  """Returns height and width `scale` times as large, rounded."""
  height, width = (max(1, round(side * scale)) for side in size)
  return height, width


def check_size(size: tuple[int, int]) -> None:
  """Raises ConfigError if H.264 has no frames of this height and width."""
  height, width = size
  if not 1 <= min(size) <= max(size) <= _LARGEST or height * width > MOST_PIXELS:
    raise ConfigError(
      f'a video of {width} x {height} pixels; expected 1 to {_LARGEST} on a side and {MOST_PIXELS} '
      'in all at most, what H.264 holds'
    )
