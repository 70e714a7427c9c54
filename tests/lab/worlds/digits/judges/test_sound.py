"""The judge of sounds: true ones score full marks, chance does not, and noise does not fool it."""

import numpy as np
import pytest
from scipy import signal

from mgjax.core.errors import DataError
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.sound import DigitsSoundJudge, hear, judge_sound, judge_sounds
from mgjax.lab.worlds.digits.sounds import RATE, TONES, digit_sound

HEARD = {'motions': ('bounce', 'fall', 'still'), 'sound': True, 'fps': 25, 'frames': 50}
WORLD = Digits(split='test', captions='all', **HEARD)


@pytest.fixture(scope='module')
def samples():
  return [WORLD.listen(index) for index in range(30)]


def changed(samples, change):
  return [{**sample, 'audio': change(sample['audio'])} for sample in samples]


def sounds(samples):
  return [sample['audio'] for sample in samples]


def noise(level, seed=0):
  generator = np.random.default_rng(seed)
  return lambda sound: sound + level * generator.standard_normal(sound.shape)


def smeared(sound):
  """Echoes of every moment in the 20 ms after it, with the power of the moment."""
  echoes = np.random.default_rng(0).standard_normal((960, 1))
  return signal.fftconvolve(sound, echoes / np.linalg.norm(echoes), axes=0)[: len(sound)]


def scores_of(heard, samples):
  judge = DigitsSoundJudge()
  return judge.scores(judge.read(heard, samples))


def test_true_sounds_score_full_marks(samples):
  scores = scores_of(sounds(samples), samples)
  # The judge looks every 0.5 ms, and a window of 5 ms holds a click best with it in the middle.
  assert scores.onset_error < 0.75
  assert (scores.missed, scores.extra, scores.tone, scores.silence) == (0, 0, 1, 1)
  assert scores.clips == 30


def test_the_sound_of_another_clip_scores_chance(samples):
  scores = scores_of(sounds(samples), [*samples[1:], samples[0]])
  # Errors of chance are spread over the 150 ms that a match may be apart.
  assert scores.onset_error > 30
  assert scores.missed > 0.4 and scores.extra > 0.4 and scores.tone < 0.35
  assert scores.silence < 0.7


@pytest.mark.parametrize(
  'change, error',
  [
    (noise(0.01), 0.75),  # 40 dB below full scale
    (smeared, 5.0),  # a quarter of the smear
    (lambda sound: 0.1 * sound, 0.75),
    (lambda sound: np.repeat(sound, 2, axis=1), 0.75),
  ],
  ids=['noise', 'smeared', 'soft', 'stereo'],
)
def test_what_is_changed_but_audible_is_still_read(samples, change, error):
  heard = changed(samples, change)
  scores = scores_of(sounds(heard), heard)
  assert scores.onset_error < error
  assert scores.missed < 0.02 and scores.extra < 0.02 and scores.tone > 0.95
  assert scores.silence == 1


def test_a_shift_is_measured(samples):
  late = changed(samples, lambda sound: np.pad(sound, ((2400, 0), (0, 0)))[: len(sound)])
  assert scores_of(sounds(late), late).onset_error == pytest.approx(50, abs=1)
  reading = judge_sound(late[0]['audio'], late[0]['events'], 0)
  assert (reading.errors > 0.045).all()


def test_silence_of_any_length_and_steady_sounds_have_no_onset():
  for length in (1, 100, 1000):
    assert hear(np.zeros((length, 1))).onsets.shape == (0,)
  time = np.arange(2 * RATE) / RATE
  assert not hear(np.zeros((2 * RATE, 1))).onsets.size
  assert not hear(0.003 * np.random.default_rng(0).standard_normal((2 * RATE, 1))).onsets.size
  growing = (0.3 * time / 2 * np.sin(2 * np.pi * TONES[4] * time))[:, None]
  assert not hear(growing).onsets.size


@pytest.mark.parametrize('digit', range(10))
def test_each_tone_is_told_from_its_neighbours(digit):
  heard = hear(digit_sound(digit, np.array([0.0, 0.2, 0.26]), RATE))
  np.testing.assert_allclose(heard.onsets, [0.0, 0.2, 0.26], atol=0.001)
  assert heard.tones.tolist() == [digit] * 3


def test_a_click_without_a_tone_has_none():
  sound = 0.001 * np.random.default_rng(0).standard_normal((RATE, 1))
  sound[20_000:20_100] = 0.5 * np.sign(sound[20_000:20_100])
  heard = hear(sound)
  np.testing.assert_allclose(heard.onsets, 20_000 / RATE, atol=0.003)
  assert heard.tones.tolist() == [-1]


def test_events_and_onsets_are_matched_one_to_one():
  sound = digit_sound(5, np.array([0.3, 0.6, 0.9]), 2 * RATE)
  reading = judge_sound(sound, np.array([0.31, 0.595, 1.5]), 5)
  assert (reading.missed, reading.extra, len(reading.errors)) == (1, 1, 2)
  np.testing.assert_allclose(reading.errors, [-0.01, 0.005], atol=0.001)
  assert reading.tones.tolist() == [5, 5]
  # One onset cannot be two events, and the nearer has it.
  reading = judge_sound(digit_sound(5, np.array([0.3]), RATE), np.array([0.25, 0.32]), 5)
  assert reading.missed == 1 and reading.errors == pytest.approx([-0.02], abs=0.001)
  # More matches come before nearer ones: 0.3 belongs to 0.2, though it is nearer to 0.33.
  sound = digit_sound(5, np.array([0.3, 0.45]), RATE)
  reading = judge_sound(sound, np.array([0.2, 0.33]), 5)
  np.testing.assert_allclose(reading.errors, [0.1, 0.12], atol=0.001)


def test_events_that_the_ear_does_not_separate_are_one():
  events = np.array([0.5, 0.512])
  reading = judge_sound(digit_sound(2, events, RATE), events, 2)
  assert (reading.missed, reading.extra, len(reading.errors)) == (0, 0, 1)


def test_scores_count_over_all_clips():
  sound = digit_sound(5, np.array([0.3, 0.6]), RATE)
  silence = np.zeros((RATE, 1))
  heard = ((sound, [0.3, 0.61], 5), (sound, [0.3], 4), (silence, [0.5], 1), (silence, [], 1))
  given = [judge_sound(each, np.array(events), digit) for each, events, digit in heard]
  scores = judge_sounds([*given, judge_sound(sound, np.zeros(0), 1)])
  assert scores.missed == 1 / 4 and scores.extra == 3 / 6
  assert scores.tone == pytest.approx(2 / 3) and scores.silence == 1 / 2
  assert scores.clips == 5


def test_nothing_to_score_is_not_a_score():
  scores = judge_sounds([judge_sound(np.zeros((RATE, 1)), np.zeros(0), 1)])
  assert scores.silence == 1 and np.isnan([scores.onset_error, scores.missed, scores.tone]).all()
  with pytest.raises(DataError, match='no audio'):
    judge_sounds([])
