"""Streams audio of any length through the codec in constant memory (Movie Gen §6).

Pieces overlap by the receptive field, and only what no cut can have changed is kept: the result is
that of the whole.
"""

import functools
import math
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Array, Float, Tree
from mgjax.models.codec.layers import DILATIONS, WINDOW
from mgjax.models.codec.model import Codec, Posterior

Rows = Array | np.ndarray  # (b n c), on the devices or on the host

STREAMING_STEP = 250  # latents of which the results are kept at a time: 10 s; not in public sources
_EDGE = WINDOW // 2


def encoder_reach(strides: tuple[int, ...]) -> tuple[int, int]:
  """Returns how many samples, or patches, a latent sees before and after those of its own."""
  # what latent 0 sees: at first of the input of a convolution of window 3
  first = -1
  last = 1
  compression = 1
  for stride in reversed(strides):
    first = stride * first - stride // 2
    last = stride * last + 2 * stride - 1 - stride // 2
    first = first - _EDGE * sum(DILATIONS)
    last = last + _EDGE * sum(DILATIONS)
    compression *= stride
  return _EDGE - first, last + _EDGE - (compression - 1)


def decoder_reach(strides: tuple[int, ...]) -> tuple[int, int]:
  """Returns how many latents before and after their own the samples, or patches, of one see."""
  # what the samples of latent 0 see
  first = -_EDGE
  last = math.prod(strides) - 1 + _EDGE
  for stride in strides:
    first = first - _EDGE * sum(DILATIONS)
    last = last + _EDGE * sum(DILATIONS)
    first = (first + stride // 2) // stride - 1
    last = (last + stride // 2) // stride
  return _EDGE - first, last + _EDGE


def encode_stream(
  codec: Codec, params: Tree, chunks: Iterable[Rows], step: int = STREAMING_STEP
) -> Iterator[Posterior]:
  """Encodes sound that comes in chunks of any length; the result is that of `Codec.encode`.

  Yields the posterior of `step` latents at a time; the last one may be longer by the context of a
  latent. Raises ConfigError if `step` is not positive, or DataError if there is no sound, or
  the codec cannot read it.
  """
  own = math.prod(codec.strides)
  before, after = (-(-reach // own) for reach in encoder_reach(codec.strides))
  for piece, skip, keep in _pieces(chunks, step, before, after, codec.compression):
    posterior = _apply(codec, params, piece, 'encode')
    yield jax.tree.map(lambda x, kept=slice(skip, skip + keep): x[:, kept], posterior)


def decode_stream(
  codec: Codec,
  params: Tree,
  chunks: Iterable[Rows],
  samples: int | None = None,
  step: int = STREAMING_STEP,
) -> Iterator[Float[Array, 'b s c']]:
  """Decodes latents that come in chunks of any length; the result is that of `Codec.decode`.

  Yields the samples of `step` latents at a time, in total `samples`, by default all of them. Raises
  ConfigError if `step` is not positive, or DataError if there are no latents, fewer
  than `samples` needs, or the codec cannot read them.
  """
  if samples is not None and samples < 1:
    raise DataError(f'{samples} samples are asked of a stream; expected 1 at least')
  num_samples = 0
  size = codec.compression
  for piece, skip, keep in _pieces(chunks, step, *decoder_reach(codec.strides), 1):
    sound = _apply(codec, params, piece, 'decode')[:, skip * size : (skip + keep) * size]
    sound = sound[:, : None if samples is None else samples - num_samples]
    num_samples += sound.shape[1]
    if sound.shape[1]:
      yield sound
    if num_samples == samples:
      return
  if samples is not None:
    raise DataError(f'{samples} samples are asked of latents that stand for {num_samples}')


def _pieces(
  chunks: Iterable[Rows], step: int, before: int, after: int, size: int
) -> Iterator[tuple[np.ndarray, int, int]]:
  """Yields pieces with the number of latents to skip at their start, and the number to keep.

  Chunks (b n c) have `size` numbers along n for each latent. `step` latents of a piece are kept,
  and all remaining ones of the last. `before` and `after` are the numbers of latents of context.
  """
  if step < 1:
    raise ConfigError(f'a step of {step} latents; expected 1 at least')
  buffer = None
  skip = 0
  for chunk in map(np.asarray, chunks):
    if chunk.ndim != 3 or (buffer is not None and chunk.shape[::2] != buffer.shape[::2]):
      raise DataError(
        f'a chunk of shape {chunk.shape}; expected 3 axes, (b n c), of which only n may differ '
        'from chunk to chunk'
      )
    buffer = chunk if buffer is None else np.concatenate((buffer, chunk), axis=1)
    while buffer.shape[1] >= (skip + step + after) * size:
      yield buffer[:, : (skip + step + after) * size], skip, step
      done = max(skip + step - before, 0)
      buffer = buffer[:, done * size :]
      skip += step - done
  if buffer is None or not buffer.shape[1]:
    raise DataError('the stream is empty; expected sound or latents')
  yield buffer, skip, -(-buffer.shape[1] // size) - skip


@functools.partial(jax.jit, static_argnums=(0, 3))
def _apply(codec: Codec, params: Tree, rows: Array, method: str) -> Posterior | Array:
  return codec.apply({'params': params}, rows, method=method)
