"""A trained CLIP from its work directory, and its vision tower alone, which reads frames."""

import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.resize import averaging
from mgjax.core.settings import fields_of
from mgjax.core.typing import Array, Float, Tree, UInt8
from mgjax.models.clip.model import make_clip_model
from mgjax.models.clip.towers import clip_inputs, make_clip_vision
from mgjax.models.text.tokenizers import encode_texts
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import make_place, on_every_device, put_batch
from mgjax.sections.text.tokenizer_folder import make_tokenizer
from mgjax.training.checkpoints.find_run import find_run, read_needed
from mgjax.training.checkpoints.fingerprints import fingerprint_of
from mgjax.training.checkpoints.load_params import describe_average, load_params
from mgjax.training.checkpoints.workdir import read_config, read_config_of

_BATCH_SIZE = 256  # images or texts at once
FRAMES = 64  # that a device takes at once; of ViT-H/14 some GB of activations


class Clip:
  """Compares images, frames and texts by cosines: all are unit vectors of one space.

  `identity` says whether the model has a head for identities, `weights` of which run and step it
  is.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    """Reads the averaged weights of a run of `launch.train`.

    Raises ConfigError if the directory is not that of a CLIP, or CheckpointError if there is no
    checkpoint that can be trusted.
    """
    self.config = read_config_of(workdir, 'clip', 'a CLIP')
    params, meta = load_params(workdir)
    self.weights = {'workdir': os.fspath(workdir), 'step': meta['step']}
    model = make_clip_model(fields_of(self.config, 'model'))
    self.identity = model.identity > 0
    size, self._length = model.vision.size, model.text.positions
    self._tokenizer = make_tokenizer(self.config.tokenizer, fields_of(self.config, 'model')['text'])
    variables = {'params': params}

    def of_images(method: str) -> Callable[..., Array]:
      return jax.jit(lambda images: model.apply(variables, _squares(images, size), method=method))

    self._see, self._recognise = of_images('see'), of_images('recognise')
    self._read = jax.jit(lambda *inputs: model.apply(variables, *inputs, method='read'))

  def encode_images(self, images: np.ndarray) -> Float[np.ndarray, 'b p']:
    """Returns a unit vector of every image of bytes (b h w 3).

    Of an image of another size than training had, its middle square is seen, averaged. Raises
    DataError if the images are of another type or shape.
    """
    _check_images(images)
    return _in_batches(self._see, images)

  def encode_identities(self, images: np.ndarray) -> Float[np.ndarray, 'b q']:
    """Returns a unit vector of whom or what every image shows, as `encode_images`.

    They are no vectors of texts: only their cosines with each other mean something. Raises
    ConfigError if the model was trained on captions alone, or DataError if the images are of
    another type or shape.
    """
    if not self.identity:
      raise ConfigError(
        'this CLIP has no head for identities; train one with model.identity, as in '
        'configs/digits/clip.py, or compare encode_images'
      )
    _check_images(images)
    return _in_batches(self._recognise, images)

  def encode_frames(self, video: UInt8[np.ndarray, 'b t h w 3']) -> Float[np.ndarray, 'b t p']:
    """Returns a unit vector of every frame of videos."""
    vectors = self.encode_images(video.reshape(-1, *video.shape[2:]))
    return vectors.reshape(*video.shape[:2], -1)

  def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, 'b p']:
    """Returns a unit vector a text."""
    return _in_batches(self._read, *encode_texts(self._tokenizer, texts, self._length))

  def similarity(
    self, images: UInt8[np.ndarray, 'b h w 3'], texts: Sequence[str]
  ) -> Float[np.ndarray, 'b n']:
    """Returns the cosine of every image with every text."""
    return self.encode_images(images) @ self.encode_texts(texts).T


class FrameEncoder:
  """A frozen vision tower: frames to their projected embeddings, on all devices of this process.

  With the weights of Long-prompt MetaCLIP, what the audio model reads of pictures (Movie Gen §6).
  `width` is the numbers a frame p.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    """Reads a tower that `launch.weights import` made, or that of a trained CLIP.

    Raises ConfigError if the directory holds neither, or CheckpointError if it has no checkpoint
    that can be trusted.
    """
    fields, subtree = _read_tower(workdir)
    model = make_clip_vision(fields)
    self.width = model.projection or model.dim
    self._mesh = make_mesh({'fsdp': -1}, 'fsdp', devices=jax.local_devices())
    boxed = jax.eval_shape(model.init, jax.random.key(0), *clip_inputs(model))['params']
    boxed = {subtree: boxed} if subtree else boxed
    params, _ = load_params(workdir, sharding_of=make_place(boxed, self._mesh), subtree=subtree)
    params = params[subtree] if subtree else params

    @jax.jit
    def see(params, frames) -> Array:
      _, vectors = model.apply({'params': params}, _squares(frames, model.size))
      return vectors.astype(jnp.float32)

    def run(frames: np.ndarray) -> Array:
      with jax.set_mesh(self._mesh):
        return see(params, put_batch({'frames': frames}, self._mesh)['frames'])

    self._run = run

  def __call__(self, frames: np.ndarray) -> Float[np.ndarray, 't p']:
    """Returns the vector of every frame of bytes (t h w 3), of its middle square.

    Raises DataError if the frames are of another type or shape, or vectors are not finite.
    """
    _check_images(frames)
    devices = self._mesh.size
    vectors = _in_batches(self._run, frames, most=FRAMES * devices, least=devices)
    if not np.isfinite(vectors).all():
      raise DataError('the embeddings of frames are not finite; compute in bfloat16 or float32')
    return vectors


