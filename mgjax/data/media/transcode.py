"""Re-encodes videos: other frames with the sound of a file, more key frames, or a cut.

A clip is read from the key frame before it on, and its frames are decoded at the size they have.
Reading a few frames from a clip of 720p takes 244 ms of one core with a single key frame. It takes
131 ms with a key frame every 16 frames, and much less if the video was shrunk as well.
"""

import contextlib
import fractions
import functools
import io
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator

import av

from mgjax.core.errors import DataError
from mgjax.core.files import replaced
from mgjax.data.media.audio import Copied, encodable_rate, probe_audio, soundtrack, stream_audio
from mgjax.data.media.containers import (
  LIMITS,
  Blob,
  File,
  Limits,
  moving_pictures,
  open_container,
  opened,
  video_stream,
)
from mgjax.data.media.frame_times import TOLERANCE, frames_from
from mgjax.data.media.video import (
  Timed,
  add_pictures,
  decode_all,
  encode_frames,
  encoded,
  make_resize,
  orientation,
  pixel_aspect,
  probe,
  stream_frames,
  upright_size,
)

_CLOCK = 90_000  # ticks a second, a multiple of the usual frame rates
_FINE_CLOCK = 120_000  # of 24000 / 1001 too, and of the milliseconds of Matroska
_MOST_TICKS = 2**31 - 1  # a second, of the clock of an mp4
_log = logging.getLogger(__name__)


def write_frames(
  path: str | os.PathLike[str],
  frames: Iterable[Timed],
  *,
  fps: float,
  clock: fractions.Fraction | int = _FINE_CLOCK,
  crf: float,
  sound_of: File | None = None,
) -> None:
  """Writes an mp4 of frames as they come, and the sound of a file copied beside them, atomically.

  Memory does not grow with the number of frames. The sound of `sound_of`, whose first frame belongs
  to second 0 of `frames`, is copied packet by packet; a stream that mp4 cannot hold is left out,
  with a warning. Where the sound begins before the first frame, that frame is shown later by as
  much. Times are rounded to `clock` ticks a second; `fps`, `crf` and `frames` are those of
  `encode_frames`.
  Raises DataError if there is no frame, a side is too long, or the sound cannot be read.
  """
  frames = iter(frames)
  first = next(frames, None)
  if first is None:
    raise DataError(f'{path}: there is no frame to write')
  with contextlib.ExitStack() as stack:
    sounds = []
    lead = fractions.Fraction(0)
    if sound_of is not None:
      sounds, lead = _sounds(sound_of, stack)
    # In whole ticks of every sound, or an edit list would move it by a part of a sample.
    ticks = math.lcm(1000, *(sound.source.time_base.denominator for sound in sounds))
    options = {'movie_timescale': str(ticks if ticks <= _MOST_TICKS else _FINE_CLOCK)}
    temporary = str(stack.enter_context(replaced(path)))
    target = stack.enter_context(av.open(temporary, 'w', format='mp4', options=options))
    stream = add_pictures(target, fps=fps, clock=clock, crf=crf)
    for sound in sounds:
      sound.join(target)
    later = ((s + lead, e + lead, frame) for s, e, frame in itertools.chain([first], frames))
    for packet in encoded(stream, later):
      until = float((packet.dts or 0) * packet.time_base)
      target.mux(packet)
      _copy(sound_of, sounds, until)
    _copy(sound_of, sounds)


def _copy(path: File | None, sounds: list[Copied], until: float | None = None) -> None:
  try:
    for sound in sounds:
      sound.copy(until)
  except (av.error.ArgumentError, av.error.InvalidDataError) as error:
    raise DataError(
      f'{path}: its sound cannot be copied into an mp4 ({error.strerror}); convert it to AAC first'
    ) from error


def _sounds(path: File, stack: contextlib.ExitStack) -> tuple[list[Copied], fractions.Fraction]:
  """The audio of a file that mp4 can hold, and by how much the first track precedes a frame."""

  def source() -> av.container.InputContainer:
    return stack.enter_context(open_container(path, LIMITS, 'a video'))

  container = source()
  streams = [stream for stream in container.streams.audio if _holds(path, stream)]
  starts = [
    (stream.start_time or 0) * (stream.time_base or fractions.Fraction(0))
    for stream in (*moving_pictures(container)[:1], *streams)
  ]
  picture = starts[0] if starts else fractions.Fraction(0)
  zero = min(starts, default=0)
  # Each opened by itself: one that is far ahead of another in the file fills no memory.
  copies = []
  for stream in streams:
    own_container = source()
    copies.append(Copied(path, own_container, own_container.streams[stream.index], zero))
  return copies, picture - zero


def _holds(path: File, sound: av.AudioStream) -> bool:
  """Whether an mp4 can hold a sound; warns if it cannot."""
  try:
    with av.open(io.BytesIO(), 'w', format='mp4') as trial:
      trial.add_stream_from_template(sound)
      trial.start_encoding()
  except (av.error.FFmpegError, ValueError, AttributeError):
    codec = sound.codec_context.name if sound.codec_context else 'unknown'
    _log.warning(
      '%s: its sound %d, %s, is left out, since mp4 cannot hold it; convert it to AAC first',
      path,
      sound.index,
      codec,
    )
    return False
  return True


