"""Reads and writes audio, alone or beside a video, in constant memory.

Time 0 is the first frame of the video that a sound belongs to, else the sound's first sample. Where
a file has no sound (it begins later, or packets are missing) silence is returned.
"""

import contextlib
import dataclasses
import fractions
import io
import itertools
import logging
import os
import wave
from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.filter import Graph

from mgjax.core.errors import DataError
from mgjax.core.files import replaced
from mgjax.core.typing import Float
from mgjax.data.media.containers import (
  LIMITS,
  Blob,
  File,
  Limits,
  check_rate,
  check_seconds,
  file_bytes,
  first_bytes,
  measure,
  moving_pictures,
  open_container,
  opened,
  sentences,
  video_stream,
)

_SHORT = 0.1  # seconds that may be missing at the end: the last packets of a video's sound
_LOOKED_AT = 8  # frames, to know how long one is: the first may be cut
_SAID = 0.05  # seconds of a difference between sound and video that is worth a word
_LAYOUTS = {1: 'mono', 2: 'stereo'}
_AAC_RATES = (
  7350,
  8000,
  11025,
  12000,
  16000,
  22050,
  24000,
  32000,
  44100,
  48000,
  64000,
  88200,
  96000,
)
_UNTIMED = 32  # packets in a row without a time of decoding, more than any codec puts off
_BITS = 128_000  # a second, of one channel of AAC
# 137 dB and more between a tone below 20 kHz and what resampling it from 44.1 kHz adds.
_FILTER = 'filter_size=128:filter_type=kaiser:kaiser_beta=14:cutoff=0.97'
_PREROLL = 0.3  # seconds; MP3 and Opus need what came before to decode what comes
_GAP = 0.02  # seconds between packets that are silence, and no rounding of their times
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AudioInfo:
  """The sound of a file: samples a second, channels, and the second at which it ends."""

  rate: int
  channels: int
  seconds: float


def probe_audio(path: File, limits: Limits = LIMITS) -> AudioInfo:
  """Describes a sound after decoding its first samples and looking at the times of all packets.
  Raises DataError if the file is missing, has no sound, is damaged, cut off or beyond `limits`.
  """
  with opened(path, limits, 'a sound', _audio_stream) as (container, stream, deadline):
    measured = measure(path, container, stream, limits, deadline, _LOOKED_AT)
    if not measured.frames:
      raise DataError(f'{path}: holds no sound that can be decoded, it lasts 0 s')
    longest = max(measured.frames, key=lambda frame: frame.samples)
    check_rate(path, measured, longest.sample_rate / max(1, longest.samples), 'packets of sound')
    late = float((stream.start_time or 0) * stream.time_base) - _origin(container, stream)
    if late > limits.gap:
      raise DataError(f'{path}: its sound begins {late:.0f} s late, more than {limits.gap:g} s')
    declared = _trusted_seconds(container, stream)
    return AudioInfo(
      rate=longest.sample_rate,
      channels=longest.layout.nb_channels,
      seconds=late + (measured.seconds if declared is None else min(measured.seconds, declared)),
    )


def read_audio(
  path: File,
  *,
  start: float = 0.0,
  seconds: float | None = None,
  rate: int = 48_000,
  channels: int = 1,
  limits: Limits = LIMITS,
) -> Float[np.ndarray, 's c']:
  """Reads `seconds` seconds (by default all) from second `start` on, as float32 in [-1, 1].

  Exact to the nearest sample wherever it starts, in Matroska and WebM to the millisecond that their
  times are rounded to. Any rate is resampled, and any number of channels is mixed down to 1 or 2.
  The weights of a mix sum to 1, so that it is not louder than its sources. Samples beyond full
  scale are cut. Up to 0.1 s that are missing at the end are silence. Raises DataError as
  `probe_audio`, or if the audio ends too early.
  """
  if start < 0 or (seconds is not None and seconds <= 0) or rate < 1 or channels not in _LAYOUTS:
    raise ValueError(
      f'need start >= 0, seconds, rate > 0, 1 or 2 channels: {start}, {seconds}, {rate}, {channels}'
    )
  first = round(start * rate)
  num_samples = None if seconds is None else round(seconds * rate)
  deadline = limits.deadline()
  pieces = []
  count = 0
  for piece in _decode_audio(path, first, rate, channels, limits):
    limits.check_time(path, deadline)
    pieces.append(piece if num_samples is None else piece[: num_samples - count])
    count += len(pieces[-1])
    if count == num_samples:
      break
  missing = 0 if num_samples is None else num_samples - count
  if not count or missing > _SHORT * rate:
    end = (first + count) / rate if count else probe_audio(path, limits).seconds
    raise DataError(
      f'{path}: its sound ends at {end:.2f} s, {start + (seconds or 0):.2f} s is needed'
    )
  return np.concatenate([*pieces, np.zeros((missing, channels), np.float32)])


