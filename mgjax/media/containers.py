"""Opens untrusted media with PyAV; every failure is a one-line DataError.

A file lies on the disk or, as a `Blob`, in memory. It is opened only as one of a few containers
that hold their own data (a text file that names other files is one that does not), and its pixels,
seconds, decoded frames and wall time are bounded. FFmpeg runs inside the process, through PyAV.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import av

from mgjax.core.errors import DataError

CONTAINERS = (
  'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,'
  'png_pipe,jpeg_pipe,webp_pipe,'  # still images, one file each; image2 would read numbered files
  'wav,flac,ogg,mp3,aiff'  # sound alone
)
_KINDS = {
  'a video': 'mp4, mov, mkv, webm, avi, gif, png, jpg, webp',
  'a sound': 'wav, flac, mp3, ogg, aiff, m4a, mp4, mov, mkv, webm, avi',
}
_FAILURES = (av.error.FFmpegError, OSError, ValueError, LookupError, MemoryError)


@dataclasses.dataclass(frozen=True, eq=False)
class Blob:
  """A file in memory; error messages call it `name`."""

  name: str
  data: bytes | memoryview = dataclasses.field(repr=False)

  def __str__(self) -> str:
    return self.name


File = str | os.PathLike[str] | Blob


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits beyond which a file is refused."""

  pixels: int = 4096 * 2304  # of one frame, as stored or as resized
  seconds: float = 4 * 3600.0  # of the whole file
  frames: int = 20_000  # of video, decoded by one call
  wall_seconds: float = 60.0  # of one call, looked at between frames


LIMITS = Limits()
Pick = Callable[[File, av.container.InputContainer, Limits], av.stream.Stream]


@contextlib.contextmanager
def sentences(path: File, limits: Limits) -> Iterator[None]:
  """Turns FFmpeg's errors inside it into a DataError about the file `path`."""
  try:
    yield
  except av.error.ExitError as error:
    raise DataError(f'{path}: reading it took over {limits.wall_seconds:g} s') from error
  except _FAILURES as error:
    reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    raise DataError(f'{path}: cannot be decoded, it is damaged or cut off ({reason})') from error


@contextlib.contextmanager
def opened(
  path: File, limits: Limits, what: str, pick: Pick
) -> Iterator[tuple[av.container.InputContainer, av.stream.Stream, float]]:
  """Yields the container, the stream that `pick` takes from it, and the deadline of the call.

  Args:
    path: a regular file, or one in memory.
    limits: what it may cost.
    what: it is expected to be: 'a video' or 'a sound'.
    pick: (path, container, limits) -> stream, or a DataError.

  Raises:
    DataError: the file cannot be opened, or what is done inside fails.
  """
  deadline = time.monotonic() + limits.wall_seconds
  with sentences(path, limits), open_container(path, limits, what) as container:
    stream = pick(path, container, limits)
    stream.codec_context.thread_count = 1  # many clips at once beat many threads on one
    stream.codec_context.options = {'max_pixels': str(limits.pixels)}  # a stream may change size
    yield container, stream, deadline


def video_stream(
  path: File, container: av.container.InputContainer, limits: Limits
) -> av.VideoStream:
  """Picks the pictures of a file, if they are within the limits."""
  streams = moving_pictures(container)
  if not streams:
    raise DataError(f'{path}: has no video stream')
  stream = streams[0]
  context = stream.codec_context
  if context is None:
    raise DataError(f'{path}: its codec cannot be decoded here')
  if context.width * context.height > limits.pixels:
    raise DataError(
      f'{path}: has frames of {context.width} x {context.height}, more than {limits.pixels} pixels'
    )
  check_seconds(path, container, stream, limits)
  return stream


def moving_pictures(container: av.container.InputContainer) -> list[av.VideoStream]:
  """The video streams of a file; the cover of a song is none."""
  cover = av.stream.Disposition.attached_pic
  return [stream for stream in container.streams.video if not stream.disposition & cover]