def reencode(
  file: File,
  *,
  gop: int = 16,
  crf: float = 20,
  side: int = 0,
  deinterlace: bool = False,
  limits: Limits = LIMITS,
) -> bytes:
  """Returns an H.264 mp4 of a video: upright, square pixels, a key frame every `gop` frames.

  Each frame is kept, at its time; a shorter side longer than `side` is shrunk to it (0 keeps it).
  `deinterlace` makes one whole frame of the two fields of each.
  The sound is kept as AAC, with one or two channels; sound that cannot be decoded is left out. A
  lower `crf`, the constant rate factor of x264, is better and larger.
  Raises DataError if a frame cannot be decoded, or it is beyond `limits`.
  """
  limits = limits.begun()
  fps = probe(file, limits).fps
  pictures = encode_frames(
    stream_frames(file, side, limits, deinterlace=deinterlace),
    fps=fps,
    clock=_CLOCK,
    crf=crf,
    gop=gop,
  )
  return _with_sound(file, pictures, 0.0, None, limits)


def cut_video(
  file: File,
  start: float,
  end: float,
  *,
  gop: int = 16,
  crf: float = 20,
  anew: bool = False,
  limits: Limits = LIMITS,
) -> tuple[bytes, bool]:
  """Returns an mp4 of the frames first shown in [start, end), and whether they were copied.

  Both are seconds from the first frame. Pictures are copied as they are encoded if a key frame is
  the first of them and none of them refers to frames outside. Otherwise, or if `anew`, they are
  encoded with `gop` and `crf` as in `reencode`. The audio, as AAC with one or two channels, is cut
  at the same moments; audio that cannot be decoded is left out.
  Raises DataError if no frame is there, one cannot be decoded, or the file is beyond `limits`.
  """
  limits = limits.begun()
  copied = None if anew else _copied_pictures(file, start, end, limits)
  pictures = copied
  if pictures is None:
    fps = probe(file, limits).fps
    frames = _frames_between(file, start, end, limits)
    pictures = encode_frames(frames, fps=fps, clock=_FINE_CLOCK, crf=crf, gop=gop)
  return _with_sound(file, pictures, start, end - start, limits), copied is not None


def _with_sound(
  file: File, pictures: bytes, start: float, seconds: float | None, limits: Limits
) -> bytes:
  """Adds the sound of a file from `start` on, if there is any, to pictures that begin there."""
  try:
    sound = probe_audio(file, limits)
    rate = encodable_rate(sound.rate)
    channels = min(sound.channels, 2)
    chunks = stream_audio(
      file, rate=rate, channels=channels, limits=limits, start=start, length=seconds
    )
    return soundtrack(Blob(str(file), pictures), chunks, rate)
  except DataError:
    return pictures


def _copied_pictures(file: File, start: float, end: float, limits: Limits) -> bytes | None:
  """Returns an mp4 of the unchanged packets; None if it would not hold exactly those frames."""
  with opened(file, limits, 'a video', video_stream) as (source, stream, deadline):
    frame = next(source.decode(stream), None)
    # Players turn it, which is told beside the packets.
    if frame is None or orientation(frame) != (0, 1):
      return None
    check = functools.partial(limits.check_time, file, deadline)
    if (packets := _packets_between(source, stream, start, end, check)) is None:
      return None
    buffer = io.BytesIO()
    zero = packets[0].pts
    try:
      with av.open(buffer, 'w', format='mp4') as target:
        pictures = target.add_stream_from_template(stream)
        for packet in packets:
          packet.pts, packet.dts = packet.pts - zero, packet.dts - zero
          packet.stream = pictures
          target.mux(packet)
    except (av.error.FFmpegError, ValueError):  # mp4 cannot hold them
      return None
  data = buffer.getvalue()
  try:
    is_complete = decode_all(Blob(str(file), data), limits) == len(packets)
  except DataError:
    return None
  return data if is_complete else None


def _packets_between(
  source: av.container.InputContainer,
  stream: av.VideoStream,
  start: float,
  end: float,
  check: Callable[[], None],
) -> list[av.Packet] | None:
  """The packets of the frames from `start` to `end`, if no other is among them or is needed."""

  def seconds(stamp: int) -> float:
    return float((stamp - (stream.start_time or 0)) * stream.time_base)

  source.seek((stream.start_time or 0) + int(start / stream.time_base), stream=stream)
  packets = []
  has_later = False
  for packet in source.demux(stream):
    check()
    if not packet.size:
      break
    if packet.pts is None or packet.dts is None or packet.is_corrupt:
      return None
    time = seconds(packet.pts)
    if packets and seconds(packet.dts) >= end - TOLERANCE:  # none after it is shown before
      break
    if start - TOLERANCE <= time < end - TOLERANCE:
      if has_later or (not packets and (not packet.is_keyframe or time > start + TOLERANCE)):
        return None
      packets.append(packet)
    elif packets and time < start:
      return None
    else:
      has_later = has_later or time >= end - TOLERANCE
  return packets or None


def _frames_between(file: File, start: float, end: float, limits: Limits) -> Iterator[Timed]:
  """The frames that are first shown from `start` on and before `end`, upright, times from 0 on."""
  with opened(file, limits, 'a video', video_stream) as (source, stream, deadline):
    resize = None
    zero = None
    for frame, time, until in frames_from(source, stream, start):
      limits.check_time(file, deadline)
      if time >= end - TOLERANCE:
        break
      if time < start - TOLERANCE:
        continue
      if resize is None:
        size = upright_size(file, frame, stream)
        zero = time
        resize = make_resize(file, pixel_aspect(stream), size, limits)
      yield time - zero, min(until, end) - zero, resize(frame)
  if resize is None:
    raise DataError(f'{file}: shows no frame from {start:.2f} s to {end:.2f} s')
