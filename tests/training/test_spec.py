"""Buckets of a configuration: weights that keep their shares, and what is said aloud."""

import dataclasses
import fractions
import functools
import logging

import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.training.settings import bucket_settings
from mgjax.training.spec import longest_of, make_buckets
from tests.turns import Rows


def shapes():
  bucket = {'height': 8, 'width': 8, 'batch_size': 4}
  return bucket_settings(
    {
      'image_wide': {'frames': 1, 'weight': 1, **bucket},
      'image_tall': {'frames': 1, 'weight': 1, **bucket},
      'video_wide': {'frames': 8, 'weight': 10, **bucket},
      'video_long': {'frames': 16, 'weight': 10, **bucket},
    }
  )


def buckets(tmp_path, counts, **data):
  sources = {name: Rows(count) for name, count in counts.items()}
  return make_buckets(shapes(), tmp_path, lambda split, report: sources, dict, **data)


def weights(made):
  return {bucket.name: bucket.weight for bucket in made}


def test_a_bucket_without_samples_leaves_its_turns_to_those_of_its_kind(tmp_path):
  train, _ = buckets(tmp_path, {'image_tall': 9, 'video_wide': 9, 'video_long': 9})
  assert weights(train) == {'image_tall': 2, 'video_wide': 10, 'video_long': 10}


@pytest.mark.parametrize('share', ['samples', 'given'])
def test_within_its_kind_a_bucket_comes_as_often_as_its_samples_ask_for(tmp_path, share):
  counts = {'image_wide': 10, 'image_tall': 30, 'video_wide': 5, 'video_long': 15}
  train, _ = buckets(tmp_path, counts, share=share)
  expected = {'image_wide': 0.5, 'image_tall': 1.5, 'video_wide': 5, 'video_long': 15}
  given = {'image_wide': 1, 'image_tall': 1, 'video_wide': 10, 'video_long': 10}
  assert weights(train) == (expected if share == 'samples' else given)
  assert all(isinstance(bucket.weight, fractions.Fraction) for bucket in train)


def test_samples_decide_inside_a_source_and_weights_between_sources(tmp_path):
  given = shapes()
  edits = {'batch_size': 2, 'source': 'edits'}  # neither the weights nor the rows of the others
  given |= bucket_settings(
    {
      'edits_wide': {'frames': 1, 'weight': 30, **edits},
      'edits_tall': {'frames': 1, 'weight': 30, **edits},
      'edits_video': {'frames': 8, 'weight': 5, **edits},
    }
  )
  counts = dict.fromkeys(given, 9) | {'edits_wide': 10, 'edits_tall': 20, 'video_long': 27}
  sources = {name: Rows(count) for name, count in counts.items()}
  make = functools.partial(make_buckets, given, tmp_path, lambda split, report: sources, dict)
  assert weights(make(share='samples')[0]) == {
    'image_wide': 1,
    'image_tall': 1,
    'video_wide': 5,
    'video_long': 15,
    'edits_wide': 20,
    'edits_tall': 40,
    'edits_video': 5,
  }
  del sources['edits_wide']
  assert weights(make(share='given')[0])['edits_tall'] == 60
  del sources['edits_tall'], sources['edits_video']
  with pytest.raises(DataError, match="no bucket of the source 'edits' has a sample left"):
    make(share='given')


def test_weights_that_samples_would_overrule_are_refused(tmp_path):
  given = shapes()
  given['video_long'] = dataclasses.replace(given['video_long'], weight=2)
  sources = {name: Rows(9) for name in given}
  make = functools.partial(make_buckets, given, tmp_path, lambda split, report: sources, dict)
  assert weights(make(share='given')[0])['video_long'] == 2
  with pytest.raises(ConfigError, match=r'video_wide and video_long .* weights are 10 and 2; take'):
    make(share='samples')


def test_too_little_to_validate_on_is_said_aloud(tmp_path, caplog):
  with caplog.at_level(logging.WARNING):
    _, validation = buckets(tmp_path, {'image_wide': 4, 'video_wide': 3, 'video_long': 2})
  assert 'no validation of video_wide, video_long' in caplog.text
  assert longest_of(validation, shapes()).name == 'video_long'