def stream_audio(
  path: File,
  *,
  rate: int = 48_000,
  channels: int = 1,
  seconds: float = 10.0,
  limits: Limits = LIMITS,
  start: float = 0.0,
  length: float | None = None,
) -> Iterator[Float[np.ndarray, '_ c']]:
  """Yields a sound, `length` seconds from `start` on or all of it, in pieces of `seconds` seconds.

  The last piece is shorter; see `read_audio`.
  """
  size = round(seconds * rate)
  pieces = []
  count = 0
  remaining = None if length is None else round(length * rate)
  for piece in _decode_audio(path, round(start * rate), rate, channels, limits):
    if remaining is not None:
      piece = piece[:remaining]
      remaining -= len(piece)
    pieces.append(piece)
    count += len(piece)
    while count >= size:
      joined = np.concatenate(pieces)
      yield joined[:size]
      pieces = [joined[size:]]
      count = count - size
    if remaining == 0:
      break
  if count:
    yield np.concatenate(pieces)


def _audio_stream(
  path: File, container: av.container.InputContainer, limits: Limits
) -> av.AudioStream:
  """Picks the sound of a file, if it is within the limits."""
  if not container.streams.audio:
    raise DataError(f'{path}: has no sound')
  stream = container.streams.audio[0]
  if stream.codec_context is None:
    raise DataError(f'{path}: the codec of its sound cannot be decoded here')
  check_seconds(path, container, stream, limits)
  if container.format.name == 'wav' and _riff_bytes(path) > file_bytes(path):
    raise DataError(f'{path}: is cut off, its header speaks of more than there is')
  return stream


def _riff_bytes(path: File) -> int:
  """The length that a wav declares; 0 if it was written before its length was known."""
  header = first_bytes(path, 8)
  declared = int.from_bytes(header[4:], 'little')
  return 0 if header[:4] != b'RIFF' or declared >= 2**32 - 256 else 8 + declared


def _origin(container: av.container.InputContainer, stream: av.AudioStream) -> float:
  """The second of the file's clock that is time 0: the first frame, else the first sample."""
  first = next(iter(moving_pictures(container)), stream)
  return float((first.start_time or 0) * first.time_base)


def _trusted_seconds(
  container: av.container.InputContainer, stream: av.AudioStream
) -> float | None:
  """What the header says, if it knows better than the packets: AAC's last one is filled up."""
  if container.format.name.startswith('mov') and stream.duration:
    return float(stream.duration * stream.time_base)
  return None


def _decode_audio(
  path: File, first: int, rate: int, channels: int, limits: Limits, seek: bool = True
) -> Iterator[Float[np.ndarray, '_ c']]:
  """Decodes the samples from number `first` on, without a gap or an overlap between pieces."""
  with opened(path, limits, 'a sound', _audio_stream) as (container, stream, _):
    zero = _origin(container, stream)
    seconds = _trusted_seconds(container, stream)
    late = float((stream.start_time or 0) * stream.time_base) - zero
    end = round((limits.seconds if seconds is None else late + seconds) * rate)
    begin = first / rate - _PREROLL
    seek = seek and begin > 0
    if seek:
      container.seek(int((zero + begin) / stream.time_base), stream=stream)
    following = None
    done = first
    for position, block in _resampled(path, container, stream, zero, rate, channels):
      limits.check_time(path, limits.until)
      if following is None and seek and position > first:
        break  # the seek was inexact
      if following is not None and abs(position - following) < _GAP * rate:
        position = following
      following = position + len(block)
      if position >= end:
        if seconds is None:
          raise DataError(f'{path}: lasts more than {limits.seconds:.0f} s')
        return
      if position - done > limits.gap * rate:
        raise DataError(f'{path}: has no sound for {(position - done) / rate:.0f} s: it is damaged')
      for silent in range(done, position, rate):
        yield np.zeros((min(rate, position - silent), channels), np.float32)
      done = max(done, position)
      block = block[done - position : max(0, end - position)]
      if len(block):
        yield block
        done += len(block)
    else:
      return
  yield from _decode_audio(path, first, rate, channels, limits, seek=False)


