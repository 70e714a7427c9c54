"""The autoencoder without temporal layers: frames by themselves, diffusers' model bit by bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.upsampler import image_autoencoder
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.models.tae.inflate import deflate, without_time
from mgjax.models.tae.latents import LatentCodec, Statistics
from mgjax.models.tae.tiling import Tiling
from mgjax.models.tae.weights import AUTOENCODER_FORMAT
from tests.models.tae.test_inflate import (
  answers,
  check_answers,
  tensors_of,
  untrained,
  vectors,
  write_folder,
)
from tests.oracles import image_autoencoder as oracle
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
FIELDS = {'latent_channels': 4, 'widths': (8, 8), 'strides': ((1, 2, 2),), 'blocks': 0, 'groups': 4}
VIDEO, IMAGE = Autoencoder(**FIELDS), Autoencoder(**FIELDS, temporal=False)
# Two dozen convolutions of at most 9 x 8 terms in a row, between values that norms keep near 1.
TOLERANCE = 24 * 72 * EPS


def frames(count, seed=0):
  shape = (1, count, 16, 24, 3)
  return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@functools.cache
def parameters():
  return random_parameters(IMAGE.init, jnp.zeros((1, 1, 16, 16, 3)), jax.random.key(0))


@functools.cache
def program(model, method):
  return jax.jit(lambda params, x: model.apply({'params': params}, x, method=method))


def inputs(count=5):
  """Pixels of some frames to encode, and latents of as many to decode."""
  rng = np.random.default_rng(1)
  shapes = {'encode': (1, count, 16, 24, 3), 'decode': (1, count, 8, 12, 4)}
  return {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def check_same(found, exact):
  check = functools.partial(np.testing.assert_allclose, atol=TOLERANCE)
  jax.tree.map(check, jax.tree.map(np.asarray, found), exact)


def test_a_video_is_its_frames_one_by_one():
  for method, x in inputs().items():
    run = program(IMAGE, method)
    together = jax.tree.map(np.asarray, run(parameters(), x))
    for index in range(x.shape[1]):
      frame = slice(index, index + 1)
      alone = run(parameters(), x[:, frame])
      check_same(alone, jax.tree.map(lambda leaf: leaf[:, frame], together))  # noqa: B023


def test_a_video_model_begins_as_the_image_model_of_its_spatial_layers():
  params = untrained(VIDEO)
  assert any('temporal' in name for name in named_leaves(params))
  spatial = without_time(params)
  assert jax.tree.structure(spatial) == jax.tree.structure(parameters())
  assert not any('temporal' in name for name in named_leaves(spatial))
  for method, x in inputs().items():
    check_same(program(VIDEO, method)(params, x), program(IMAGE, method)(spatial, x))


def test_without_temporal_layers_no_stride_compresses_time():
  model = make_autoencoder(FIELDS | {'strides': ((2, 2, 2),), 'temporal': False})
  # The checks of types in tests stand between: they hand on the error as the cause of theirs.
  with pytest.raises((ConfigError, TypeError)) as caught:
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1, 16, 16, 3)), jax.random.key(0))
  said = str(caught.value.__cause__ or caught.value)
  assert 'temporal = False, and strides ((2, 2, 2),) compress time; give strides of (1, 2' in said


@pytest.mark.parametrize('name', oracle.MODELS)
def test_diffusers_model_is_imported_and_exported_bit_by_bit(name, tmp_path):
  config = image_autoencoder.get_config()
  config.model.dtype = 'float32'
  write_folder(tmp_path, name)
  weights = AUTOENCODER_FORMAT.read(config.model.to_dict(), tmp_path, seed=0, keep_type=False)
  levels = len(vectors(name)['config']['block_out_channels'])
  assert weights.model['strides'] == ((1, 2, 2),) * (levels - 1)
  tensors, left_out = deflate(weights.params)
  assert not left_out
  assert {key: x.tobytes() for key, x in tensors.items()} == {
    key: x.tobytes() for key, x in tensors_of(name).items()
  }
  model = make_autoencoder(weights.model)
  assert not model.temporal
  exact = vectors(name)
  check_answers(answers(model, weights.params, oracle.draw_images(), exact['latents']), exact)


def test_tiles_of_time_do_not_overlap_and_are_the_whole():
  codec, whole = (
    LatentCodec(IMAGE, parameters(), Statistics.neutral(4), tiling)
    for tiling in (Tiling(frames=8, overlap=4), Tiling(frames=21))
  )
  video = frames(21)
  latents = np.asarray(whole.encode(video))
  np.testing.assert_allclose(codec.encode(video), latents, atol=TOLERANCE)
  pieces = list(codec.decode_stream([latents], 21))
  assert [piece.shape[1] for piece in pieces] == [8, 8, 5]  # with an overlap 4, 4, 4, 4, 5
  found = np.concatenate([np.asarray(piece, np.int32) for piece in pieces], axis=1)
  exact = np.asarray(whole.decode(latents, 21), np.int32)
  # Programs of other numbers of frames may round a byte the other way, where it lies on a half.
  assert np.abs(found - exact).max() <= 1 and (found != exact).mean() < 1e-3
