"""Decodes a file's audio into samples aligned with the file's own clock.

Where the file has nothing to hear (its sound begins later than its pictures, or packets are
missing) there is silence; what lies before time 0 or twice is left out.
"""

import itertools
from collections.abc import Iterator

import av
import numpy as np
from av.filter import Graph

from mgjax.core.errors import DataError
from mgjax.core.typing import Float
from mgjax.media.containers import (
  File,
  Limits,
  check_seconds,
  file_bytes,
  first_bytes,
  moving_pictures,
  opened,
)

# 137 dB and more between a tone below 20 kHz and what resampling it from 44.1 kHz adds.
_FILTER = 'filter_size=128:filter_type=kaiser:kaiser_beta=14:cutoff=0.97'
_PREROLL = 0.3  # seconds; MP3 and Opus need what came before to decode what comes
_GAP = 0.02  # seconds between packets that are silence, and no rounding of their times


def audio_stream(
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


def origin(container: av.container.InputContainer, stream: av.AudioStream) -> float:
  """The second of the file's clock that is time 0: the first frame, else the first sample."""
  first = next(iter(moving_pictures(container)), stream)
  return float((first.start_time or 0) * first.time_base)


def trusted_seconds(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
  """What the header says, if it knows better than the packets: AAC's last one is filled up."""
  if container.format.name.startswith('mov') and stream.duration:
    return float(stream.duration * stream.time_base)
  return None


def decode_audio(
  path: File,
  first: int,
  rate: int,
  channels: int,
  limits: Limits,
  seek: bool = True,
) -> Iterator[Float[np.ndarray, '_ c']]:
  """Decodes the samples from number `first` on, without a gap or an overlap between pieces."""
  with opened(path, limits, 'a sound', audio_stream) as (container, stream, _):
    zero = origin(container, stream)
    seconds = trusted_seconds(container, stream)
    late = float((stream.start_time or 0) * stream.time_base) - zero
    end = round((limits.seconds if seconds is None else late + seconds) * rate)
    begin = first / rate - _PREROLL
    seek = seek and begin > 0
    if seek:
      container.seek(int((zero + begin) / stream.time_base), stream=stream)
    following, done = None, first
    for place, block in _resampled(path, container, stream, zero, rate, channels):
      limits.check_time(path, limits.until)
      if following is None and seek and place > first:
        break  # the seek went astray
      if following is not None and abs(place - following) < _GAP * rate:
        place = following
      following = place + len(block)
      if place >= end:
        if seconds is None:
          raise DataError(f'{path}: lasts more than {limits.seconds:.0f} s')
        return
      if place - done > limits.gap * rate:
        raise DataError(f'{path}: has no sound for {(place - done) / rate:.0f} s: it is damaged')
      for silent in range(done, place, rate):
        yield np.zeros((min(rate, place - silent), channels), np.float32)
      done = max(done, place)
      block = block[done - place : max(0, end - place)]
      if len(block):
        yield block
        done += len(block)
    else:
      return
  yield from decode_audio(path, first, rate, channels, limits, seek=False)


def _resampled(
  path: File,
  container: av.container.InputContainer,
  stream: av.AudioStream,
  zero: float,
  rate: int,
  channels: int,
) -> Iterator[tuple[int, Float[np.ndarray, '_ c']]]:
  """Decodes from where the container stands: (number of the first sample, samples)."""
  graph, following, timed = None, 0, False
  for frame in itertools.chain(container.decode(stream), (None,)):
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
        place, timed = round((float(converted.pts * converted.time_base) - zero) * rate), True
      elif timed:
        raise DataError(f'{path}: is damaged {following / rate:.2f} s after its start')
      else:
        place = following
      following = place + len(block)
      block = np.clip(block, -1, 1)
      yield place, np.repeat(block, channels, axis=1) if block.shape[1] < channels else block


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
