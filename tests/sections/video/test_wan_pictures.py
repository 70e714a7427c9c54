"""Wan's models of pictures in work directories: samples, training, devices, files."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import mgjax
from configs.wan import autoencoder as autoencoder_config
from configs.wan import image_to_video
from mgjax.api import train
from mgjax.apps.encode import encode as encode_clips
from mgjax.apps.weights.import_export import export_weights
from mgjax.apps.weights.wan_folders import import_wan
from mgjax.apps.weights.wan_values import values_of
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.data.media.viewing import write_clip
from mgjax.models.clip.weights import clip_rows
from mgjax.models.conditioning.pictures.frame_channels import FrameChannels
from mgjax.models.foreign_weights.names import export_tensors
from mgjax.models.tae.wan import encode
from mgjax.registry import make_section
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.training.checkpoints.load_params import load_params
from tests import tiny, tiny_text, tiny_wan

PICTURE = np.random.default_rng(1).integers(0, 256, (16, 32, 3), np.uint8)
KINDS = [*tiny_wan.PICTURES]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A model of each kind with random weights, and four clips."""
  runs = tiny_wan.make_runs(tmp_path_factory.mktemp('wan'))
  for kind in KINDS:
    tiny_wan.make_video(tiny_wan.video(runs, pictures=kind), runs / kind)
  (runs / 'clips').mkdir()
  for index, clip in enumerate(tiny_wan.draw_clips(4)):
    write_clip(runs / f'clips/{index}.mp4', np.repeat(clip, 2, axis=0), 16)
    (runs / f'clips/{index}.txt').write_text(f'clip {index}')
  for kind in KINDS:
    encode_clips(config_of(runs, kind, data__latents=''), runs / f'latents_{kind}')
  return runs


def config_of(runs, kind, size='debug', **changes):
  stored = {'data__path': str(runs / 'clips'), 'data__latents': str(runs / f'latents_{kind}')}
  return tiny_wan.video(runs, size, kind, **{**stored, 'start_from': str(runs / kind), **changes})


@pytest.mark.usefixtures('on_one_device')
@pytest.mark.parametrize('kind', KINDS)
def test_a_picture_is_animated_step_by_step_too(runs, kind):
  wan = mgjax.load(runs / kind)
  clip = wan('a cat', first_frame=PICTURE, seed=3)[0]
  assert clip.shape == (5, 16, 32, 3)
  watched = wan('a cat', first_frame=PICTURE, seed=3, callback=lambda *_: None)[0]
  assert np.abs(watched.astype(int) - clip).max() <= 1
  assert np.any(clip != wan('a cat', first_frame=PICTURE[::-1].copy(), seed=3)[0])
  negative = wan('a cat', first_frame=PICTURE, seed=3, negative='a dog')[0]
  assert np.any(negative != clip)
  two = wan(['a cat', 'a dog'], first_frame=[PICTURE, PICTURE], seed=3)
  assert np.abs(two[0].astype(int) - clip).max() <= 1


@pytest.mark.usefixtures('on_one_device')
def test_a_model_of_pictures_wants_one(runs):
  wan = mgjax.load(runs / 'a14b')
  with pytest.raises(ConfigError, match='a prompt has none; give one of first_frame, last_frame'):
    wan('a cat')
  with pytest.raises(ConfigError, match='a prompt has none'):
    wan(['a cat', 'a dog'], first_frame=[PICTURE, None])
  assert mgjax.load(runs / '5b')('a cat')[0].shape == (5, 16, 32, 3)  # from text alone


@pytest.mark.usefixtures('on_one_device')
def test_the_first_latent_is_that_of_the_picture(runs):
  latents = mgjax.load(runs / '5b')('a cat', first_frame=PICTURE, output_type='latent')[0]
  known = load_codec(runs / 'autoencoder').encode(PICTURE[None, None])[0]
  np.testing.assert_array_equal(latents[:1], known)


def test_latents_of_the_5b_model_are_counted_without_its_autoencoder():
  section = make_section(image_to_video.get_config('5b'))
  ((shape, latents),) = section.outline().samples().values()
  assert shape == (121, 704, 1280) and latents == (31, 44, 80, 48)
  assert math.prod(latents[:3]) // 4 == 27_280