def make_patches(
  workdir: str | os.PathLike[str],
) -> tuple[Callable[[Tree, Float[Array, 'b h w 3']], Float[Array, 'b s s e']], Tree]:
  """Makes the patch features of a frozen vision tower: a function to compile, and its parameters.

  It takes images in [0, 1] of any size. Errors are those of `FrameEncoder`.
  """
  fields, subtree = _read_tower(workdir)
  model = make_clip_vision(fields)
  params, _ = load_params(workdir, sharding_of=on_every_device(), subtree=subtree)

  def see(params: Tree, images: Float[Array, 'b h w 3']) -> Float[Array, 'b s s e']:
    images = jax.image.resize(images, (len(images), model.size, model.size, 3), 'linear')
    states, _ = model.apply({'params': params}, images)
    side = model.size // model.patch
    return states[:, 1:].reshape(len(images), side, side, -1)

  return see, params[subtree] if subtree else params


def tower_identity(workdir: str | os.PathLike[str]) -> str:
  """Returns a hash of all that the vectors of a vision tower depend on beside the frames.

  The model's fields with its compute type, and the fingerprint of every parameter. Raises
  ConfigError if the directory holds no vision tower, or CheckpointError if it has no checkpoint
  that can be trusted.
  """
  fields, subtree = _read_tower(workdir)
  return fingerprint_of([fields, describe_average(workdir, subtree)])


def find_frame_encoder(
  workdir: str | os.PathLike[str], tower: str | os.PathLike[str], identity: str
) -> FrameEncoder:
  """Loads the tower whose vectors a model learned to read, also from beside a moved model.

  `tower` is its work directory as the model's configuration says, `identity` the
  `tower_identity` that it learned. Raises ConfigError if it is not there, or is another.
  """
  read = lambda path: (path, [tower_identity(path)])  # noqa: E731
  return FrameEncoder(read_needed(workdir, tower, 'the encoder of frames', identity, read))


def _read_tower(workdir: str | os.PathLike[str]) -> tuple[JSON, str]:
  """Returns the fields of a vision tower, and the subtree that its parameters are in."""
  if not os.path.exists(os.path.join(find_run(workdir), 'config.json')):
    raise ConfigError(
      f'there is no encoder of frames at {os.fspath(workdir)!r}; import one with launch.weights '
      'import --config=configs/text/metaclip_vision.py --input=... '
      f'--workdir={os.fspath(workdir)}, or mend the path'
    )
  config = read_config(workdir)
  if config.component not in ('clip', 'clip_vision'):
    raise ConfigError(
      f'{os.fspath(workdir)!r} is of the component {config.component!r}; expected clip_vision, as '
      'launch.weights import makes, or clip, as launch.train does'
    )
  fields = fields_of(config, 'model')
  return (fields['vision'], 'vision') if config.component == 'clip' else (fields, '')


def _check_images(images: np.ndarray) -> None:
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
    raise DataError(f'images of {images.dtype} {images.shape}; expected uint8 (b h w 3)')


def _in_batches(
  run: Callable[..., Array], *arrays: np.ndarray, most: int = _BATCH_SIZE, least: int = 1
) -> Float[np.ndarray, 'b p']:
  """Runs over at most `most` rows at once; pads fewer to `least`, 2 `least`, 4 `least` ..."""
  vectors = []
  for first in range(0, len(arrays[0]), most):
    rows = [array[first : first + most] for array in arrays]
    count = len(rows[0])
    padded_count = least
    while padded_count < count:
      padded_count *= 2
    filled = np.resize(np.arange(count), padded_count)
    vectors.append(np.asarray(run(*(array[filled] for array in rows)))[:count])
  return np.concatenate(vectors)


def _squares(images: UInt8[Array, 'b h w 3'], size: int) -> Float[Array, 'b s s 3']:
  """Returns the middle squares in [0, 1], averaged to `size` pixels a side."""
  side = min(images.shape[1:3])
  top, left = ((length - side) // 2 for length in images.shape[1:3])
  images = images[:, top : top + side, left : left + side].astype(jnp.float32) / 255
  if side == size:
    return images
  weights = averaging(side, size)
  return jnp.einsum('bhwc,ih,jw->bijc', images, weights, weights, precision='highest')
