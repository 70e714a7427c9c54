"""Makes copies of videos, pictures and audio that are small enough to embed in a page."""

import io
import itertools
import pathlib
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.media.video import encode_frames, probe, stream_clip

SMALL = 384 * 1024  # bytes of a file that goes on a page as it is
_SIDE = 192  # pixels of the shorter side of one that shrinks
_FPS = 12
_SECONDS = 5
_CRF = 28
_PLAYED = {'.mp4': ('h264', 'av1', 'vp9'), '.webm': ('vp8', 'vp9', 'av1')}  # by browsers
_SEEN = {'.png': 'image/png', '.webp': 'image/webp', '.jpg': 'image/jpeg', '.gif': 'image/gif'}


def preview(path: pathlib.Path) -> tuple[str, bytes] | None:
  """Returns the MIME type and the bytes of a file, or of a smaller copy of it.

  A copy has at most 192 pixels on its shorter side, few frames a second, the first 5 seconds and no
  sound. None for a file that is missing or cannot be read, or a sound that is too long.
  """
  kind = path.suffix.lower()
  try:
    small = path.stat().st_size <= SMALL
    if kind == '.wav':
      return ('audio/wav', path.read_bytes()) if small else None
    if kind in _SEEN and small:
      return _SEEN[kind], path.read_bytes()
    if kind in _PLAYED and small and _codec(path) in _PLAYED[kind]:
      return f'video/{kind[1:]}', path.read_bytes()
    return _picture(path) if kind in ('.png', '.webp', '.jpg') else _video(path)
  except (OSError, DataError, ValueError, Image.DecompressionBombError, av.error.FFmpegError):
    return None


def _codec(path: pathlib.Path) -> str:
  with av.open(path) as container:
    streams = container.streams.video
    played = streams and streams[0].codec_context.pix_fmt == 'yuv420p'
    return streams[0].codec_context.name.removeprefix('lib') if played else ''


def _video(path: pathlib.Path) -> tuple[str, bytes]:
  info = probe(path)
  scale = min(1.0, _SIDE / min(info.height, info.width))
  fps = min(info.fps, _FPS)
  size = (max(round(info.height * scale), 1), max(round(info.width * scale), 1))
  stream = stream_clip(path, size=size, fps=fps)
  frames = list(itertools.islice(stream, max(round(fps * _SECONDS), 1)))
  if len(frames) == 1:
    return _as_png(Image.fromarray(np.ascontiguousarray(frames[0])))
  rate = Fraction(fps).limit_denominator(1001)
  timed = ((n / rate, (n + 1) / rate, frame) for n, frame in enumerate(frames))
  return 'video/mp4', encode_frames(timed, fps=fps, clock=rate, crf=_CRF)


def _picture(path: pathlib.Path) -> tuple[str, bytes]:
  with Image.open(path) as image:
    image.thumbnail((2 * _SIDE, 2 * _SIDE))
    return _as_png(image.convert('RGB'))


def _as_png(image: Image.Image) -> tuple[str, bytes]:
  buffer = io.BytesIO()
  image.save(buffer, 'PNG')
  return 'image/png', buffer.getvalue()
