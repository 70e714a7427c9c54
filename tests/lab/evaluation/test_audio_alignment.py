"""What the judge of sounds says of models that are right, silent, late or deaf."""

import json

import numpy as np
import pytest

from configs.digits import audio as audio_config
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.settings import audio_shapes, data_settings
from mgjax.lab.evaluation.audio_alignment import judge_soundtracks
from mgjax.models.codec.latents import AudioCodec
from mgjax.models.codec.model import Codec
from mgjax.models.tae.latents import Statistics
from mgjax.sections.audio.pipeline import AudioPipeline

RATE = 48_000
SAMPLES = 12


class WholeCodec(AudioCodec):
  """Loses nothing."""

  def __init__(self):
    model = Codec(width=2, strides=(8, 10, 24), latent_channels=3, decoder_width=8)
    super().__init__(model, {}, Statistics((0.0,) * 3, (1.0,) * 3))

  def encode(self, sound):
    return sound

  def decode(self, latents, samples=None):
    return latents[:, :samples]


class Planted(AudioPipeline):
  """Makes what `change` makes of the true sounds of its validation clips."""

  def __init__(self, change, **data):
    self.config = audio_config.get_config()
    self.config.buckets.sound.update({'seconds': 2.0, 'height': 16, 'width': 16})
    self.config.data.update(data)
    self._codec, self._change, self.last_call = WholeCodec(), change, None

  def generate(self, prompts, *, frame_features=None, **options):
    self.last_call = prompts, frame_features, options
    data = data_settings(self.config.data.to_dict())
    shapes = audio_shapes(self.config.buckets.to_dict())
    source = make_audio_sources(data, shapes, 'validation')['sound']
    places = np.linspace(0, len(source) - 1, len(prompts)).round().astype(int)
    return self._change(np.stack([source[int(index)]['audio'] for index in places]))


@pytest.fixture(scope='module')
def right():
  tracker = Planted(lambda sounds: sounds)
  return tracker, *judge_soundtracks(tracker, samples=SAMPLES, seed=3)


def test_a_model_that_is_right_scores_as_the_true_sounds_do(right):
  tracker, measured, clips = right
  record = measured.record
  assert record['scores'] == record['codec'] == record['real']
  assert record['real']['clips'] == SAMPLES
  assert record['real']['missed'] == record['real']['extra'] == 0 and record['real']['tone'] == 1
  assert record['floor']['missed'] > 0.3
  prompts, features, options = tracker.last_call
  assert [clip.prompt for clip in clips] == prompts and options == {'seed': 3}
  assert features.shape == (SAMPLES, 50, 768) and np.ptp(features) > 1
  for metric in measured.metrics.values():
    assert metric.value.value == metric.beside['codec'] == metric.beside['real']
  json.dumps(record | measured.as_dict(), allow_nan=False)


def test_the_best_of_several_candidates_is_told_by_what_the_pictures_do():
  tracker = Planted(lambda sounds: sounds)
  _, clips = judge_soundtracks(tracker, samples=SAMPLES, candidates=8)
  options = tracker.last_call[2]
  sounds = np.array([np.abs(clip.heard.original).max() > 0.01 for clip in clips])
  assert options['candidates'] == 8 and options['motions'].shape == (SAMPLES, 50)
  np.testing.assert_array_equal(options['motions'].max(axis=1) > 0.5, sounds)


def test_a_silent_a_late_and_a_deaf_model_are_told_apart():
  silent, _ = judge_soundtracks(Planted(np.zeros_like), samples=SAMPLES)
  assert silent.record['scores']['missed'] == silent.record['scores']['silence'] == 1
  assert 'scores/onset_error' not in silent.metrics  # no onset has one
  delayed = Planted(lambda sounds: np.roll(sounds, 2400, axis=1))
  late, _ = judge_soundtracks(delayed, samples=SAMPLES)
  scores = late.record['scores']
  assert scores['onset_error'] == pytest.approx(50, abs=2) and scores['tone'] > 0.9
  deaf, _ = judge_soundtracks(Planted(lambda sounds: np.roll(sounds, 1, axis=0)), samples=SAMPLES)
  assert deaf.record['scores']['missed'] > 0.3 and deaf.record['codec']['missed'] == 0
