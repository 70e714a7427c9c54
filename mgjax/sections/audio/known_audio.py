"""Audio that is known already, which the model extends or whose gaps it fills."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Bool, Float
from mgjax.models.codec.latents import AudioCodec


class KnownAudio:
  """The known stretches of a soundtrack: latents for the model, samples for the result.

  Its latents are held, 13 kB a second in the published codec; its samples are read again when they
  are needed. `known` (t,) says which latents are known: those whose sound is given altogether.
  """

  def __init__(
    self,
    codec: AudioCodec,
    stream: Callable[[], Iterable[np.ndarray]],
    seconds: float,
    spans: Sequence[tuple[float, float]] | None = None,
  ):
    """Encodes the audio of `stream`, chunks (s c) at the codec's rate and channels.

    Of a soundtrack of `seconds` the `spans`, begin and end, are to stay, by default all of it; what
    is given beyond is not looked at. Raises ConfigError if spans are no spans, or nothing is known,
    and DataError if there is no sound, or it is not finite.
    """
    self._stream = stream
    self._step = codec.compression
    self._samples = round(seconds * codec.rate)
    length = 0
    rate = codec.latent_rate
    total = math.ceil(seconds * rate - 1e-6)

    def rows() -> Iterator[np.ndarray]:
      nonlocal length
      for chunk in self._read():
        length += len(chunk)
        yield chunk[None]

    latents = np.concatenate([np.asarray(part)[0] for part in codec.encode_stream(rows())])
    self._latents = np.zeros((total, 1, 1, latents.shape[-1]), np.float32)
    self._latents[: len(latents), 0, 0] = latents[:total]
    num_complete = length // self._step + (length == self._samples and length % self._step > 0)
    self.known = np.zeros(total, bool)
    for begin, end in [(0.0, seconds)] if spans is None else spans:
      if not 0 <= begin < end:
        raise ConfigError(f'{begin:g}-{end:g} s is no stretch to keep; give begin-end')
      last = total if end >= seconds else math.floor(end * rate + 1e-6)
      self.known[math.ceil(begin * rate - 1e-6) : min(last, num_complete)] = True
    if not self.known.any():
      raise ConfigError(
        f'nothing of the {length / codec.rate:g} s of sound that are given would stay; give more, '
        'or keep other seconds of it'
      )

  def window(
    self, start: int, stop: int
  ) -> tuple[Float[np.ndarray, 't 1 1 c'], Bool[np.ndarray, ' t']]:
    """Returns the latents from `start` to `stop`, and which of them are known."""
    return self._latents[start:stop], self.known[start:stop]

  def splice(
    self, generated: Iterable[Float[np.ndarray, 's c']]
  ) -> Iterator[Float[np.ndarray, 's c']]:
    """Replaces generated samples by the original ones wherever those are known.

    Over the first and the last latent of a known stretch that borders on generated sound, the two
    are blended; elsewhere in the stretch the samples are the original ones.
    """
    source = self._read()
    held = None
    position = 0
    for chunk in generated:
      held = chunk[:0] if held is None else held
      while len(held) < len(chunk) and (piece := next(source, None)) is not None:
        held = np.concatenate([held, piece])
      original = held[: len(chunk)]
      held = held[len(chunk) :]
      share = self._share(position, position + len(original))[:, None]
      mixed = np.where(
        share > 0, share * original + (1 - share) * chunk[: len(original)], chunk[: len(original)]
      )
      yield np.concatenate([mixed.astype(chunk.dtype), chunk[len(original) :]])
      position += len(chunk)

  def _share(self, start: int, stop: int) -> Float[np.ndarray, ' s']:
    """Returns the weight of the original in each sample."""
    sample = np.arange(start, stop)
    latent = sample // self._step
    known = np.pad(self.known, 1, mode='edge')  # the soundtrack's ends border on nothing
    before, itself, after = (known[latent + shift] for shift in range(3))
    rise = (sample % self._step + 0.5) / self._step
    share = np.where(before, 1.0, rise) * np.where(after, 1.0, 1 - rise)
    return np.where(itself, share, 0.0)

  def _read(self) -> Iterator[np.ndarray]:
    remaining = self._samples
    for chunk in self._stream():
      chunk = np.asarray(chunk, np.float32)[:remaining]
      if not np.isfinite(chunk).all():
        raise DataError('the given sound holds samples that are no numbers')
      remaining -= len(chunk)
      yield chunk
      if not remaining:
        return