def _resampled(
  path: File,
  container: av.container.InputContainer,
  stream: av.AudioStream,
  zero: float,
  rate: int,
  channels: int,
) -> Iterator[tuple[int, Float[np.ndarray, '_ c']]]:
  """Decodes from the container's position: (index of the first sample, samples)."""
  graph = None
  following = 0
  timed = False
  for frame in itertools.chain(_mixable(path, container.decode(stream), channels), (None,)):
    if graph is None:
      if frame is None:
        return
      mono = frame.layout.nb_channels == 1 or channels == 1
      graph = _conversion(frame, rate, 'mono' if mono else 'stereo')
    graph.push(frame)
    while True:
      try:
        converted = graph.pull()
      except (av.error.BlockingIOError, av.error.EOFError):
        break
      block = converted.to_ndarray().reshape(converted.samples, -1)
      if not np.isfinite(block).all():
        raise DataError(f'{path}: holds samples that are no numbers')
      if converted.pts is not None:
        position = round((float(converted.pts * converted.time_base) - zero) * rate)
        timed = True
      elif timed:
        raise DataError(f'{path}: is damaged {following / rate:.2f} s after its start')
      else:
        position = following
      following = position + len(block)
      block = np.clip(block, -1, 1)
      yield position, np.repeat(block, channels, axis=1) if block.shape[1] < channels else block


def _mixable(path: File, frames: Iterable[av.AudioFrame], channels: int) -> Iterator[av.AudioFrame]:
  """Yields frames, and warns at their end if two channels are silence as one.

  Such a recording has one channel with the sign of the other one turned.
  """
  loudest = mixed = 0.0
  try:
    for frame in frames:
      if channels == 1 and frame.layout.nb_channels == 2:
        sound = frame.to_ndarray()
        full = 1.0 if sound.dtype.kind == 'f' else float(np.iinfo(sound.dtype).max)
        pair = sound.reshape(2, -1) if frame.format.is_planar else sound.reshape(-1, 2).T
        pair = pair[:, ::16] / full  # enough of them to hear it
        loudest = max(loudest, float(np.abs(pair).max(initial=0)))
        mixed = max(mixed, float(np.abs(pair.sum(0)).max(initial=0)))
      yield frame
  finally:
    if loudest > 0.001 and mixed < 0.01 * loudest:
      _log.warning(
        '%s: its two channels cancel each other in mono; turn the sign of one of them', path
      )


def _conversion(frame: av.AudioFrame, rate: int, layout: str) -> Graph:
  """A filter from frames like this one to float32 at `rate`; mixes have weights that sum to 1."""
  graph = Graph()
  source = graph.add_abuffer(
    sample_rate=frame.sample_rate,
    format=frame.format.name,
    layout=frame.layout.name,
    time_base=frame.time_base,
  )
  resample = graph.add('aresample', f'osr={rate}:osf=flt:ochl={layout}:rematrix_maxval=1:{_FILTER}')
  sink = graph.add('abuffersink')
  source.link_to(resample)
  resample.link_to(sink)
  graph.configure()
  return graph


def write_wav(path: str | os.PathLike[str], sound: Float[np.ndarray, 's c'], rate: int) -> None:
  """Writes a 16-bit wav, atomically; DataError without samples or with one not within [-1, 1]."""
  write_wav_stream(path, [sound], rate)


def write_wav_stream(
  path: str | os.PathLike[str], chunks: Iterable[Float[np.ndarray, 's c']], rate: int
) -> None:
  """Writes a wav of a sound that comes in pieces, as `write_wav` does the whole."""
  pieces = _pieces(path, chunks)
  first = next(pieces)
  with replaced(path) as temporary, wave.open(str(temporary), 'wb') as file:
    file.setparams((first.shape[1], 2, rate, 0, 'NONE', ''))
    for piece in itertools.chain((first,), pieces):
      file.writeframes(np.rint(piece * 32767).astype('<i2').tobytes())


