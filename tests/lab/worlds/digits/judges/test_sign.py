import math

import numpy as np
import pytest

from mgjax.lab.worlds.digits.judges.sign import (
  SignReading,
  character_accuracy,
  edit_distance,
  numbers_of_readings,
  sign_labels,
  train_sign_judge,
)
from mgjax.lab.worlds.digits.signs import Signs

COUNT = 200


@pytest.fixture(scope='module')
def judge():
  return train_sign_judge()


def unseen(**world):
  fields = {'frames': 1, 'split': 'test', 'captions': 'all', 'length': COUNT}
  samples = list(Signs(**fields | world))
  return [sample['video'] for sample in samples], sign_labels(samples)


@pytest.mark.parametrize(
  'world',
  [
    {},
    {'size': (64, 96)},
    {'background': 'gradient'},
    {'frames': 4, 'motions': ('left', 'down', 'still'), 'length': 100},
  ],
)
def test_unseen_handwriting_is_read(judge, world):
  videos, labels = unseen(**world)
  score = judge.score(videos, labels)
  assert score['colour'] == score['direction'] == 1
  # The judge of single digits reads .99 of unseen ones (docs/experiments/byte_encoder.md): of
  # numbers of three at least .97 to be expected, less five deviations of a share of COUNT.
  least = 0.97 - 5 * math.sqrt(0.97 * 0.03 / len(videos))
  assert score['number'] >= least and score['characters'] >= score['number']


def test_noise_does_not_blind_it(judge):
  videos, labels = unseen()
  generator = np.random.default_rng(0)
  rough = [np.clip(np.rint(v + generator.normal(0, 25, v.shape)), 0, 255) for v in videos]
  assert judge.score([each.astype(np.uint8) for each in rough], labels)['number'] >= 0.9


def test_shuffled_captions_score_chance(judge):
  videos, labels = unseen(lengths=(3,))
  score = judge.score(videos, labels[1:] + labels[:1])
  # Two numbers of three digits agree once in 900; a place agrees once in nine at most, and what an
  # insertion and an omission mend beside that is less than as much again, by far.
  assert score['number'] <= 5 / COUNT
  assert score['characters'] <= 0.35


def test_an_empty_sign_reads_as_nothing(judge):
  nothing = SignReading('', '', '')
  assert judge.read(np.zeros((1, 32, 48, 3), np.uint8)) == nothing
  assert judge.read(np.full((4, 16, 24, 3), 90, np.uint8)) == nothing
  assert numbers_of_readings([nothing], [SignReading('407', 'red', '')])['characters'] == [0]


def test_a_sign_that_fills_the_frame_reads_as_something(judge):
  generator = np.random.default_rng(0)
  for shape in ((1, 32, 48, 3), (3, 16, 200, 3), (1, 64, 8, 3)):
    read = judge.read(generator.integers(0, 256, shape, np.uint8))
    assert len(read.number) <= 4  # one more than there can be


@pytest.mark.parametrize(
  'read, asked, distance',
  [
    ('', '', 0),
    ('', '407', 3),
    ('407', '407', 0),
    ('47', '407', 1),
    ('4407', '407', 1),
    ('704', '407', 2),
    ('12', '407', 3),
    ('kitten', 'sitting', 3),
  ],
)
def test_distances_are_of_the_fewest_edits(read, asked, distance):
  assert edit_distance(read, asked) == edit_distance(asked, read) == distance
  if asked:
    assert character_accuracy(read, asked) == 1 - distance / len(asked)


def test_a_score_counts_characters_numbers_and_lengths():
  asked, read = (('407', 'red'), ('12', 'red'), ('12', 'blue')), ('401', '12', '1')
  labels = [SignReading(number, colour, '') for number, colour in asked]
  readings = [SignReading(number, 'red', '') for number in read]
  numbers = {'number': 1 / 3, '2 digits': 1 / 2, '3 digits': 0}
  others = {'characters': (2 / 3 + 1 + 1 / 2) / 3, 'colour': 2 / 3, 'direction': 1}
  found = {name: np.nanmean(each) for name, each in numbers_of_readings(readings, labels).items()}
  assert found == pytest.approx(numbers | others)
