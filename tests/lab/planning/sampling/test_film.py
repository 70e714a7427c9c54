"""Plans of a film: what is counted, what must fit, and what is refused in a sentence."""

import json
import re

import pytest

from configs.digits import codec, upsampler
from configs.upsampler import upsampler as full
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.flow.windows import windows
from mgjax.lab.planning.dispatch import plan_any
from mgjax.lab.planning.sampling.passes import count_branches
from mgjax.parallel.chips import GIB

AUTOENCODER = []


@pytest.fixture(scope='module', autouse=True)
def autoencoder(tmp_path_factory):
  """A work directory of which only the configuration is read; 4 x 4 pixels a latent of 8."""
  AUTOENCODER.append(tmp_path_factory.mktemp('autoencoder'))
  config = upsampler.image_autoencoder()
  config.model.latent_channels = 8
  write_json(AUTOENCODER[-1] / 'config.json', config.to_dict())


def small(**changes):
  config = upsampler.get_config()
  config.autoencoder = str(AUTOENCODER[-1])
  config.buckets.video.frames, config.windows.overlap = 14, 4
  config.model.update(positions=(14, 4, 4), patch=(1, 4, 4))
  config.update_from_flattened_dict({key.replace('__', '.'): v for key, v in changes.items()})
  return config


def plan(config=None, topology='v5p:1x1x1', **options):
  options = {'frames': 34, 'size': (64, 112), **options}
  return plan_any(config or small(), topology, what='sample', **options)


def test_windows_tiles_and_calls_are_those_counted_by_hand():
  # 34 frames in 14s that share 4 begin at 0, 10 and 20; 112 pixels in 64s that share 16 at 0 and
  # 48; 64 rows are one tile. 20 steps, no guidance.
  answer = plan().numbers
  assert answer['windows'] == 3 and answer['tiles'] == [1, 2]
  assert answer['calls'] == answer['programs'] == 20 * 3 * 2
  # Latents of 4 x 4 pixels in patches of 4 x 4: 4 x 4 tokens a frame of a tile.
  assert answer['tokens'] == 14 * 4 * 4
  assert answer['latents'] == [34, 16, 28, 8]


def test_guidance_and_the_solver_multiply_the_calls():
  guided = plan(small(sample__guidance=(('text', 3.0),), sample__solver='midpoint')).numbers
  assert guided['calls'] == 4 * plan().numbers['calls']
  assert count_branches((('text', 1.0),)) == 1 and count_branches((('text', 0.0),)) == 1
  assert count_branches((('text', (3.0, (0.2, 0.8))),)) == 2


def test_operations_of_a_film_are_the_sum_of_its_calls():
  answer = plan().numbers
  assert answer['context'] > 0
  assert answer['flops']['model'] == answer['flops']['call'] * 120
  total = sum(answer['flops'][name] for name in ('model', 'encode', 'decode'))
  assert answer['flops']['second_of_film'] == pytest.approx(total / (34 / answer['fps']))
  peak = total / 459e12 / (34 / answer['fps'])
  seconds = answer['seconds_a_second_of_film']
  assert seconds['peak'] == pytest.approx(peak)
  # Linear maps at 66 to 75% of a v5p's peak, attention at 60 to 65%; so small a model waits most
  # for memory.
  assert peak / 0.75 <= seconds['low'] < seconds['high']


def test_the_autoencoder_works_on_every_frame_and_pixel():
  one, twice, wide = (
    plan(frames=frames, size=size).numbers['flops']
    for frames, size in ((32, (64, 64)), (64, (64, 64)), (32, (64, 128)))
  )
  for name in ('encode', 'decode'):
    assert twice[name] == 2 * one[name]
    assert wide[name] == pytest.approx(2 * one[name], rel=0.3)  # attention grows as squares


def test_longer_films_take_more_calls_and_no_more_memory_of_a_chip():
  config = small(sample__steps=4)
  work = [plan(config, frames=frames).numbers for frames in (1, 15, 60, 120, 240)]
  calls = [each['calls'] for each in work]
  assert calls == sorted(calls) and len(set(calls)) == len(calls)
  assert work[-1]['peak_gib'] == work[-2]['peak_gib']
  rate = [each['flops']['second_of_film'] for each in work[-2:]]
  assert rate[0] == pytest.approx(rate[1], rel=0.1)


def test_groups_of_chips_take_a_tile_each():
  answer = plan(topology='h200:8', mesh={'data': 8}).numbers
  assert answer['calls'] == 120 and answer['programs'] == 15
  assert plan(topology='h200:8', mesh={'data': 8}, rows=12).numbers['programs'] == 8  # of 16 tiles


def test_memory_is_weights_and_what_a_share_of_the_tokens_takes():
  whole, split = plan().numbers, plan(topology='v5p:2x1x1', mesh={'context': 2}).numbers
  parts, less = whole['gib'], split['gib']
  assert parts['weights'] * GIB == 2 * whole['parameters'] and parts['weights of a layer'] == 0
  assert parts['windows'] * GIB == 3 * 14 * 16 * 28 * 8 * 4
  assert less['weights'] < 0.75 * parts['weights'] and less['weights of a layer'] > 0
  guided = plan(small(sample__guidance=(('text', 3.0),))).numbers
  assert guided['gib']['activations'] > parts['activations']


def test_the_7b_model_at_1080p_is_spread_until_it_fits():
  film = {'frames': 256, 'size': (1080, 1920)}
  answer = plan(full.get_config('7b'), 'v5e:4x4', **film).numbers
  assert 6.9e9 < answer['parameters'] < 7.3e9
  assert answer['windows'] == len(windows(256, 14, 4).starts) == 26
  assert answer['tiles'] == [2, 2] and answer['calls'] == 20 * 26 * 4
  assert not answer['fits'] and any('tiling.size = 512' in note for note in answer['notes'])
  assert answer['mesh']['context'] > 1 and answer['mesh']['data'] * answer['mesh']['context'] == 16
  assert plan(full.get_config('7b'), 'h200:8', **film).numbers['mesh']['data'] == 8
  assert answer['gib']['weights'] * GIB < 2 * answer['parameters'] / answer['mesh']['context'] * 1.1


def test_the_answer_is_text_and_json():
  answer = plan()
  assert json.loads(json.dumps(answer.numbers)) == answer.numbers
  for said in ('3 of 14 frames', '1 x 2 of 64 x 64', 'estimated by formula', 'assumed', ': fits'):
    assert said in answer.text, said


@pytest.mark.parametrize(
  ('config', 'options', 'sentence'),
  [
    (small, {'size': (64, 20_000)}, '20000 x 64 pixels; expected 1 to 16384 on a side'),
    (small, {'frames': -1}, 'frames = -1'),
    (small, {'mesh': {'data': 3}}, 'the mesh data = 3 has 3 devices'),
    (small, {'how': 'search'}, "--search says nothing about sampling of the component 'upsampler'"),
    (
      small,
      {'bucket': 'video'},
      "--bucket says nothing about sampling of the component 'upsampler'",
    ),
    (small, {'how': 'compile'}, '--compile says nothing about sampling'),
    (codec.get_config, {}, "sampling of the component 'codec' is not planned; expected one of up"),
  ],
)
def test_what_cannot_be_planned_is_a_sentence(config, options, sentence):
  with pytest.raises(ConfigError, match=re.escape(sentence)):
    plan_any(config(), **{'topology': 'v5p:1x1x1', 'what': 'sample', 'frames': 34, **options})