def write_soundtrack(
  out: str | os.PathLike[str],
  video: File | None,
  chunks: Iterable[Float[np.ndarray, '_ c']],
  rate: int,
) -> None:
  """Writes an mp4 of the pictures of `video`, copied untouched, and a sound as AAC, atomically.

  The sound begins with the first frame. It is cut where the pictures end, or followed by silence
  until they do, with a warning. A sound that the video had is left out; without a video the sound
  stands alone, as in an .m4a. Pieces are written as they come, in constant memory. `rate` is one of
  those that AAC has, see `encodable_rate`. Raises DataError as `write_wav`, or if the video cannot
  be read, or mp4 cannot hold it.
  """
  _write_soundtrack(out, replaced(out), video, chunks, rate)


def soundtrack(video: File, chunks: Iterable[Float[np.ndarray, '_ c']], rate: int) -> bytes:
  """Returns the mp4 that `write_soundtrack` writes; cuts or pads the sound without a warning."""
  buffer = io.BytesIO()
  _write_soundtrack(video, contextlib.nullcontext(buffer), video, chunks, rate, warn=False)
  return buffer.getvalue()


def encodable_rate(rate: int) -> int:
  """The samples a second to encode a sound of `rate` with: its own where AAC has them."""
  return rate if rate in _AAC_RATES else 48_000


def _write_soundtrack(
  out: File,
  opening: contextlib.AbstractContextManager,
  video: File | None,
  chunks: Iterable[np.ndarray],
  rate: int,
  warn: bool = True,
) -> None:
  """Writes into what `opening` gives: a path or a file in memory; errors speak of `out`."""
  if rate not in _AAC_RATES:
    raise DataError(f'{out}: AAC has no {rate} samples a second; use one of {_AAC_RATES}')
  pieces = _pieces(out, chunks)
  first = next(pieces)
  if first.shape[1] not in _LAYOUTS:
    raise DataError(f'{out}: the sound has {first.shape[1]} channels, expected 1 or 2')
  with contextlib.ExitStack() as stack:
    pictures, seconds = (None, None) if video is None else _pictures(video, stack)
    output = stack.enter_context(opening)
    output = str(output) if isinstance(output, os.PathLike) else output
    options = {'movie_timescale': str(rate)}
    target = stack.enter_context(av.open(output, 'w', format='mp4', options=options))
    layout = _LAYOUTS[first.shape[1]]
    bits = _BITS * first.shape[1]
    try:
      if pictures is not None:
        pictures.join(target)
      stream = target.add_stream('aac', rate=rate, layout=layout, bit_rate=bits)
      target.start_encoding()
    except (av.error.FFmpegError, ValueError) as error:
      raise DataError(f'{video}: mp4 cannot hold its pictures; convert it to H.264') from error
    _mux(out, target, stream, itertools.chain((first,), pieces), pictures, seconds, warn)


class Copied:
  """The packets of a stream on their way into another file, untouched."""

  def __init__(
    self,
    path: File,
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    zero: fractions.Fraction,
  ):
    """Reads a stream of a file of which nothing else is read, from second `zero` of its clock."""
    self.source = stream
    self._packets = _packets(path, container, stream, round(zero / stream.time_base))
    self._next = next(self._packets, None)

  def join(self, target: av.container.OutputContainer) -> None:
    """Gives `target` a stream for the packets."""
    self._target = target
    self._stream = target.add_stream_from_template(self.source)
    if language := self.source.metadata.get('language'):
      self._stream.metadata['language'] = language

  def copy(self, until: float | None = None) -> None:
    """Copies the packets that come up to a second, or all."""
    while self._next is not None:
      packet = self._next
      if until is not None and packet.dts * self.source.time_base > until:
        return
      packet.stream = self._stream
      self._target.mux(packet)
      self._next = next(self._packets, None)


def _pictures(path: File, stack: contextlib.ExitStack) -> tuple[Copied, float]:
  """The pictures of a video, its first frame shown at 0, and their seconds."""
  with opened(path, LIMITS, 'a video', video_stream) as (container, stream, deadline):
    seconds = measure(path, container, stream, LIMITS, deadline).seconds
  # Opened again by itself: what goes wrong with the sound must not be taken for the video's.
  container = stack.enter_context(open_container(path, LIMITS, 'a video'))
  stream = video_stream(path, container, LIMITS)
  return Copied(path, container, stream, (stream.start_time or 0) * stream.time_base), seconds


