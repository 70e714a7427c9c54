"""Silence, loudness and Table 24 are read from sounds that are known."""

import functools

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.media.audio import read_audio, soundtrack, write_wav
from mgjax.data.media.containers import Blob
from mgjax.data.media.video import write_video
from mgjax.lab.curation import frames
from mgjax.lab.curation.scores.scorer import make_scorers, watch
from mgjax.lab.curation.scores.sound import (
  SoundPlugIns,
  SoundSettings,
  place_of_sound,
  silent_share,
  sound_scores,
)
from mgjax.lab.curation.settings import MeasureSettings, PlugIn

RATE = 48_000


@pytest.fixture
def wav(tmp_path):
  """Two seconds of silence, then two of a tone of amplitude 0.1."""
  tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(2 * RATE) / RATE)
  sound = np.concatenate([np.zeros(2 * RATE), tone]).astype(np.float32)[:, None]
  path = tmp_path / 'sound.wav'
  write_wav(path, sound, RATE)
  return path


def test_silence_and_loudness_of_a_stretch(wav):
  found = sound_scores(wav, 1.0, 4.0)
  assert found['silence'] == pytest.approx(1 / 3, abs=0.04)  # a block of 30 may be cut
  # BS.1770: a sine of 997 Hz and amplitude 1 in one channel has -3.01 LUFS; blocks of silence
  # count for nothing, those that are partly silent for little.
  assert found['loudness'] == pytest.approx(-23.01, abs=0.5)
  assert found['peak'] == pytest.approx(0.1, abs=0.001)
  assert [found[name] for name in ('voice', 'music', 'sound', 'cosine', 'quality')] == [None] * 5
  silent = sound_scores(wav, 0.0, 1.5)
  assert silent['silence'] == 1.0 and silent['loudness'] is None


def test_plug_ins_are_asked_and_their_answers_checked(wav):
  shown, seen = np.zeros((4, 8, 8, 3), np.uint8), []

  def events(sound, rate):
    seen.append((sound.shape, rate))
    return {'music': 0.8, 'sound': 0.6}

  def hear(**plug_ins):
    return sound_scores(wav, 2.0, 3.0, plug_ins=SoundPlugIns(**plug_ins), frames=shown)

  scores = hear(events=events, cosine=lambda *_: 0.2)
  assert seen == [((RATE, 1), RATE)]
  assert (scores['music'], scores['voice'], scores['cosine']) == (0.8, 0.0, 0.2)
  for wrong in ({'birds': 1.0}, {'music': 2.0}, {'music': float('nan')}):
    with pytest.raises(ConfigError, match='likelihoods'):
      hear(events=lambda *_, wrong=wrong: wrong)
  with pytest.raises(ConfigError, match='cosine'):
    hear(cosine=lambda *_: 7.0)
  assert hear(quality=lambda *_: 6.5)['quality'] == 6.5
  with pytest.raises(ConfigError, match='quality'):
    hear(quality=lambda *_: 11.0)


@pytest.mark.parametrize(
  ('heard', 'cosine', 'place'),
  [
    ('sound', 0.21, 'diegetic'),
    ('voice', 0.21, 'diegetic'),
    ('voice sound', 0.21, 'diegetic'),
    ('sound', 0.2, 'unknown'),
    ('music', 0.31, 'diegetic'),
    ('music sound', 0.31, 'diegetic'),
    ('voice music sound', 0.31, 'diegetic'),
    ('music', 0.3, 'unknown'),
    ('music', 0.09, 'non-diegetic'),
    ('music', 0.1, 'unknown'),
    ('music sound', 0.1, 'non-diegetic'),
    ('music sound', 0.25, 'non-diegetic'),
    ('music sound', 0.09, 'unknown'),
    ('music sound', 0.26, 'unknown'),
    ('voice music sound', 0.2, 'mixed'),
    ('voice music', 0.5, 'unknown'),
    ('', 0.9, 'unknown'),
  ],
)
def test_the_place_of_a_sound_is_that_of_table_24(heard, cosine, place):
  assert place_of_sound(heard.split(), cosine) == place


def test_the_share_of_silence_is_that_of_silent_blocks():
  settings = SoundSettings(rate=8000, block=0.01, silent=-60.0)
  sound = np.zeros((8000, 1), np.float32)
  sound[::2][:800] = 0.0015  # of every second sample of the first fifth: -59.5 dB
  assert silent_share(sound, settings) == pytest.approx(0.8)


def events(sound, rate, weights):
  """Hears music in what is loud; `weights` says how much of it."""
  return {'music': float(weights) * float(np.abs(sound).max() > 0.05), 'sound': 0.9}


def cosine(frames, sound, rate, weights):
  assert frames.shape[0] == 3 and frames.shape[-1] == 3
  return 0.05


@pytest.fixture
def film(tmp_path, wav):
  """Four seconds of moving dots with the sound of `wav`."""
  dots = np.random.default_rng(0).integers(0, 256, (48, 64, 3))
  frames = np.stack([np.roll(dots, step, 1) for step in range(32)]).astype(np.uint8)
  silent, path = tmp_path / 'silent.mp4', tmp_path / 'film.mp4'
  write_video(silent, frames, 8)
  sound = read_audio(wav, rate=RATE)
  path.write_bytes(soundtrack(Blob('silent', silent.read_bytes()), iter([sound]), RATE))
  return path, silent


def test_the_sound_of_clips_is_among_their_scores(film):
  plug_in = functools.partial(PlugIn, frames=3, side=32)
  settings = MeasureSettings(
    scorers=('sound',),
    sound_events=plug_in(python=f'{__name__}:events', weights='0.8'),
    sound_cosine=plug_in(python=f'{__name__}:cosine'),
  )
  (scorer,) = make_scorers(settings)
  scorer.open(film[0])
  watch(frames.stream(film[0]), [scorer])
  quiet, loud = scorer.scores(0.0, 1.5), scorer.scores(2.0, 4.0)
  assert (quiet['silence'], quiet['music']) == (1.0, 0.0)
  assert (loud['silence'], loud['music'], loud['cosine']) == (0.0, 0.8, 0.05)
  assert loud['loudness'] == pytest.approx(-23.0, abs=0.5)  # as above; AAC changes little of it


def test_a_clip_without_sound_is_silent(film):
  (scorer,) = make_scorers(MeasureSettings(scorers=('sound',)))
  scorer.open(film[1])
  watch(frames.stream(film[1]), [scorer])
  found = scorer.scores(0.0, 4.0)
  assert found['silence'] == 1.0 and found['loudness'] is None
