"""Reads and writes video files; a file that cannot be used raises a one-line DataError.

`containers.py` opens files and bounds their cost. PyAV releases the interpreter's lock: threads are
enough to read many clips at once.
"""

import contextlib
import dataclasses
import fractions
import functools
import io
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from mgjax.core.errors import DataError
from mgjax.core.files import write_bytes
from mgjax.core.typing import UInt8
from mgjax.data.media.containers import (
  LIMITS,
  File,
  Limits,
  check_rate,
  measure,
  opened,
  video_stream,
)
from mgjax.data.media.frame_pixels import HDR, deinterlaced, opaque, standard_range
from mgjax.data.media.frame_times import TOLERANCE, frames_at, frames_from

SCALING = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
_LONGEST = 16_384  # pixels of a side, for x264
_EXACT = 0.1  # a difference in frame rates that is rounding, or the last frame's
_MOST_WIDE = 16  # times as wide as high a pixel may be
# The tree of macroblocks reads memory that nothing was written to, where x264 has AVX-512: the same
# frames gave other bytes now and then. Without it a file grows by -9% to 29%, with as much quality.
REPEATABLE = 'mbtree=0'
_BT709, _UNSPECIFIED = 1, 2  # the colour spaces' numbers in ITU-T H.273

# A frame, uint8 (h w 3), and the seconds from which and until which it is shown.
Timed = tuple[float | fractions.Fraction, float | fractions.Fraction, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ClipInfo:
  """A video as it is shown: turned upright, with square pixels; `frames` counts its packets."""

  width: int
  height: int
  fps: float
  seconds: float
  frames: int
  has_audio: bool
  interlaced: bool = False


def probe(path: File, limits: Limits = LIMITS) -> ClipInfo:
  """Describes a video after decoding its first frame and looking at the times of all packets.
  Raises DataError if the file is missing, not a video, damaged, cut off or beyond `limits`.
  """
  with opened(path, limits, 'a video', video_stream) as (container, stream, deadline):
    measured = measure(path, container, stream, limits, deadline)
    if not measured.frames:
      raise DataError(f'{path}: holds no frame that can be decoded')
    height, width = upright_size(path, measured.frames[0], stream)
    declared = float(stream.average_rate or stream.guessed_rate or 25)
    fps = check_rate(path, measured, declared, 'frames')
    return ClipInfo(
      width=width,
      height=height,
      fps=declared if abs(fps / declared - 1) < _EXACT else fps,
      seconds=measured.seconds,
      frames=measured.packets,
      has_audio=bool(container.streams.audio),
      interlaced=_is_interlaced(measured.frames[0], stream),
    )


def read_clip(
  path: File,
  *,
  frames: int,
  size: tuple[int, int],
  fps: float,
  start: float = 0.0,
  limits: Limits = LIMITS,
) -> UInt8[np.ndarray, 't h w 3']:
  """Reads the `frames` frames that are shown at the times start + i / fps, i = 0, 1, ...

  Frames are turned upright, resized to cover `size`, (height, width), with their shape kept (pixels
  that are not square made so) and cropped at the centre. Exact to the frame: it seeks to the key
  frame before second `start` and decodes from there. A still image is a video of one frame. Raises
  DataError as `probe`, or if the video ends too early.
  """
  if frames < 1 or fps <= 0 or start < 0 or min(size) < 1:
    raise ValueError(f'need frames, fps, size > 0, start >= 0: {frames}, {fps}, {size}, {start}')
  times = [start + i / fps for i in range(frames)]
  limits = limits.begun()
  clip = _read_from(path, times, start, size, limits)
  if clip is None:  # the seek landed after the first time: an index that lies, or none at all
    clip = _read_from(path, times, 0.0, size, limits)
  assert clip is not None
  return clip


def stream_clip(
  path: File, *, size: tuple[int, int], fps: float, limits: Limits = LIMITS
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """Yields one after another the frames that `read_clip` would return, to the end of the video.

  Each is decoded once and none is held, so neither their number nor the wall time is bounded.
  Raises DataError as `probe`, at the start or where the file is damaged.
  """
  with opened(path, limits, 'a video', video_stream) as (container, stream, _):
    count = 0
    resize = make_resize(path, pixel_aspect(stream), size, limits)
    for frame, _, end in frames_from(container, stream, 0.0):
      if end > limits.seconds:
        raise DataError(f'{path}: lasts {end:.0f} s, more than {limits.seconds:.0f} s')
      image = None
      while count / fps + TOLERANCE < end:
        image = resize(frame) if image is None else image
        yield image
        count += 1
  if not count:
    raise DataError(f'{path}: holds no frame that can be decoded')


def stream_frames(
  path: File,
  side: int = 0,
  limits: Limits = LIMITS,
  size: tuple[int, int] | None = None,
  deinterlace: bool = False,
) -> Iterator[tuple[float, float, UInt8[np.ndarray, 'h w 3']]]:
  """Yields every frame of a video: from when until when it is shown, and the frame.

  Times are seconds after the first frame; no call may last beyond `limits.until`. Frames are
  upright, with square pixels, and of full size, or brought to a `size` as by `read_clip`, or, where
  the shorter side is longer than `side`, shrunk to that and both sides made even. `deinterlace`
  makes one whole frame of the two fields of each. Raises DataError as `probe`, at the start or
  where the file is damaged.
  """
  with opened(path, limits, 'a video', video_stream) as (container, stream, _):
    resize = None
    timed_frames = frames_from(container, stream, 0.0)
    for count, (frame, start, end) in enumerate(
      deinterlaced(timed_frames) if deinterlace else timed_frames
    ):
      limits.check_time(path, limits.until)
      if count >= limits.frames:
        raise DataError(f'{path}: has over {limits.frames} frames; cut it into clips first')
      if resize is None:
        height, width = size or upright_size(path, frame, stream)
        if size is None and 0 < side < min(height, width):
          scale = side / min(height, width)
          height, width = (2 * max(1, round(length * scale / 2)) for length in (height, width))
        resize = make_resize(path, pixel_aspect(stream), (height, width), limits)
      yield start, end, resize(frame)
  if resize is None:
    raise DataError(f'{path}: holds no frame that can be decoded')


def decode_all(path: File, limits: Limits = LIMITS) -> int:
  """Decodes a whole video and returns its number of frames; DataError if one is damaged."""
  count = 0
  with opened(path, limits, 'a video', video_stream) as (container, stream, deadline):
    for frame in container.decode(stream):
      limits.check_time(path, deadline)
      if frame.is_corrupt:
        raise DataError(f'{path}: its frame {count} is damaged')
      count += 1
      if count > limits.frames:
        raise DataError(f'{path}: has over {limits.frames} frames; cut it into clips first')
  return count


def cover_size(
  height: float, width: float, size: tuple[int, int], limits: Limits = LIMITS
) -> tuple[int, int]:
  """The least (height, width) of the shape height : width that covers `size`.
  Raises DataError if the shape is so long that its resized frame is beyond `limits.pixels`.
  """
  scale = max(size[0] / height, size[1] / width)
  resized = max(size[0], round(height * scale)), max(size[1], round(width * scale))
  if math.prod(resized) > limits.pixels:
    raise DataError(
      f'its shape, {width:.0f} x {height:.0f}, is too long to be cut to {size[1]} x {size[0]}'
    )
  return resized


def write_video(
  path: str | os.PathLike[str], frames: UInt8[np.ndarray, 't h w 3'], fps: float, scale: int = 1
) -> None:
  """Writes an H.264 mp4 (BT.709, 4:2:0, near transparent) that any player opens, atomically.

  Each row and column is repeated `scale` times. An odd height or width grows by one repeated row or
  column, since 4:2:0 needs even ones.
  """
  frames = np.asarray(frames)
  if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
    raise ValueError(f'expected uint8 (t h w 3), got {frames.dtype} {frames.shape}')
  rate = fractions.Fraction(fps).limit_denominator(1001)
  scaled_frames = (frame.repeat(scale, 0).repeat(scale, 1) for frame in frames)
  times = ((i / rate, (i + 1) / rate, frame) for i, frame in enumerate(scaled_frames))
  write_bytes(path, encode_frames(times, fps=fps, clock=rate, crf=12))


def encode_frames(
  frames: Iterable[Timed],
  *,
  fps: float,
  clock: fractions.Fraction | int,
  crf: float,
  gop: int | None = None,
) -> bytes:
  """Encodes frames (second from which, second until which each is shown, uint8 (h w 3)) as an mp4.

  All have one size; one that is over before the next of the `clock`'s ticks a second is left out.
  `fps` is about how many come in a second, `crf` the constant rate factor of x264, and `gop` the
  most frames from one key frame to the next, by default 250. DataError if a side is too long.
  """
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format='mp4') as container:
    stream = add_pictures(container, fps=fps, clock=clock, crf=crf, gop=gop)
    for packet in encoded(stream, frames):
      container.mux(packet)
  return buffer.getvalue()


def add_pictures(
  container: av.container.OutputContainer,
  *,
  fps: float,
  clock: fractions.Fraction | int,
  crf: float,
  gop: int | None = None,
) -> av.VideoStream:
  """Adds a stream of H.264 to a file that nothing was written to yet; see `encode_frames`."""
  options = {'crf': f'{crf:g}', 'x264-params': REPEATABLE}
  options |= {} if gop is None else {'g': str(gop)}
  rate = fractions.Fraction(fps).limit_denominator(1001)
  stream = container.add_stream('libx264', rate=rate, options=options)
  stream.pix_fmt = 'yuv420p'
  context = stream.codec_context
  context.time_base = 1 / fractions.Fraction(clock)
  context.thread_count = 1 if gop else 0  # many clips at once beat many threads on one
  context.colorspace = context.color_primaries = context.color_trc = _BT709
  context.color_range = 1  # 16 to 235
  return stream


def encoded(stream: av.VideoStream, frames: Iterable[Timed]) -> Iterator[av.Packet]:
  """Yields the packets of frames, as these come; see `encode_frames`."""
  time_base = stream.codec_context.time_base
  last = -1
  lengths: dict[int, int] = {}  # of frames in the making, which packets do not tell by themselves

  def timed(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    for packet in packets:
      packet.duration = lengths.pop(packet.pts)
      yield packet

  for start, end, array in frames:
    tick = round(start / time_base)
    if tick <= last:
      continue
    height, width, _ = array.shape
    array = np.pad(array, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
    if last < 0:
      stream.height, stream.width = array.shape[:2]
      if max(array.shape) > _LONGEST:
        raise DataError(
          f'H.264 has no frames of {stream.width} x {stream.height}, only up to {_LONGEST} pixels'
        )
    last = tick
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array)).reformat(
      format='yuv420p', dst_colorspace='ITU709', dst_color_range='MPEG', interpolation=SCALING
    )
    frame.pts, frame.time_base = tick, time_base
    lengths[tick] = max(1, round(end / time_base) - tick)
    yield from timed(stream.encode(frame))
  yield from timed(stream.encode(None))


def _read_from(
  path: File, times: list[float], begin: float, size: tuple[int, int], limits: Limits
) -> UInt8[np.ndarray, 't h w 3'] | None:
  """The frames on show at `times`, decoded from `begin`; None if decoding began after the first."""
  clip = np.empty((len(times), *size, 3), np.uint8)
  filled = 0
  end = None
  with opened(path, limits, 'a video', video_stream) as (container, stream, deadline):
    resize = make_resize(path, pixel_aspect(stream), size, limits)
    moments = [time + TOLERANCE for time in times]
    check = functools.partial(limits.check_time, path, deadline)
    frames = frames_at(container, stream, moments, begin, limits.frames, check)
    for count, (frame, start, end) in enumerate(frames):
      if count == 0 and begin and start > times[0] + TOLERANCE:
        return None
      if count >= limits.frames:
        raise DataError(f'{path}: takes over {limits.frames} decoded frames to read')
      check()
      upto = filled
      while upto < len(times) and times[upto] + TOLERANCE < end:
        upto += 1
      if upto > filled:
        clip[filled + 1 : upto] = resize(frame, clip[filled])
      filled = upto
      if filled == len(times):
        return clip
  if end is not None:
    raise DataError(
      f'{path}: ends at {end:.2f} s, {times[-1]:.2f} s is needed for {len(times)} frames'
    )
  if begin:
    return None  # past the end, or a seek that went astray: reading from 0 tells which
  raise DataError(f'{path}: holds no frame that can be decoded')


def upright_size(path: File, frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
  """(height, width) of a frame as it is shown: upright, with square pixels."""
  size = (frame.height, round(frame.width * pixel_aspect(stream)))
  if not 0 < size[1] < _MOST_WIDE * frame.width:
    raise DataError(f'{path}: its pixels are said to have the shape {stream.sample_aspect_ratio}')
  return size[::-1] if orientation(frame)[0] % 2 else size


def _is_interlaced(frame: av.VideoFrame, stream: av.VideoStream) -> bool:
  return bool(frame.interlaced_frame or stream.codec_context.field_order > 1)  # 1: progressive


def side_data(frame: av.VideoFrame, name: str) -> Any:
  """What lies beside the pixels of a frame; None where PyAV fails, as it does at EXIF."""
  with contextlib.suppress(ValueError):
    return frame.side_data.get(name)


def orientation(frame: av.VideoFrame) -> tuple[int, int]:
  """Returns quarter turns to the left until a frame is upright, and the step between its rows: -1
  where they are read from below before, since it is mirrored too, else 1.
  """
  matrix = side_data(frame, 'DISPLAYMATRIX')
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist() if matrix else (1, 0, 0, 0, 1)
  return round(frame.rotation / 90), 1 if a * d >= b * c else -1


def pixel_aspect(stream: av.VideoStream) -> float:
  """Width over height."""
  return float(stream.sample_aspect_ratio or 1)


def make_resize(path: File, aspect: float, size: tuple[int, int], limits: Limits):
  """Returns frame -> uint8 (h w 3): upright, square pixels, covering `size`, cut at its centre.

  Its second argument, of that shape, is written to and returned.
  """
  reformatter = VideoReformatter()

  def resize(
    frame: av.VideoFrame, out: UInt8[np.ndarray, 'h w 3'] | None = None
  ) -> UInt8[np.ndarray, 'h w 3']:
    out = np.empty((*size, 3), np.uint8) if out is None else out
    turns, rows = orientation(frame)
    transfer, primaries = frame.color_trc, frame.color_primaries
    hdr = transfer in HDR
    frame = opaque(frame)
    target = size[::-1] if turns % 2 else size
    try:
      height, width = cover_size(frame.height, frame.width * aspect, target, limits)
    except DataError as error:
      raise DataError(f'{path}: {error}') from None
    large = frame.colorspace == _UNSPECIFIED and frame.height >= 720
    picture = reformatter.reformat(
      frame,
      width=width,
      height=height,
      format='gbrp16le' if hdr else 'gbrp',  # the same numbers as rgb24 in a third of the time
      interpolation=SCALING,
      src_colorspace='ITU709' if large else None,  # what players take an untagged HD video for
      threads=1,
    )
    crop_top = (height - target[0]) // 2
    crop_left = (width - target[1]) // 2
    pixels = np.empty(out.shape, np.uint16) if hdr else out
    for channel, plane in zip((1, 2, 0), picture.planes, strict=True):
      full = np.frombuffer(plane, pixels.dtype).reshape(-1, plane.line_size // pixels.itemsize)
      part = full[crop_top : crop_top + target[0], crop_left : crop_left + target[1]]
      pixels[..., channel] = np.rot90(part[::rows], turns)
    if hdr:
      out[...] = standard_range(pixels, transfer, primaries)
    return out

  return resize