def _packets(
  path: File, container: av.container.InputContainer, stream: av.stream.Stream, first: int
) -> Iterator[av.Packet]:
  """The packets of a stream, with `first` taken from their times."""
  last = 0
  waiting = []
  with sentences(path, LIMITS):
    for packet in container.demux(stream):
      if packet.size:  # else it says that this is the end
        waiting.append(packet)
        if packet.dts is None and len(waiting) < _UNTIMED:
          continue  # Matroska keeps no times of decoding, those of the first packets are unknown
      for back, ready in enumerate(reversed(waiting)):
        if not back:
          last = ready.pts if ready.dts is None else ready.dts
        ready.dts = last - back * (ready.duration or 1) - first
        ready.pts = ready.dts if ready.pts is None else ready.pts - first
      yield from waiting
      waiting = []


def _mux(
  out: File,
  target: av.container.OutputContainer,
  stream: av.AudioStream,
  pieces: Iterator[np.ndarray],
  pictures: Copied | None,
  seconds: float | None,
  warn: bool,
) -> None:
  """Encodes the sound second by second, with the pictures of each second after it."""
  rate = stream.sample_rate
  layout = stream.layout.name
  length = None if seconds is None else round(seconds * rate)
  count = 0

  def encode(sound: np.ndarray) -> None:
    nonlocal count
    for second in range(0, len(sound), rate):
      part = np.ascontiguousarray(sound[second : second + rate].T)
      frame = av.AudioFrame.from_ndarray(part, 'fltp', layout)
      frame.sample_rate = rate
      frame.time_base = fractions.Fraction(1, rate)
      frame.pts = count
      target.mux(stream.encode(frame))
      count += part.shape[1]
      if pictures is not None:
        pictures.copy(until=count / rate)

  for piece in pieces:
    fitting = piece if length is None else piece[: length - count]
    encode(fitting)
    rest = len(piece) - len(fitting)
    if rest:
      if warn and (rest > _SAID * rate or next(pieces, None) is not None):
        _log.warning('%s: the sound is cut at %.2f s, where its video ends', out, count / rate)
      break
  if length is not None and count < length:
    if warn and length - count > _SAID * rate:
      _log.warning(
        '%s: the sound ends at %.2f s and is followed by silence, since its video lasts %.2f s',
        out,
        count / rate,
        length / rate,
      )
    while count < length:
      encode(np.zeros((min(rate, length - count), len(stream.layout.channels)), np.float32))
  target.mux(stream.encode(None))
  if pictures is not None:
    pictures.copy()


def _pieces(path: File, chunks: Iterable[np.ndarray]) -> Iterator[Float[np.ndarray, '_ c']]:
  """The pieces of a sound that hold samples, one at least, checked."""
  channels = None
  for chunk in chunks:
    chunk = _checked(path, chunk)
    if len(chunk):
      if channels not in (None, chunk.shape[1]):
        raise DataError(f'{path}: channels change from {channels} to {chunk.shape[1]}')
      channels = chunk.shape[1]
      yield chunk
  if channels is None:
    raise DataError(f'{path}: there is no sound to write, it lasts 0 s')


def _checked(path: File, sound: np.ndarray) -> Float[np.ndarray, 's c']:
  sound = np.asarray(sound)
  if sound.ndim != 2 or sound.dtype.kind != 'f':
    raise DataError(f'{path}: a sound is {sound.dtype} {sound.shape}, expected float (samples, c)')
  if not isinstance(path, Blob) and os.path.isdir(path):
    raise DataError(f'{path}: is a folder; name a file in it')
  if not np.isfinite(sound).all():
    raise DataError(f'{path}: the sound to write holds samples that are no numbers')
  loudest = float(np.abs(sound).max(initial=0))
  if loudest > 1:
    raise DataError(
      f'{path}: the sound to write reaches {loudest:.3g}, full scale is 1; lower it as a whole, '
      'with mgjax.data.media.loudness.normalise'
    )
  return sound.astype(np.float32, copy=False)
