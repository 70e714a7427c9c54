"""The example of docs/how_to/condition_on_a_number.md, done as it is written, in small."""

import importlib
import re
import sys

import numpy as np
import pytest

import configs.digits
import mgjax.models.conditioning.numbers
from mgjax.api import load, train
from mgjax.apps.encode import encode
from mgjax.core.errors import ConfigError
from mgjax.data.records.reader import Records
from tests import tiny
from tests.binaries import python

TEXT = (tiny.CHECKOUT / 'docs/how_to/condition_on_a_number.md').read_text()
BLOCKS = re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
FILES = {title: body for title, body in BLOCKS if title}
MAKE, MEASURE, LOOK = (body for title, body in BLOCKS if not title)
PACKAGES = (mgjax.models.conditioning, mgjax.models.conditioning.numbers, configs.digits)
pytestmark = pytest.mark.usefixtures('on_one_device')


@pytest.fixture(scope='module')
def names(tiny_runs, on_one_device, tmp_path_factory):
  """What the scripts of the page leave behind, in the folder that they ran in; and their model."""
  folder = tmp_path_factory.mktemp('number')
  found = {}
  with pytest.MonkeyPatch.context() as patch:
    for title, body in FILES.items():
      file = folder / title
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(body)
    for package in PACKAGES:
      place = str(folder / package.__name__.replace('.', '/'))
      patch.setattr(package, '__path__', [*package.__path__, place])
    patch.chdir(folder)
    assert 'range(1500)' in MAKE and 'range(10)' in LOOK
    exec(compile(MAKE.replace('range(1500)', 'range(12)'), 'make', 'exec'), found)
    convert = re.search(r'^python (-m launch\.data convert .*)$', TEXT, re.MULTILINE)[1]
    python(*convert.replace('=runs/', f'={folder}/runs/').split())
    exec(compile(MEASURE, 'measure', 'exec'), found)
    config = importlib.import_module('configs.digits.speed').get_config()
    shrunk = {key: value for key, value in tiny.VIDEO.items() if 'buckets.image' not in key}
    tiny_models = {
      'autoencoder': str(tiny_runs / 'autoencoder'),
      'start_from': str(tiny_runs / 'video'),
      'train.steps': 4,
    }
    config.update_from_flattened_dict(shrunk | tiny_models)
    encode(config, config.data.latents)
    train(config, 'runs/speed/video')
    exec(compile(LOOK.replace('range(10)', 'range(2)'), 'look', 'exec'), found)
    yield found
  for title in FILES:
    sys.modules.pop(title.removesuffix('.py').replace('/', '.'), None)


def test_the_number_of_a_clip_reaches_the_latents(names):
  rows = Records('runs/speed/latents/train/video')
  measured = [row['speed'] for row in Records('runs/speed/numbered')]
  assert len(names['clips']) == len(measured) == 12
  # A clip of 16 frames has several windows of four.
  assert {row['speed'] for row in rows} == set(measured)
  # A digit crosses about 18 pixels in 16 to 63 frames.
  assert all(0.2 < row['speed'] < 1.3 for row in rows)


def test_speed_is_pixels_a_frame(names):
  video = np.zeros((4, 16, 16, 3), np.uint8)
  for frame in range(4):
    video[frame, 2 + 3 * frame, 2 + 4 * frame - frame] = 255
  assert names['speed'](video) == pytest.approx(np.hypot(3, 3))


def test_a_sample_takes_the_number_as_the_page_says(names):
  model = names['model']
  assert 'speed' in model.reads
  videos = model.generate(['a', 'b'], speed=0.4, seed=1)
  np.testing.assert_array_equal(model.generate(['a', 'b'], speed='0.4', seed=1), videos)
  np.testing.assert_array_equal(model.generate(['a', 'b'], speed=[0.4, 9], seed=1)[0], videos[0])
  assert videos.shape == model.generate(['a', 'b'], seed=1).shape
  with pytest.raises(ConfigError, match='step_size is no option'):
    load('digits/few_steps').generate(['a'], step_size=0.5)
