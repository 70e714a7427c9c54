"""Reads photographs and frames of clips in which faces are looked for."""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mgjax.core.errors import DataError
from mgjax.data.media.containers import AGAIN, LIMITS, File, Limits, readable_input
from mgjax.data.media.faces.face import Frame
from mgjax.data.media.frame_pixels import opaque_picture
from mgjax.data.media.video import stream_frames

SIDE = 1080  # pixels that the shorter side of a picture is shrunk to
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'AVIF')
# Photographs are larger than frames of clips: these limits let 134 million pixels pass.
PHOTOGRAPHS = dataclasses.replace(LIMITS, pixels=2**27)
_WIDE = ('I;16', 'I;16L', 'I;16B', 'I')  # modes of 16 bits a pixel


def read_picture(path: File, side: int = SIDE, limits: Limits = PHOTOGRAPHS) -> Frame:
  """Reads a photograph, or the first frame of an animation or a video: upright, uint8 (h w 3).

  The shorter side is shrunk to `side` pixels if it is longer. Pillow reads it, which handles EXIF
  orientations, CMYK and files that are cut off.
  Raises DataError if the file cannot be used.
  """
  source = readable_input(path, 'a picture')
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of its own limit on pixels, and of damaged tags
      with Image.open(source, formats=_FORMATS) as image:
        return _upright(path, image, side, limits)
  except UnidentifiedImageError:
    return next(stream_frames(path, side, limits))[2]
  except Image.DecompressionBombError:
    raise DataError(f'{path}: is far too large, more than {limits.pixels} pixels') from None
  except (OSError, ValueError, SyntaxError, EOFError, MemoryError, LookupError) as error:
    reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
    raise DataError(
      f'{path}: is a picture that is damaged or cut off ({reason}); {AGAIN}'
    ) from error


def _upright(path: File, image: Image.Image, side: int, limits: Limits) -> Frame:
  width, height = image.size
  if width * height > limits.pixels:
    raise DataError(f'{path}: has {width} x {height}, more than {limits.pixels} pixels; shrink it')
  scale = side / min(width, height)
  smaller = tuple(max(1, round(scale * length)) for length in (width, height))
  if scale < 1:
    image.draft('RGB', smaller)  # a JPEG is decoded at a half, a quarter or an eighth
  orientation = image.getexif()
  if image.mode in _WIDE:
    numbers = np.asarray(image).astype(np.float64) / 257
    image = Image.fromarray(np.clip(np.rint(numbers), 0, 255).astype(np.uint8))
    image.getexif().update(orientation)
  if scale < 1:
    image = opaque_picture(image).resize(smaller, Image.Resampling.BOX)
    image.getexif().update(orientation)
  return np.asarray(opaque_picture(ImageOps.exif_transpose(image)))


def sample_frames(path: File, rate: float) -> Iterator[tuple[float, Frame]]:
  """Yields `rate` frames of each second of a video, with the times at which they are shown.

  The first is in the middle of its part of the first second. A video that ends before gives its
  first frame. The shorter side is shrunk to `SIDE` pixels if it is longer.
  Raises DataError if the file cannot be used.
  """
  frames = stream_frames(path, SIDE)
  first = next(frames)
  count = 0
  for start, end, frame in itertools.chain([first], frames):
    while (time := (count + 0.5) / rate) < end:
      if time >= start:
        yield time, frame
      count += 1
  if not count:
    yield first[0], first[2]