@pytest.mark.usefixtures('on_one_device')
def test_frames_that_are_not_known_are_exactly_grey(runs):
  (clip,) = FrameChannels(4, (1, 2, 2)).clips({'first_frame': PICTURE, 'frames': 5}).values()
  codec = load_codec(runs / 'autoencoder')
  pixels = np.zeros((1, 5, 16, 32, 3), np.float32)
  pixels[:, 0] = PICTURE / np.float32(127.5) - 1
  expected = codec.statistics.normalised(encode(codec.model, codec.params, jnp.asarray(pixels)))
  np.testing.assert_allclose(codec.encode(clip[None]), expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures('on_one_device')
@pytest.mark.parametrize('kind', KINDS)
def test_it_is_trained_on_clips_and_a_stopped_run_ends_alike(runs, tmp_path, kind):
  config = config_of(runs, kind, objective__dropout__text=0.5)
  if kind == '2.1':
    config.optimizer.rates = (('picture/vision/*', 0.0), ('*', 1.0))
  tiny.resumed(config, tmp_path, 2)
  before, after = (named_leaves(load_params(path)[0]) for path in (runs / kind, tmp_path / 'whole'))
  same = [name for name in before if np.array_equal(before[name], after[name])]
  assert same == [name for name in before if name.startswith('picture/vision/')]


@pytest.mark.usefixtures('on_one_device')
def test_adapters_are_trained_beside_a_model_of_pictures(runs, tmp_path):
  config = config_of(runs, '2.1', 'debug,lora', lora__rank=2)
  train(config, tmp_path / 'style')
  attached = mgjax.load(runs / '2.1', lora=str(tmp_path / 'style'))
  clip = attached('a cat', first_frame=PICTURE, seed=1)[0]
  assert np.any(clip != mgjax.load(runs / '2.1')('a cat', first_frame=PICTURE, seed=1)[0])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('mesh', [{'context': 4, 'fsdp': 2}, {'tensor': 2, 'data': 2, 'fsdp': 2}])
def test_samples_on_a_mesh_are_those_of_one_device(runs, kind, mesh):
  options = {'first_frame': PICTURE}
  expected = mgjax.load(runs / kind)(['a cat', 'a dog'], **options)
  found = mgjax.load(runs / kind, mesh=mesh)(['a cat', 'a dog'], **options)
  assert np.abs(np.stack(found).astype(int) - np.stack(expected)).max() <= 1


@pytest.mark.usefixtures('on_one_device')
def test_a_published_folder_brings_the_image_encoder(runs, tmp_path):
  folder = tmp_path / 'given'
  for run, part in {'2.1': 'transformer', 'autoencoder': 'vae'}.items():
    export_weights(runs / run, folder / part, 'diffusers')
  shutil.copytree(runs / 'umt5_published', folder / 'text_encoder')
  config = tiny_wan.video(runs, pictures='2.1')
  autoencoder = autoencoder_config.get_config()
  autoencoder.model.update(tiny_wan.AUTOENCODER)
  parts = {'autoencoder': autoencoder, 'text': tiny_text.encoder_config()}
  with pytest.raises(ConfigError, match='there is no image encoder in'):
    import_wan(config, folder, tmp_path / 'run', **parts)
  assert not (tmp_path / 'run').exists()
  (folder / 'image_encoder').mkdir()
  expected = load_params(runs / '2.1')[0]
  exported = export_tensors(clip_rows('vision', ()), expected['picture']['vision'])
  tensors = {name: np.asarray(tensor) for name, tensor in exported.items()}
  more = {n.replace('.0.', '.1.'): tensor for n, tensor in tensors.items() if '.layers.0.' in n}
  save_file(tensors | more, folder / 'image_encoder/model.safetensors')
  import_wan(config, folder, tmp_path / 'run', **parts)
  found = load_params(tmp_path / 'run')[0]
  for part in ('picture', 'backbone'):
    jax.tree.map(np.testing.assert_array_equal, found[part], expected[part])
  assert len([value for value in values_of(tmp_path / 'run') if 'norm' in value.quantity]) == 3
