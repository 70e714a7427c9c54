import numpy as np
import pytest

from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.digit import (
  DigitReading,
  diversity,
  judge_ceiling,
  judge_floor,
  labels_of,
  train_judge,
)
from mgjax.lab.worlds.digits.judges.video import DigitsPrompts, DigitsVideoJudge, DigitsVotes
from mgjax.lab.worlds.digits.scene import COLOURS, MOTIONS


@pytest.fixture(scope='module')
def judge():
  return train_judge(clips=1500)


@pytest.fixture(scope='module')
def clips():
  samples = list(Digits(split='test', captions='all', length=300))
  return [sample['video'] for sample in samples], labels_of(samples)


def _noisy(video, generator):
  noise = 25 * generator.standard_normal(video.shape)
  return np.clip(np.rint(video + noise), 0, 255).astype(np.uint8)


def _blurred(video):
  """The mean over 3 x 3 pixels."""
  padded = np.pad(video.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
  height, width = video.shape[1:3]
  shifts = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
  return np.rint(np.mean(shifts, axis=0)).astype(np.uint8)


def test_unseen_handwriting_is_read(judge):
  score = judge_ceiling(judge, clips=300)
  assert set(score) == {'digit', 'colour', 'direction', 'all'}
  assert score['all'] >= 0.95 and score['colour'] == score['direction'] == 1


def test_shuffled_captions_score_chance(judge):
  score = judge_floor(judge, clips=300)
  assert score['all'] <= 0.02
  assert score['digit'] < 0.2 and score['colour'] < 0.35 and score['direction'] < 0.35


def test_noise_and_blur_do_not_blind_it(judge, clips):
  videos, labels = clips
  generator = np.random.default_rng(0)
  assert judge.score([_noisy(video, generator) for video in videos], labels)['all'] >= 0.95
  assert judge.score([_blurred(video) for video in videos], labels)['all'] >= 0.93


@pytest.mark.parametrize(
  'world',
  [
    {'size': (64, 64)},
    {'size': (48, 80), 'frames': 5},
    {'frames': 1},
    {'background': 'gradient', 'motions': tuple(MOTIONS), 'colours': tuple(COLOURS)},
  ],
)
def test_a_judge_reads_any_size_and_world(judge, world):
  score = judge_ceiling(judge, clips=120, **world)
  assert score['all'] >= 0.93 and score['colour'] == score['direction'] == 1


def test_an_image_has_no_motion_and_an_empty_clip_shows_nothing(judge):
  sample = Digits(frames=1)[0]
  assert judge.read(sample['video']) == DigitReading(sample['digit'], sample['colour'], '')
  assert judge.read(np.zeros((4, 32, 32, 3), np.uint8)) == DigitReading(-1, '', '')


def test_a_reversed_clip_moves_the_other_way(judge, clips):
  opposite = {'left': 'right', 'right': 'left', 'up': 'down', 'down': 'up'}
  for video in clips[0][:20]:
    assert judge.read(video[::-1]).motion == opposite[judge.read(video).motion]


@pytest.mark.parametrize(
  'world', [{}, {'laps': 0.4}, {'frames': 5, 'size': (48, 80)}, {'frames': 50}]
)
def test_what_falls_and_lands_is_told_from_what_moves_down(judge, world):
  motions = ('down', 'fall', 'bounce')
  generator = np.random.default_rng(0)
  for sample in Digits(split='test', captions='all', motions=motions, length=60, **world):
    assert judge.read(sample['video']).motion == sample['motion']
    assert judge.read(_noisy(sample['video'], generator)).motion == sample['motion']


def test_a_score_counts_each_attribute(judge, clips):
  video = clips[0][0]
  digit, colour, motion = judge.read(video)[:3]
  labels = [(digit, colour, motion), ((digit + 1) % 10, colour, motion, 'and a caption')]
  expected = {'digit': 0.5, 'colour': 1.0, 'direction': 1.0, 'all': 0.5}
  assert judge.score([video, video], labels) == expected


def test_diversity_tells_copies_from_real_handwriting(judge, clips):
  videos, labels = clips
  assert 0.8 < diversity(judge, videos, labels) < 1.2
  first = {label.digit: video for video, label in zip(videos, labels, strict=True)}
  copies = [first[label.digit] for label in labels]
  assert diversity(judge, copies, labels) < 1e-3
  assert np.isnan(diversity(judge, videos[:1], labels[:1]))


@pytest.mark.slow
def test_votes_are_cast_by_another_judge_on_captions_that_evaluation_does_not_ask():
  source = Digits()
  voting, evaluating = DigitsVotes(source), DigitsVideoJudge(source)
  assert (voting._judge.spread != evaluating._judge.spread).all()  # of other handwriting
  prompts = DigitsPrompts()
  rows = prompts.rows(400, 1, trained=True)
  asked = {each.caption for each in evaluating.asks(1)['held-out captions']}
  assert not asked & {row.caption for row in rows} and asked == {
    row.caption for row in prompts.rows(len(asked), 1)
  }
  clips = [next(iter(Digits(split='train', length=1, seed=seed))) for seed in range(40)]
  labels = [prompts.asked(clip['caption'], '') for clip in clips]
  assert voting.right([clip['video'] for clip in clips], labels)['all'].mean() >= 0.9
