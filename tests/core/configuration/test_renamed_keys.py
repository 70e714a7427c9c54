"""A configuration that an older version saved is read with the names of today."""

import json
import pathlib

import pytest

from configs.digits import audio, codec, video
from mgjax.core.configuration.keys import flatten
from mgjax.core.configuration.renamed_keys import added, migrate
from mgjax.core.errors import ConfigError
from mgjax.models.flow_model.build import FLOW_MODEL_FORMAT
from mgjax.training.checkpoints.workdir import read_config

HERE = pathlib.Path(__file__).parent
# Where things lie is said when a run is started; all else is as the configuration file has it.
PLACES = ('autoencoder', 'data.latents', 'start_from')
ADDED = (  # since then; runs without them go on as they were
  'optimizer.name',
  'optimizer.rates',
  'vision',
  'model.conditionings.video.background',
  'model.tile',
  'model.window',
  'model.chosen',
  'model.products',
  'lora.rank',
  'lora.alpha',
  'lora.targets',
  'lora.dropout',
  'lora.weights',
  'train.trackers',
)
TUNED = ('buckets.', 'model.', 'optimizer.', 'sample.', 'train.')  # numbers of the small recipes


@pytest.mark.parametrize(('name', 'today'), [('video', video), ('audio', audio), ('codec', codec)])
def test_a_saved_configuration_has_the_keys_and_values_of_today(name, today):
  saved = flatten(migrate(json.loads((HERE / f'{name}_config_0_1.json').read_text())))
  wanted = flatten(today.get_config().to_dict())
  new = added(wanted)
  assert [key for key in new.keys() & wanted.keys() - saved if wanted[key] != new[key]] == []
  assert saved.keys() - {*PLACES, *new} == wanted.keys() - {*PLACES, *ADDED, *new}
  for key in saved.keys() - PLACES:
    if key.startswith('train.limits.'):  # seconds, which were whole
      saved[key] = float(saved[key])
    like = isinstance(saved[key], int | float | tuple | list) and key.startswith(TUNED)
    assert type(saved[key]) is type(wanted[key]) if like else saved[key] == wanted[key], key
  assert migrate(today.get_config().to_dict()) == today.get_config().to_dict()


@pytest.mark.parametrize(
  ('saved', 'today'),
  [
    ({'text': 7.5}, (('text', 7.5),)),
    ({'video': 3.0, 'text': 2.0}, (('text', 2.0), ('video', 3.0))),
    ({}, ()),
    ({'source': 0.0, 'text': 3.0}, (('text', 3.0), ('source', 0.0))),  # so that it is dropped
    ([['video', 3.0], ['text', 2.0]], [['video', 3.0], ['text', 2.0]]),
  ],
)
def test_saved_guidance_is_nested_in_the_order_that_it_was_sampled_in(saved, today):
  assert migrate({'sample': {'guidance': saved, 'steps': 3}})['sample'] == {
    'guidance': today,
    'steps': 3,
  }


def test_a_work_directory_of_version_0_1_is_read(tmp_path):
  (tmp_path / 'config.json').write_text((HERE / 'video_config_0_1.json').read_text())
  config = read_config(tmp_path)
  assert (config.component, config.model.mlp_dim, config.train.ema_decay) == ('video', 384, 0.997)
  model = FLOW_MODEL_FORMAT.make(config.model.to_dict())
  assert [type(each).__name__ for each in model.conditionings] == ['ByteText']


def test_a_conditioning_that_no_version_had_is_named():
  saved = {'model': {'conditionings': {'a': {'class': 'mine.Label', 'width': 3}}}}
  with pytest.raises(ConfigError, match=r"made by mgjax 0\.1 with the conditioning 'mine\.Label'"):
    migrate(saved)
