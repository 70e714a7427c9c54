"""Pictures of sounds go through one frozen vision tower: encoded, trained on and sampled with."""

import shutil

import jax
import numpy as np
import pytest

from configs.text import metaclip_vision
from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.media.video import read_clip, write_video
from mgjax.data.records.reader import Records
from mgjax.data.settings import audio_shapes, data_settings
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.models.clip.towers import clip_inputs, make_clip_vision
from mgjax.sections.audio.pipeline import AudioPipeline
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import write_workdir
from tests import tiny, tiny_sound
from tests.random_parameters import random_parameters

pytestmark = pytest.mark.usefixtures('on_one_device')

WIDTH = 6
FIELDS = {
  'size': 16,
  'patch': 8,
  'dim': 8,
  'depth': 1,
  'heads': 2,
  'mlp_dim': 16,
  'projection': WIDTH,
  'dtype': 'float32',
}
PROMPT = 'the green digit 3 bounces'


def make_tower(workdir, seed=0, **changes):
  """Writes a vision tower with random weights, as an import does."""
  config = metaclip_vision.get_config()
  config.model.update(FIELDS | changes)
  model = make_clip_vision(config.model.to_dict())
  params = random_parameters(model.init, *clip_inputs(model), seed=seed)
  write_workdir(config.to_dict(), params, {}, workdir, origin={'order': 'imported'}, frozen=True)
  return workdir


def see_by_hand(tower, frames):
  config = metaclip_vision.get_config()
  config.model.update(FIELDS)
  model = make_clip_vision(config.model.to_dict())
  _, vectors = jax.jit(model.apply)(
    {'params': load_params(tower)[0]}, frames.astype(np.float32) / 255
  )
  return np.asarray(vectors)


@pytest.fixture(scope='module')
def tower(tmp_path_factory):
  return make_tower(tmp_path_factory.mktemp('towers') / 'tower')


@pytest.fixture(scope='module')
def other(tmp_path_factory):
  return make_tower(tmp_path_factory.mktemp('towers') / 'other', seed=1)


def configuration(runs, tower, latents='', **changes):
  changes = {'model__conditionings__video__features': WIDTH, 'vision': str(tower), **changes}
  return tiny_sound.audio(runs, data__latents=str(latents), **changes)


@pytest.fixture(scope='module')
def latents(tiny_sound_runs, tower, tmp_path_factory):
  directory = tmp_path_factory.mktemp('data') / 'latents'
  assert encode(configuration(tiny_sound_runs, tower), directory)
  return directory


@pytest.fixture(scope='module')
def run(tiny_sound_runs, tower, latents, tmp_path_factory):
  """A model that was stopped and resumed."""
  workdir = tmp_path_factory.mktemp('runs') / 'audio'
  config = configuration(tiny_sound_runs, tower, latents, train__steps=4)
  train(config, workdir, stop_at=2)
  config.vision = f'{tower}/../{tower.name}'  # it may move
  train(config, workdir)
  return workdir


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('clips') / 'clip.mp4'
  digits = Digits(captions='all', frames=10, size=(16, 16), motions=('bounce',), fps=25)
  write_video(path, digits[0]['video'], 25)
  return path


def test_rows_hold_the_towers_vectors_of_the_frames_at_each_latent(tiny_sound_runs, tower, latents):
  config = configuration(tiny_sound_runs, tower)
  shapes = audio_shapes(fields_of(config, 'buckets'))
  source = make_audio_sources(data_settings(fields_of(config, 'data')), shapes, 'train')['sound']
  rows = Records(latents / 'train' / 'sound')
  plain = Records(tiny_sound_runs / 'latents' / 'train' / 'sound')
  for index in (0, 7, 47):
    # 25 frames and 25 latents a second: one frame a latent.
    expected = see_by_hand(tower, source[index]['video'])
    assert expected.shape == (10, WIDTH) and np.ptp(expected) > 0.1
    found = rows[index]['frame_features']
    # bfloat16 on disk; some hundred roundings in float32, of numbers of about 1, before that.
    np.testing.assert_allclose(np.float32(found), expected, rtol=2**-8, atol=1e-4)
    np.testing.assert_array_equal(rows[index]['latents'], plain[index]['latents'])