def check_seconds(
  path: File,
  container: av.container.InputContainer,
  stream: av.stream.Stream,
  limits: Limits,
) -> None:
  """Refuses, by a DataError, a stream that declares itself longer than the limits allow."""
  seconds = _declared_seconds(container, stream)
  if seconds > limits.seconds:
    raise DataError(f'{path}: lasts {seconds:.0f} s, more than {limits.seconds:.0f} s')


def measured_seconds(
  path: File,
  container: av.container.InputContainer,
  stream: av.stream.Stream,
  deadline: float,
) -> float:
  """Seconds from the first frame to the end of the last packet, read after the last key frame.

  What the header declares is no proof: a download that broke off still declares its full length.
  """
  first, declared = stream.start_time or 0, _declared_seconds(container, stream)
  with contextlib.suppress(av.error.FFmpegError):  # where there is no seeking, read on
    # A second earlier, since at the very end of a wav there is nothing left to read.
    container.seek(first + int(max(0, declared - 1) / stream.time_base), stream=stream)
  end = None
  for packet in container.demux(stream):
    shown = packet.dts if packet.pts is None else packet.pts
    if shown is not None and not packet.is_corrupt:
      end = max(end or 0, shown + (packet.duration or 0))
    if time.monotonic() > deadline:
      raise DataError(f'{path}: looking for its end took too long')
  seconds = 0.0 if end is None else float((end - first) * stream.time_base)
  if stream.duration and seconds < declared - max(0.1, 0.02 * declared):
    raise DataError(f'{path}: is cut off, it declares {declared:.2f} s that are not all there')
  if seconds <= 0:
    raise DataError(f'{path}: lasts no time at all, or its end is missing')
  return seconds


def open_container(path: File, limits: Limits, what: str) -> av.container.InputContainer:
  """Opens a file, which the caller closes; later errors are FFmpeg's own, see `opened`."""
  try:
    return av.open(
      _source(path),
      options={'max_pixels': str(limits.pixels)},  # the frames that FFmpeg decodes while opening
      container_options={
        'format_whitelist': CONTAINERS,
        'protocol_whitelist': 'none' if isinstance(path, Blob) else 'file',
      },
      metadata_errors='replace',
      timeout=limits.wall_seconds,
    )
  except av.error.ArgumentError as error:
    raise DataError(f'{path}: is not of a kind that is read here ({_KINDS[what]})') from error
  except (av.error.InvalidDataError, av.error.EOFError) as error:
    raise DataError(f'{path}: is not {what}, or its header is damaged or missing') from error
  except PermissionError as error:
    raise DataError(f'{path}: may not be read by this user') from error


def first_bytes(path: File, count: int) -> bytes:
  """The first bytes of a file, `count` at most."""
  if isinstance(path, Blob):
    return bytes(path.data[:count])
  with open(path, 'rb') as file:
    return file.read(count)


def file_bytes(path: File) -> int:
  """The length of a file."""
  return len(path.data) if isinstance(path, Blob) else os.path.getsize(path)


def _source(path: File) -> str | io.BytesIO:
  """What PyAV opens, after the checks that FFmpeg would not survive or not explain."""
  if isinstance(path, Blob):
    if not len(path.data):
      raise DataError(f'{path}: is empty')
    return io.BytesIO(path.data)
  path = pathlib.Path(path)
  if not path.exists():
    raise DataError(f'{path}: there is no such file')
  if not path.is_file():  # opening a pipe or a device could wait for ever
    raise DataError(f'{path}: is not a regular file')
  if not path.stat().st_size:
    raise DataError(f'{path}: is empty')
  return os.path.abspath(path)  # begins with a slash, so that no name is taken for a protocol


def _declared_seconds(container: av.container.InputContainer, stream: av.stream.Stream) -> float:
  if stream.duration and stream.time_base:
    return float(stream.duration * stream.time_base)
  return (container.duration or 0) / av.time_base
