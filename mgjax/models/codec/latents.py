"""Encodes audio of any length into normalised latents and decodes them (Movie Gen §6)."""

from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp

from mgjax.core.typing import Array, Float, Tree
from mgjax.models.codec.model import CODEC_RATE, Codec
from mgjax.models.codec.streaming import STREAMING_STEP, Rows, decode_stream, encode_stream
from mgjax.models.tae.latents import Statistics


class AudioCodec:
  """A trained codec with its statistics: z = (mean of q(z | x) - m_c) / s_c, and back.

  `rate` is in samples a second, `compression` in samples a latent.
  """

  def __init__(
    self,
    model: Codec,
    params: Tree,
    statistics: Statistics,
    rate: int = CODEC_RATE,
    fingerprints: Sequence[str] = (),
  ):
    """Binds what makes up the codec; of `fingerprints` see `sections/autoencoder/pipeline.py`."""
    self.model = model
    self.params = params
    self.statistics = statistics
    self.rate = rate
    self.fingerprints = tuple(fingerprints)
    self.compression = model.compression
    self._encode = jax.jit(self.encode_rows)
    self._decode = jax.jit(self.decode_rows, static_argnames='samples')

  @property
  def latent_rate(self) -> float:
    """Latents a second."""
    return self.rate / self.compression

  def encode(self, sound: Rows) -> Float[Array, 'b t c']:
    """Encodes samples (b s c) in [-1, 1] into ceil(s / compression) normalised latents.

    Raises DataError if there are no samples, they are not floats or their channels are others.
    """
    return self._encode(self.params, jnp.asarray(sound))

  def decode(self, latents: Rows, samples: int | None = None) -> Float[Array, 'b s c']:
    """Decodes normalised latents (b t c) into the first `samples`, by default all.

    Raises DataError if there are no latents, their channels are others, or they are too few.
    """
    return self._decode(self.params, jnp.asarray(latents), samples=samples)

  def encode_stream(self, chunks: Iterable[Rows], step: int = STREAMING_STEP) -> Iterator[Array]:
    """Encodes sound that comes in chunks of any lengths; see `mgjax/models/codec/streaming.py`."""
    for posterior in encode_stream(self.model, self.params, chunks, step):
      yield self.statistics.normalised(posterior.mean)

  def decode_stream(
    self, chunks: Iterable[Rows], samples: int | None = None, step: int = STREAMING_STEP
  ) -> Iterator[Array]:
    """Decodes latents that come in chunks of any lengths; see `mgjax/models/codec/streaming.py`."""
    plain = (self.statistics.plain(jnp.asarray(chunk)) for chunk in chunks)
    yield from decode_stream(self.model, self.params, plain, samples, step)

  def encode_rows(self, params: Tree, sound: Float[Array, 'b s c']) -> Float[Array, 'b t e']:
    """Encodes as `encode` does, without its checks; a function to compile."""
    posterior = self.model.apply({'params': params}, sound, method='encode')
    return self.statistics.normalised(posterior.mean)

  def decode_rows(
    self, params: Tree, latents: Float[Array, 'b t e'], *, samples: int | None = None
  ) -> Float[Array, 'b s c']:
    """Decodes as `decode` does, without its checks; a function to compile."""
    plain = self.statistics.plain(latents)
    return self.model.apply({'params': params}, plain, samples, method='decode')
