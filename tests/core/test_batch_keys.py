"""The table of batch keys: it has what sources make and what conditionings share, as they do."""

import importlib.util

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mgjax.audio.task import WithFeatures
from mgjax.core.batch_keys import KEYS, MASKS, STATES, find_key
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.replacement import Replacing
from mgjax.data.settings import audio_shapes, data_settings, video_shapes
from mgjax.data.sources import make_sources
from mgjax.digits.clips import EXTRAS, Digits
from mgjax.digits.scene import AUDIBLE
from mgjax.media.compression import jpeg, video_codec
from mgjax.upsampler.degradation import Degraded
from mgjax.upsampler.recipe import Degradation
from mgjax.workflows.encode import ABOUT
from tests.conditioning.test_contract import ALL, LATENTS, ROWS, batch_of, conditionings, make
from tests.media.audio_files import encode_video, noise

SHAPE = {'frames': 4, 'height': 32, 'width': 48}


def check(sample, batched=False):
  """Raises where a key is missing, or of another shape or type than the table says."""
  for name, value in sample.items():
    key = find_key(name)
    assert key is not None, f'{name} is not in mgjax/core/batch_keys.py'
    assert key.batched or not batched, f'{name} is in a batch, which the table denies'
    plain = isinstance(value, str | dict)
    dtype = type(value).__name__ if plain else np.asarray(value).dtype
    kinds = {str(dtype)}
    if not plain:
      groups = {'float': jnp.floating, 'int': jnp.integer}
      kinds |= {group for group, kind in groups.items() if jnp.issubdtype(dtype, kind)}
    assert kinds & set(key.dtype.split(' or ')), f'{name} is {dtype}, the table says {key.dtype}'
    sizes = () if plain else np.shape(value)
    fits = [
      len(axes) == len(sizes)
      and all(axis.isalpha() or int(axis) == size for axis, size in zip(axes, sizes, strict=True))
      for axes in map(str.split, key.shape.split(' or '))
    ]
    assert any(fits), f'{name} is of shape {sizes}, the table says {key.shape}'


@ALL
def test_what_a_conditioning_shares_with_others_is_in_the_table(kind):
  others = [make(other).requires(LATENTS) for other in conditionings() if other is not kind]
  for name, array in batch_of(kind).items():
    if find_key(name) or any(name in requires for requires in others):
      for row in range(ROWS):  # a key that it makes for itself alone is its own affair
        check({name: np.asarray(array[row])}, batched=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('media')
  frames = np.random.default_rng(0).integers(0, 256, (25, 32, 32, 3)).astype(np.uint8)
  encode_video(folder / 'clip.mp4', frames, noise(1.0))
  return folder


WORLD = {
  'fps': 8, 'digits': {'motions': (*AUDIBLE, 'left'), 'frames': 4, 'extras': EXTRAS},
  'signs': {'motions': ('left',), 'frames': 4, 'extras': EXTRAS},
}  # fmt: skip


@pytest.mark.parametrize('split', ['train', 'validation'])
@pytest.mark.parametrize('kind', ['digits', 'signs'])
def test_what_the_small_world_makes_is_in_the_table(kind, split):
  data = data_settings(WORLD | {'kind': kind})
  check(Replacing(make_sources(data, video_shapes({'video': SHAPE}, 8), split)['video'])[0])


def test_what_degraded_clips_have_beside_is_in_the_table():
  source = Digits(frames=4, size=(32, 48))
  check(Degraded(source, Degradation(blur_scale=0.25), jpeg=jpeg, video_codec=video_codec)[0])


@pytest.mark.parametrize('size', [{}, {'height': 32, 'width': 32}])
def test_what_its_sounds_are_is_in_the_table(size):
  world = {'motions': AUDIBLE, 'extras': EXTRAS}
  data = data_settings({'kind': 'digits', 'fps': 8, 'digits': world})
  shapes = audio_shapes({'sound': {'seconds': 0.5, **size}})
  source = make_audio_sources(data, shapes, 'train')['sound']
  check(source[0])
  check(WithFeatures(source, 8, 10, 20.0)[0])


def test_what_files_make_is_in_the_table(folder):
  data = {'path': str(folder), 'fps': 8}
  size = {'height': 16, 'width': 16}
  shapes = video_shapes({'video': SHAPE | size}, 8)
  check(make_sources(data_settings(data | {'kind': 'clips'}), shapes, 'train')['video'][0])
  for kind, more in (('clips', size), ('sounds', {})):
    shapes = audio_shapes({'a': {'seconds': 0.5, **more}})
    check(make_audio_sources(data_settings(data | {'kind': kind}), shapes, 'train')['a'][0])


def test_what_rows_of_latents_keep_is_in_the_table():
  assert set(ABOUT) < set(KEYS)
  check({'latents': np.zeros((2, 4, 4, 8), ml_dtypes.bfloat16), 'text_key': 'a'})


@pytest.mark.parametrize('key', [*KEYS.values(), STATES, MASKS])
def test_makers_and_readers_are_modules(key):
  for name in (*key.makers, *key.readers):
    assert importlib.util.find_spec(f'mgjax.{name}'), name


def test_a_key_that_nobody_knows_is_told():
  with pytest.raises(AssertionError, match='colours is not in'):
    check({'colours': 'red'})
  with pytest.raises(AssertionError, match=r'video is of shape .*, the table says t h w 3'):
    check({'video': np.zeros((2, 4, 4, 1), np.uint8)})