@pytest.mark.slow
def test_a_resumed_run_is_the_undisturbed_one(tiny_sound_runs, tower, latents, run, tmp_path):
  config = configuration(tiny_sound_runs, tower, latents, train__steps=4)
  state = train(config, tmp_path / 'audio')
  assert tiny.same_state(state, tiny.final_state(run))


def test_a_sound_for_a_video_is_that_for_its_features(tower, run, clip):
  pipeline = AudioPipeline(run)
  frames = read_clip(clip, frames=10, size=(16, 16), fps=25)
  features = pipeline.frame_features(frames, 25)
  np.testing.assert_allclose(features, see_by_hand(tower, frames), atol=1e-4)

  def sound(**conditions):
    options = {'seconds': 0.4, 'candidates': 1, 'seed': 3}
    return np.concatenate(list(pipeline.stream(PROMPT, **options, **conditions)))

  seen = sound(video=clip)
  np.testing.assert_array_equal(seen, sound(frame_features=features))
  assert (seen != sound()).any()


def test_another_tower_is_refused_wherever_it_is_met(
  tiny_sound_runs, tower, other, latents, run, clip, tmp_path
):
  strange = configuration(tiny_sound_runs, other, latents)
  with pytest.raises(ConfigError, match='vision'):
    encode(strange, latents)
  with pytest.raises(
    DataError, match=r"bucket 'sound' come with features .* encode the data again"
  ):
    train(strange, tmp_path / 'audio')
  with pytest.raises(DataError, match=r'config\.vision names that of pixels'):
    train(configuration(tiny_sound_runs, '', latents), tmp_path / 'audio')
  elsewhere = tmp_path / 'elsewhere'
  encode(strange, elsewhere)
  with pytest.raises(ConfigError, match=r'embeddings are of other encoders .*vision'):
    train(configuration(tiny_sound_runs, other, elsewhere, train__steps=4), run, new_data=True)
  moved = shutil.copytree(run, tmp_path / 'moved' / 'audio')
  shutil.copytree(tiny_sound_runs / 'codec', moved.parent / 'codec')
  config = moved / 'config.json'
  config.write_text(config.read_text().replace(AudioPipeline(run).config.vision, str(other)))
  with pytest.raises(ConfigError, match=r'the encoder of frames, of the .*another, of the'):
    AudioPipeline(moved).video_track(clip)
  config.write_text(config.read_text().replace(str(other), str(tmp_path / 'gone' / 'tower')))
  with pytest.raises(ConfigError, match=r'that .* learned with .*Put it at one of them'):
    AudioPipeline(moved).video_track(clip)
  shutil.copytree(tower, moved.parent / 'tower')  # beside the model
  AudioPipeline(moved).video_track(clip)


def test_what_cannot_be_seen_is_said_before_anything_is_made(tiny_sound_runs, tower, tmp_path):
  config = configuration(tiny_sound_runs, tower)
  with pytest.raises(ConfigError, match=r'data\.latents is empty: let launch\.data encode make'):
    train(config, tmp_path / 'run')
  gone = configuration(tiny_sound_runs, tmp_path / 'gone')
  with pytest.raises(ConfigError, match=r'no encoder of frames at .*gone.*launch\.weights import'):
    encode(gone, tmp_path / 'latents')
  wide = configuration(tiny_sound_runs, tower, model__conditionings__video__features=768)
  with pytest.raises(ConfigError, match='gives 6 features a frame, and the model reads 768'):
    encode(wide, tmp_path / 'latents')
  codec = configuration(tiny_sound_runs, tiny_sound_runs / 'codec')
  with pytest.raises(ConfigError, match="of the component 'codec'; expected clip_vision"):
    encode(codec, tmp_path / 'latents')
  assert not list(tmp_path.rglob('*.arrayrecord'))
