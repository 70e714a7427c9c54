"""Retrieval: vectors that know everything score 1, those that know nothing have chance."""

import functools

import numpy as np
import pytest
from PIL import Image

from configs.digits import clip as clip_config
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.lab.evaluation.retrieval import judge_retrieval, write_retrieved
from mgjax.lab.worlds.digits.clips import all_captions
from mgjax.lab.worlds.digits.handwriting import identities_of
from mgjax.sections.clip.pipeline import Clip

COLOURS = ('red', 'green')
SAMPLES = 1500


def configuration():
  config = clip_config.get_config()
  config.data.digits.colours = COLOURS
  config.model.vision.size = 8
  config.data.digits.digit_size = 32.0  # of 32 pixels: all of the frame
  return config


@functools.cache
def samples():
  data = data_settings(configuration().data.to_dict())
  world = make_world(data, 'validation', frames=1, size=(8, 8))
  return [world[index] for index in range(SAMPLES)]


class Known(Clip):
  """Encodes what `vector` makes of the labels of an image, which it knows by its pixels."""

  def __init__(self, vector, recognise=None):
    self.config, self._vector, self._who = configuration(), vector, recognise or vector
    self.identity = recognise is not None
    self._labels = {sample['video'][0].tobytes(): sample for sample in samples()}

  def encode_images(self, images):
    return self._unit([self._vector(self._labels[image.tobytes()]) for image in images])

  def encode_identities(self, images):
    return self._unit([self._who(self._labels[image.tobytes()]) for image in images])

  def encode_texts(self, texts):
    captions = {
      caption: {'digit': digit, 'colour': colour, 'identity': None}
      for digit, colour, _, caption in all_captions(COLOURS, ('',))
    }
    return self._unit([self._vector(captions[text]) for text in texts])

  def _unit(self, rows):
    rows = np.asarray(rows, float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def one_hot(size, index):
  return np.eye(1, size, index)[0] if index is not None else np.zeros(size)


def everything(labels):
  captions = [one_hot(10, labels['digit']), one_hot(2, COLOURS.index(labels['colour']))]
  return np.concatenate([*captions, 0.1 * one_hot(1797, labels['identity'])])


def test_who_knows_digit_colour_and_handwriting_finds_everything(tmp_path):
  measured, rows = judge_retrieval(Known(everything), samples=SAMPLES)
  record = measured.record
  assert set(record['retrieval'].values()) == {1.0}
  assert record['cosines']['same'] > record['cosines']['other']
  unseen = sum(len(identities_of('test', digit)) for digit in range(10))
  assert unseen < record['queries'] <= 2 * unseen  # each in either colour
  assert record['images'] == SAMPLES and record['captions'] == 20
  assert all('8 of 8 right' in title for title, _ in rows)
  with Image.open(write_retrieved(tmp_path, rows)) as sheet:
    assert sheet.width > 8 * 16 and sheet.height > len(rows) * 16 == 8 * 16


def test_who_knows_nothing_has_chance():
  rng = np.random.default_rng(0)
  record = judge_retrieval(Known(lambda labels: rng.normal(size=16)), samples=SAMPLES)[0].record
  for name, score in record['retrieval'].items():
    chance = record['chance'][name]
    trials = record['captions' if name.startswith('text') else 'queries']
    assert score == pytest.approx(chance, abs=5 * np.sqrt(chance * (1 - chance) / trials)), name


@pytest.mark.parametrize(
  ('recognise', 'identity', 'area'),
  # Vectors of handwriting in one colour are all the same: nothing is below, nothing above.
  [(None, 0, 0.5), (lambda labels: one_hot(1797, labels['identity']), 1, 1)],
  ids=['no head', 'a head for identities'],
)
def test_who_knows_the_colour_has_the_chance_of_the_rest_and_a_head_its_own(
  recognise, identity, area
):
  # Products of ones and zeros are exact.
  known = Known(lambda labels: one_hot(2, COLOURS.index(labels['colour'])), recognise)
  scores = judge_retrieval(known, samples=SAMPLES)[0].record['retrieval']
  assert scores['colour'] == 1 and scores['digit'] == pytest.approx(0.1, abs=0.03)
  assert (scores['identity'], scores['identity_auc']) == (identity, area)
