"""Integrated loudness of sound by FFmpeg's `ebur128`, and gain to a target without clipping.

ITU-R BS.1770-4: loudness is -0.691 + 10 log10(z) LUFS, with z the mean square of K-weighted blocks
of 400 ms, summed over channels. Blocks overlap by three quarters. Those below -70 LUFS, or 10 LU
below the rest, do not count. FFmpeg counts blocks in steps of 0.01 LU, so that is its precision.
"""

import dataclasses
import fractions
import math
from collections.abc import Iterable, Iterator

import av
import av.filter
import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float

_BLOCK = 0.4  # seconds
_RATE = 48_000  # samples a second of sounds whose own rate has no whole number in 100 ms
_SILENCE = -70.0  # LUFS, which FFmpeg says of what is softer
# LUFS below which a sound counts as silence, as of candidates (`sections.audio.rerank`)
SILENT = -60.0


@dataclasses.dataclass(frozen=True)
class Level:
  """How loud a sound is, in LUFS (-inf: silence), and its largest sample, 1 at full scale."""

  loudness: float
  peak: float

  @property
  def silent(self) -> bool:
    """Whether there is nothing to hear that would be worth amplifying."""
    return self.loudness < SILENT

  def gain(self, target: float = -16.0, ceiling: float = -1.0, limit: float = math.inf) -> float:
    """The factor that brings the sound to `target` LUFS, or as near as possible.

    It is at most `limit` dB, of silence 0 dB, and no sample gets above `ceiling` dBFS.
    """
    gain_db = 0.0 if self.silent else min(target - self.loudness, limit)
    return min(10 ** (gain_db / 20), 10 ** (ceiling / 20) / max(self.peak, 1e-9))


def measure_loudness(chunks: Iterable[Float[np.ndarray, '_ c']], rate: int) -> Level:
  """Measures a sound that comes in pieces of one or two channels, in constant memory.

  A sound shorter than a block, which FFmpeg does not measure, counts as one block of its own mean
  power; at 5 ms that is right to 0.5 LU.
  Raises DataError if there is nothing to measure, or a sample is not a number.
  """
  meter = None
  begin = []
  peak = 0.0
  total = 0
  block = math.ceil(_BLOCK * rate)
  for chunk in chunks:
    if chunk.ndim != 2 or chunk.shape[1] not in (1, 2) or not np.isfinite(chunk).all():
      raise DataError(
        f'loudness is of finite numbers (samples, 1 or 2 channels), got {chunk.dtype} {chunk.shape}'
      )
    if not len(chunk):
      continue
    meter = meter or _Meter(rate, chunk.shape[1])
    meter.push(chunk)
    if total < block:
      begin.append(chunk[: block - total])
    peak = max(peak, float(np.abs(chunk).max()))
    total = total + len(chunk)
  if meter is None:
    raise DataError('there is no sound to measure, it lasts 0 s')
  if total < block:
    meter = _Meter(rate, begin[0].shape[1])
    padding = np.zeros((block - total, begin[0].shape[1]))
    meter.push(np.concatenate([*begin, padding]) * math.sqrt(block / total))
  loudness = meter.close()
  return Level(-math.inf if loudness <= _SILENCE else loudness, peak)


class _Meter:
  """FFmpeg's filter with a sound passing through it."""

  def __init__(self, rate: int, channels: int):
    self._rate = rate
    self._layout = ('mono', 'stereo')[channels - 1]
    self._graph = av.filter.Graph()
    self._count = 0
    self._loudness = _SILENCE
    form = {'format': 'dbl', 'sample_rate': rate, 'layout': self._layout}
    source = self._graph.add_abuffer(**form, time_base=fractions.Fraction(1, rate))
    # FFmpeg's blocks are whole samples in steps of 100 ms: other rates lose the last ones.
    resampler = self._graph.add('aresample', str(rate if rate % 10 == 0 else _RATE))
    meter = self._graph.add('ebur128', 'metadata=1')
    sink = self._graph.add('abuffersink')
    source.link_to(resampler)
    resampler.link_to(meter)
    meter.link_to(sink)
    self._graph.configure()

  def push(self, chunk: Float[np.ndarray, '_ c']) -> None:
    samples = np.ascontiguousarray(chunk, np.float64).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format='dbl', layout=self._layout)
    frame.sample_rate, frame.pts = self._rate, self._count
    self._count += len(chunk)
    self._graph.push(frame)
    self._read()

  def close(self) -> float:
    """Returns the loudness of all that was pushed."""
    self._graph.push(None)
    self._read()
    return self._loudness

  def _read(self) -> None:
    while True:
      try:
        metadata = self._graph.pull().metadata
      except (BlockingIOError, EOFError):  # it wants more, or has given everything
        return
      self._loudness = float(metadata.get('lavfi.r128.I', self._loudness))


def loudness(sound: Float[np.ndarray, 's c'], rate: int) -> float:
  """Returns the integrated loudness of a sound in LUFS, -inf if it is silent."""
  return measure_loudness([sound], rate).loudness


def normalise(
  sound: Float[np.ndarray, 's c'],
  rate: int,
  target: float = -16.0,
  ceiling: float = -1.0,
  limit: float = math.inf,
) -> Float[np.ndarray, 's c']:
  """Brings a sound to `target` LUFS, then lowers it until no sample is above `ceiling` dBFS.

  One factor of at most `limit` dB for the whole sound: nothing is limited or clipped, and silence
  stays. For a sound in pieces: `amplified(chunks, measure_loudness(...).gain())`.
  """
  gain = measure_loudness([sound], rate).gain(target, ceiling, limit)
  (amplified_sound,) = amplified([sound], gain)
  return amplified_sound


def amplified(
  chunks: Iterable[Float[np.ndarray, '_ c']], gain: float
) -> Iterator[Float[np.ndarray, '_ c']]:
  """Yields the pieces of a sound, each times `gain`."""
  for chunk in chunks:
    yield chunk * np.asarray(gain, chunk.dtype)
