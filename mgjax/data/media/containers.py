"""Opens untrusted media with PyAV; every failure is a one-line DataError.

A file lies on the disk or, as a `Blob`, in memory. Only a few containers are opened, none of which
can name other files, and pixels, seconds, decoded frames and wall time are bounded.
"""

import array
import contextlib
import ctypes
import dataclasses
import io
import itertools
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageSequence

from mgjax.core.errors import DataError, MgjaxError
from mgjax.core.files import BEGIN, impostor, is_text
from mgjax.data.media.frame_pixels import opaque_picture

CONTAINERS = (
  'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,'
  'png_pipe,jpeg_pipe,webp_pipe,'  # still images, one file each; image2 would read numbered files
  'apng,'
  'wav,flac,ogg,mp3,aiff'  # sound alone
)
_KINDS = {
  'a video': 'mp4, mov, mkv, webm, avi, gif, png, jpg, webp',
  'a sound': 'wav, flac, mp3, ogg, aiff, m4a, mp4, mov, mkv, webm, avi',
}
# Opened by name, still images would be taken for one of a numbered series, which `image2` reads.
_STILLS = {
  b'\xff\xd8\xff': 'jpeg_pipe',
  b'\x89PNG': 'png_pipe',
  b'RIFF....WEBP': 'webp_pipe',
  b'GIF8': 'gif',
}
_MOVING = 2  # the bit of a WebP's flags that says that it has several frames
_PNG_HEADER = 1 << 20  # bytes in which a PNG says whether it moves
_BRIEF = 100  # milliseconds of a frame of WebP that says 0, as browsers have it
AGAIN = 'copy or download it again'
# How a file begins -> of what kind it says that it is.
_MEDIA = {
  rb'\x1aE\xdf\xa3': 'mkv or webm',
  rb'RIFF.{4}AVI': 'avi',
  rb'RIFF.{4}WAVE': 'wav',
  rb'RIFF.{4}WEBP': 'webp',
  rb'GIF8': 'gif',
  rb'\x89PNG': 'png',
  rb'\xff\xd8\xff': 'jpg',
  rb'OggS': 'ogg',
  rb'fLaC': 'flac',
  rb'ID3': 'mp3',
  rb'FORM.{4}AIF': 'aiff',
  rb'.{4}(ftyp|moov|mdat|free|skip|wide|styp|moof)': 'mp4 or mov',
}
_FASTEST = 1000  # packets a second
_STRAY = 16  # times by which packets may come more often or seldom than their stream says
# What opening raises for bytes of no kind that FFmpeg knows or may read, and for half a header.
_UNREADABLE = (
  av.error.InvalidDataError,
  av.error.ArgumentError,
  av.error.EOFError,
  av.error.OSError,
)
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
  gap: float = 30.0  # seconds for which nothing new may be seen, or nothing be heard
  frames: int = 20_000  # of video, decoded by one call
  wall_seconds: float = 60.0  # of one call, looked at between frames
  until: float = math.inf  # `time.monotonic()` at which that of calls together is over

  def begun(self) -> 'Limits':
    """Limits of several calls that together may take `wall_seconds` from now on."""
    return self if self.until < math.inf else dataclasses.replace(self, until=self.deadline())

  def deadline(self) -> float:
    """When a call that begins now must end."""
    return min(self.until, time.monotonic() + self.wall_seconds)

  def check_time(self, path: File, deadline: float) -> None:
    """Raises a DataError about a file if a deadline has passed."""
    if time.monotonic() > deadline:
      raise DataError(f'{path}: reading it took over {self.wall_seconds:g} s')


