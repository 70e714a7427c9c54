"""Text to image: an image autoencoder and a model of images begin with those of videos (§3.7)."""

import json

import jax
import pytest
from PIL import Image

from mgjax.api import train
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.tae.inflate import without_time
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.autoencoder.section import AutoencoderSection
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.load_params import load_params
from tests import binaries, tiny
from tests.tensors import assert_same

PROMPT = 'a photo of the red digit 1'


def autoencoder(tiny_runs):
  config = tiny.autoencoder(buckets__video__frames=1, start_from=str(tiny_runs / 'autoencoder'))
  config.model.update(strides=((1, 1, 1),), temporal=False)
  return config


@pytest.fixture(scope='module')
def runs(tiny_runs, tmp_path_factory):
  """autoencoder/ of images, from the spatial layers of one of videos, and images/ by it."""
  runs = tmp_path_factory.mktemp('images')
  train(autoencoder(tiny_runs), runs / 'autoencoder')
  config = tiny.video(
    runs,
    latents=False,
    images=True,
    start_from=str(tiny_runs / 'video'),
    model__positions=(2, 2, 3),
    buckets__image__width=24,
  )
  del config.buckets.video
  train(config, runs / 'images')
  return runs


def test_an_image_autoencoder_begins_with_the_spatial_layers_of_a_temporal_one(tiny_runs, tmp_path):
  spec = AutoencoderSection(autoencoder(tiny_runs)).training(tmp_path)
  assert spec.start is not None
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  found = named_leaves(spec.start(lambda name, shape: place))
  there, _ = load_params(tiny_runs / 'autoencoder')
  assert any('/temporal' in name for name in named_leaves(there))
  assert_same(found, named_leaves(without_time(there)))


@pytest.mark.slow
def test_what_it_samples_are_images(runs, tmp_path):
  codec = load_codec(runs / 'autoencoder')
  assert not codec.model.temporal and codec.model.compression == (1, 4, 4)
  binaries.finish(
    'sample',
    'image',
    f'--workdir={runs}/images',
    f'--prompt={PROMPT}',
    '--samples=2',
    '--scale=1',
    f'--out={tmp_path}/out',
  )
  pictures = sorted((tmp_path / 'out').glob('000?_*.png'))
  shapes = []
  for path in pictures:
    with Image.open(path) as picture:
      shapes.append(picture.size)
  assert shapes == [(24, 16), (24, 16)]
  record = json.loads((tmp_path / 'out/samples.json').read_text())
  assert record['frames'] == 1
  assert len({sample['pixels'] for sample in record['samples']}) == 2


@pytest.mark.slow
def test_frames_are_places_of_the_table_of_time(runs):
  """An image autoencoder does not compress time; a table of 2 takes 2 frames."""
  sampler = VideoPipeline(runs / 'images')
  assert sampler.default_shape == (1, 16, 24)
  assert sampler.generate([PROMPT], shape=(2, 16, 24)).shape == (1, 2, 16, 24, 3)
  with pytest.raises(ConfigError, match=r'cannot make 3 frames .* at most 2 frames of 16 x 24'):
    sampler.generate([PROMPT], shape=(3, 16, 24))
