"""Finds which frames of a video are shown at given times, decoding from a time on.

Times are seconds after the file's first frame; a frame is shown until the next one is.
"""

import bisect
from collections.abc import Callable, Iterator, Sequence

import av

TOLERANCE = 5e-4  # seconds; Matroska rounds the times of frames to a millisecond

Shown = tuple[av.VideoFrame, float, float]  # a frame, from when and until when it is shown


def frames_from(
  container: av.container.InputContainer, stream: av.VideoStream, begin: float
) -> Iterator[Shown]:
  """Yields each frame from the key frame before `begin` on."""
  last = None
  start = 0.0
  for seconds, frame in _timed(container, stream, begin):
    if last is not None:
      yield last, start, seconds
    last, start = frame, seconds
  if last is not None:
    yield last, start, start + _seconds(last, stream)


def frames_at(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  moments: Sequence[float],
  begin: float,
  most: int,
  check: Callable[[], None] = lambda: None,
) -> Iterator[Shown]:
  """Yields, perhaps among others, the frames shown at ascending `moments`, and decodes few others.

  Packets' time stamps, which cost nothing to read, tell which they are; reference frames before the
  last of them are decoded, others only if wanted. `begin` is at or before the first moment, `most`
  the packets to look at, and `check` is called before each packet to raise when time is up.
  """
  # At the beginning of a file there is little to pass over, and not all can be read twice.
  ends = _find(container, stream, moments, begin, most, check) if begin else None
  if ends is None:
    yield from frames_from(container, stream, begin)
    return
  _seek(container, stream, begin)
  context = stream.codec_context
  missing = set(ends)
  for packet in container.demux(stream):
    check()
    context.skip_frame = 'DEFAULT' if packet.pts in ends else 'NONREF'
    missing.discard(packet.pts)
    frames = packet.decode()
    if not missing and packet.size:
      frames += context.decode(None)
    for frame in frames:
      if frame.pts in ends:
        start = _since_first(frame.pts, stream)
        end = ends[frame.pts]
        yield frame, start, start + _seconds(frame, stream) if end is None else end
    if not missing:
      return


def _find(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  moments: Sequence[float],
  begin: float,
  most: int,
  check: Callable[[], None],
) -> dict[int, float | None] | None:
  """Time stamps of the frames on show at `moments` -> when the next frame is shown (None: no next).

  None where packets lack time stamps, or are too many.
  """
  _seek(container, stream, begin)
  stamps = []
  for packet in container.demux(stream):
    check()
    if not packet.size:
      break
    if packet.pts is None or packet.dts is None or len(stamps) == most:
      return None
    if not packet.is_discard:
      stamps.append(packet.pts)
    # No packet after this one is shown before it is decoded.
    if _since_first(packet.dts, stream) > moments[-1]:
      break
  stamps.sort()
  starts = [_since_first(stamp, stream) for stamp in stamps]
  indices = {max(bisect.bisect_right(starts, moment) - 1, 0) for moment in moments}
  ends = [*starts[1:], None]
  return {stamps[index]: ends[index] for index in sorted(indices)} if stamps else None


def _timed(
  container: av.container.InputContainer, stream: av.VideoStream, begin: float
) -> Iterator[tuple[float, av.VideoFrame]]:
  """Decodes from the key frame before `begin`: (seconds after the file's first frame, frame)."""
  if begin:
    _seek(container, stream, begin)
  following = begin
  for frame in container.decode(stream):
    seconds = following if frame.pts is None else _since_first(frame.pts, stream)
    following = seconds + _seconds(frame, stream)
    yield seconds, frame


def _since_first(stamp: int, stream: av.VideoStream) -> float:
  return float((stamp - (stream.start_time or 0)) * stream.time_base)


def _seek(container: av.container.InputContainer, stream: av.VideoStream, seconds: float) -> None:
  container.seek((stream.start_time or 0) + int(seconds / stream.time_base), stream=stream)


def _seconds(frame: av.VideoFrame, stream: av.VideoStream) -> float:
  """How long a frame says that it is shown."""
  if frame.duration:
    return float(frame.duration * stream.time_base)
  return float(1 / (stream.average_rate or stream.guessed_rate or 25))