LIMITS = Limits()
ANY_LENGTH = dataclasses.replace(LIMITS, frames=10**9)  # of frames that come one by one, unheld
_LARGEST = 512 << 20  # bytes that FFmpeg may allocate at once
# It believes the sizes in a header, and fills what it allocates with zeros: 10 kB of avi took 1 GB.
with contextlib.suppress(AttributeError, OSError):  # Windows does not find what a library links
  ctypes.CDLL(av.error.__file__).av_max_alloc(ctypes.c_size_t(_LARGEST))
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

  `what` is expected: 'a video' or 'a sound'.
  Raises DataError if the file cannot be opened, or what is done inside fails.
  """
  deadline = limits.deadline()
  with sentences(path, limits), open_container(path, limits, what) as container:
    stream = pick(path, container, limits)
    stream.codec_context.thread_count = 1  # many clips at once beat many threads on one
    stream.codec_context.options = {'max_pixels': str(limits.pixels)}  # a stream may change size
    yield container, stream, deadline


def video_stream(
  path: File, container: av.container.InputContainer, limits: Limits
) -> av.VideoStream:
  """Picks the video stream of a file, or raises DataError if it is beyond the limits."""
  streams = moving_pictures(container)
  if not streams:
    reason = ', only sound' if container.streams.audio else f' that is whole; {AGAIN}'
    raise DataError(f'{path}: has no video stream{reason}')
  stream = streams[0]
  context = stream.codec_context
  if context is None:
    raise DataError(f'{path}: its codec cannot be decoded here')
  if stream.metadata.get('alpha_mode') == '1':  # a second layer, which FFmpeg's decoder leaves out
    raise DataError(
      f'{path}: is transparent {context.name}, which is not read; flatten it over white'
    )
  if context.width * context.height > limits.pixels:
    raise DataError(
      f'{path}: has frames of {context.width} x {context.height}, more than {limits.pixels} pixels'
    )
  check_seconds(path, container, stream, limits)
  return stream


def moving_pictures(container: av.container.InputContainer) -> list[av.VideoStream]:
  """The video streams of a file, without the cover of a song."""
  cover = av.stream.Disposition.attached_pic
  return [stream for stream in container.streams.video if not stream.disposition & cover]


def check_seconds(
  path: File, container: av.container.InputContainer, stream: av.stream.Stream, limits: Limits
) -> None:
  """Raises DataError if a stream declares itself longer than the limits allow."""
  seconds = _declared_seconds(container, stream)
  if seconds > limits.seconds:
    raise DataError(f'{path}: lasts {seconds:.0f} s, more than {limits.seconds:.0f} s')


@dataclasses.dataclass(frozen=True)
class Measure:
  """First decoded frames of a stream, its number of packets, and the seconds to their end."""

  frames: list[Any]
  packets: int
  seconds: float


def measure(
  path: File,
  container: av.container.InputContainer,
  stream: av.stream.Stream,
  limits: Limits,
  deadline: float,
  frames: int = 1,
) -> Measure:
  """Reads all packets of a stream from its start, and decodes the first `frames` frames.

  Neither the header (a broken download still declares its full length) nor a single time stamp is
  trusted. Raises DataError if it is too long or cut off, or its packets are too far apart, too many
  or too few.
  """
  first = stream.start_time or 0
  stamps = array.array('q')
  decoded = []
  end = first
  for packet in container.demux(stream):
    if len(decoded) < frames:
      decoded += packet.decode()
    time_stamp = packet.dts if packet.pts is None else packet.pts
    if time_stamp is not None and packet.size and not packet.is_corrupt and not packet.is_discard:
      stamps.append(time_stamp)
      end = max(end, time_stamp + (packet.duration or 0))
    limits.check_time(path, deadline)
    if len(stamps) > _FASTEST * limits.seconds:
      raise DataError(f'{path}: has over {len(stamps) - 1} packets; cut it into clips first')
  seconds = float((end - first) * stream.time_base)
  declared = _declared_seconds(container, stream)
  if seconds > limits.seconds:
    raise DataError(f'{path}: lasts {seconds:.0f} s, more than {limits.seconds:.0f} s')
  if stream.duration and seconds < declared - max(0.1, 0.02 * declared):
    raise DataError(
      f'{path}: is cut off, it declares {declared:.2f} s that are not all there; {AGAIN}'
    )
  if seconds <= 0:
    raise DataError(f'{path}: lasts 0 s, or its end is missing')
  gaps = np.diff(np.sort(np.array([*stamps, first, end], np.float64)))
  longest = float(gaps.max() * stream.time_base)
  if longest > limits.gap:
    raise DataError(
      f'{path}: has {longest:.0f} s without a packet, more than {limits.gap:g} s: a time stamp is '
      'damaged, or it is to be cut there'
    )
  return Measure(decoded[:frames], len(stamps), seconds)


def check_rate(path: File, measured: Measure, declared: float, unit: str) -> float:
  """Returns how many `unit`s come in a second; DataError where the stream declares another rate."""
  rate = measured.packets / measured.seconds
  if rate > _FASTEST or not 1 / _STRAY < rate / declared < _STRAY:
    raise DataError(
      f'{path}: has {rate:.3g} {unit} a second by their time stamps, but says {declared:.3g}; they '
      'are damaged, or it is to be encoded anew'
    )
  return rate


def open_container(path: File, limits: Limits, what: str) -> av.container.InputContainer:
  """Opens a file for the caller to close; later errors are FFmpeg's own, see `opened`."""
  try:
    source = readable_input(path, what)
    begin = first_bytes(path, 24)
    form = next((name for start, name in _STILLS.items() if re.match(start, begin, re.S)), None)
    moves = form == 'webp_pipe' and begin[12:16] == b'VP8X' and begin[20] & _MOVING
    if moves or (form and _is_mirrored_or_inked(path)):
      source, form = _as_png(path, source, limits)
    elif form == 'png_pipe' and b'acTL' in first_bytes(path, _PNG_HEADER).partition(b'IDAT')[0]:
      form = 'apng'
    return av.open(
      source,
      format=form,
      options={'max_pixels': str(limits.pixels)},  # the frames that FFmpeg decodes while opening
      container_options={
        'format_whitelist': CONTAINERS,
        'protocol_whitelist': 'file' if isinstance(source, str) else 'none',
        # Else a stream of Matroska that begins after 5 s is said to begin with the file.
        'analyzeduration': str(round(limits.gap * av.time_base)),
      },
      metadata_errors='replace',
      timeout=limits.wall_seconds,
    )
  except PermissionError as error:
    raise DataError(f'{path}: may not be read by this user; give it the right to') from error
  except _UNREADABLE as error:
    reason = f'is not {what}, or its header is damaged: it begins as none of {_KINDS[what]}'
    if isinstance(error, av.error.ArgumentError):
      reason = f'is not of a kind that is read here ({_KINDS[what]}); convert it to one of them'
    with _binary(path) as file:
      raise DataError(f'{path}: {_diagnosis(file, what) or reason}') from error


