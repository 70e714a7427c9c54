"""A trained CLIP from its work directory: images, frames and texts to unit vectors."""

import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.checkpoints.workdir import load_params, read_config_of
from mgjax.clip.model import make_clip_model
from mgjax.clip.task import make_tokenizer
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.resize import averaging
from mgjax.core.settings import fields_of
from mgjax.core.typing import Array, Float, UInt8
from mgjax.text.tokenizers import encode_texts

BATCH_SIZE = 256  # images or texts at once


class Clip:
  """Compares images, frames and texts by cosines: all are unit vectors of one space.

  Attributes:
    config: of the run.
    identity: whether the model has a head for identities.
    weights: of which run and step, for records.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    """Reads the averaged weights of a run of `launch.train`.

    Raises:
      ConfigError: the directory is not that of a CLIP.
      CheckpointError: there is no checkpoint that can be trusted.
    """
    self.config = read_config_of(workdir, 'clip', 'a CLIP')
    params, meta = load_params(workdir)
    self.weights = {'workdir': os.fspath(workdir), 'step': meta['step']}
    model = make_clip_model(fields_of(self.config, 'model'))
    self.identity = model.identity > 0
    self._size, self._length = model.vision.size, model.text.positions
    self._tokenizer = make_tokenizer(self.config)
    variables = {'params': params}
    self._see = jax.jit(lambda images: model.apply(variables, images, method='see'))
    self._recognise = jax.jit(lambda images: model.apply(variables, images, method='recognise'))
    self._read = jax.jit(lambda *inputs: model.apply(variables, *inputs, method='read'))

  def encode_images(self, images: np.ndarray) -> Float[np.ndarray, 'b p']:
    """Returns a unit vector of every image of bytes (b h w 3).

    Of an image of another size than training had, its middle square is seen, averaged.

    Raises:
      DataError: the images are of another type or shape.
    """
    return self._of_images(self._see, images)

  def encode_identities(self, images: np.ndarray) -> Float[np.ndarray, 'b q']:
    """Returns a unit vector of whom or what every image shows, as `encode_images`.

    They are no vectors of texts: only their cosines with each other mean something.

    Raises:
      ConfigError: the model was trained on captions alone.
      DataError: the images are of another type or shape.
    """
    if not self.identity:
      raise ConfigError(
        'this CLIP has no head for identities; train one with model.identity, as in '
        'configs/digits/clip.py, or compare encode_images'
      )
    return self._of_images(self._recognise, images)

  def _of_images(self, run: Callable[..., Array], images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
      raise DataError(f'images of {images.dtype} {images.shape}; expected uint8 (b h w 3)')
    return _in_batches(lambda rows: run(_squares(rows, self._size)), images)

  def encode_frames(self, video: UInt8[np.ndarray, 'b t h w 3']) -> Float[np.ndarray, 'b t p']:
    """Returns a unit vector of every frame of videos."""
    found = self.encode_images(video.reshape(-1, *video.shape[2:]))
    return found.reshape(*video.shape[:2], -1)

  def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, 'b p']:
    """Returns a unit vector a text."""
    return _in_batches(self._read, *encode_texts(self._tokenizer, texts, self._length))

  def similarity(
    self, images: UInt8[np.ndarray, 'b h w 3'], texts: Sequence[str]
  ) -> Float[np.ndarray, 'b n']:
    """Returns the cosine of every image with every text."""
    return self.encode_images(images) @ self.encode_texts(texts).T


def _in_batches(run: Callable[..., Array], *arrays: np.ndarray) -> Float[np.ndarray, 'b p']:
  """Runs over rows, at most so many at once; a few are filled up, for each size is a program."""
  found = []
  for first in range(0, len(arrays[0]), BATCH_SIZE):
    rows = [array[first : first + BATCH_SIZE] for array in arrays]
    count = len(rows[0])
    filled = np.resize(np.arange(count), 1 << (count - 1).bit_length())
    found.append(np.asarray(run(*(each[filled] for each in rows)))[:count])
  return np.concatenate(found)


def _squares(images: UInt8[np.ndarray, 'b h w 3'], size: int) -> Float[Array, 'b s s 3']:
  side = min(images.shape[1:3])
  top, left = ((length - side) // 2 for length in images.shape[1:3])
  images = images[:, top : top + side, left : left + side].astype(np.float32) / 255
  if side == size:
    return jnp.asarray(images)
  weights = averaging(side, size)
  return jnp.asarray(np.einsum('bhwc,ih,jw->bijc', images, weights, weights, optimize=True))