def _is_mirrored_or_inked(path: File) -> bool:
  """Whether a picture has what PyAV or FFmpeg get wrong: a mirrored orientation, inks (CMYK)."""
  with contextlib.suppress(Exception), _binary(path) as file, Image.open(file) as image:
    exif = image.getexif() if 'exif' in image.info else {}
    return image.mode == 'CMYK' or exif.get(ExifTags.Base.Orientation) in (2, 4, 5, 7)
  return False  # FFmpeg will say what is wrong


def _as_png(path: File, source: str | io.BytesIO, limits: Limits) -> tuple[io.BytesIO, str]:
  """Returns what FFmpeg does not read, or reads wrongly, as a PNG of what is shown, and its form.

  Of animations those of WebP are read; the further pictures of a photograph are others.
  """
  try:
    with Image.open(source) as image:
      count = image.n_frames if image.format == 'WEBP' else 1
      pixels = image.width * image.height
      if count > limits.frames or pixels > limits.pixels or 4 * count * pixels > _LARGEST:
        raise DataError(f'{path}: has {count} frames of {pixels} pixels, too many for a picture')
      pictures = itertools.islice(ImageSequence.Iterator(image), count)
      frames = [opaque_picture(ImageOps.exif_transpose(frame)) for frame in pictures]
    lengths = [frame.info.get('duration') or _BRIEF for frame in frames]
    png = io.BytesIO()
    frames[0].save(
      png, 'PNG', save_all=True, append_images=frames[1:], duration=lengths, compress_level=1
    )
  except MgjaxError:
    raise
  except Exception as error:  # a damaged file may raise anything
    raise DataError(
      f'{path}: cannot be decoded, it is damaged or cut off ({error!s:.200})'
    ) from error
  png.seek(0)
  return png, 'apng' if count > 1 else 'png_pipe'


def _binary(path: File) -> io.BufferedIOBase:
  return io.BytesIO(path.data) if isinstance(path, Blob) else open(path, 'rb')


def first_bytes(path: File, count: int) -> bytes:
  """The first bytes of a file, `count` at most."""
  with _binary(path) as file:
    return file.read(count)


def file_bytes(path: File) -> int:
  """The length of a file."""
  return len(path.data) if isinstance(path, Blob) else os.path.getsize(path)


def readable_input(path: File, what: str) -> str | io.BytesIO:
  """Returns the input for PyAV or Pillow; DataError unless it is a regular, non-empty file."""
  if isinstance(path, Blob):
    if not len(path.data):
      raise DataError(f'{path}: is empty')
    return io.BytesIO(path.data)
  if '://' in os.fspath(path):
    raise DataError(f'{path}: is an address; download the file, and give its path')
  path = pathlib.Path(path)
  if not path.exists():
    link = 'is a link to a file that is not there' if path.is_symlink() else 'there is no such file'
    raise DataError(f'{path}: {link}')
  if not path.is_file():  # opening a pipe or a device could wait for ever
    kind = f'a folder, not {what}' if path.is_dir() else 'not a regular file'
    raise DataError(f'{path}: is {kind}')
  if not path.stat().st_size:
    raise DataError(f'{path}: is empty')
  return os.path.abspath(path)  # begins with a slash, so that no name is taken for a protocol


def _declared_seconds(container: av.container.InputContainer, stream: av.stream.Stream) -> float:
  if stream.duration and stream.time_base:
    return float(stream.duration * stream.time_base)
  return (container.duration or 0) / av.time_base


def _diagnosis(file: io.BufferedIOBase, what: str) -> str:
  """Describes an open file that is not `what`; '' if its first bytes are not known."""
  size = file.seek(0, 2)
  file.seek(0)
  begin = file.read(BEGIN)
  if not any(begin):
    zeros = 'only zeros' if size <= BEGIN else f'zeros where {what} has its header'
    return f'holds {zeros}; {AGAIN}'
  if description := impostor(begin, what):
    return description
  for start, name in _MEDIA.items():
    if re.match(start, begin, re.S):
      return f'begins as {name}, but is damaged, cut off or was never finished; {AGAIN}'
  return f'is a text file, not {what}' if is_text(begin) else ''
