"""A model's likelihoods tell captions apart, word by word, where the model reads the word."""

import numpy as np
import pytest

from mgjax.lab.evaluation.record.measured import table_of
from mgjax.lab.evaluation.worlds.classifier import classify
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.video import DigitsVideoJudge
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.video import make_judge
from mgjax.sections.video.pipeline import VideoPipeline


@pytest.fixture(scope='module')
def pipeline():
  return VideoPipeline('digits/video')


def test_a_trained_model_tells_digit_colour_and_direction(pipeline):
  measured = classify(pipeline, samples=27)
  by_factor = measured.record['classifier']
  assert {name: numbers['clips'] for name, numbers in by_factor.items()} == dict.fromkeys(
    by_factor, 33
  )  # each caption once
  assert min(numbers['right'] for numbers in by_factor.values()) > 0.8
  assert by_factor['colour']['right'] == 1
  assert all(numbers['bits'] > 0 for numbers in by_factor.values())
  assert 'told apart' in table_of(measured)


def test_evidence_is_that_of_each_clip_alone_and_of_its_seed(pipeline):
  source = Digits(**Digits().validation(16))
  clips = [source[index] for index in range(3)]
  videos, captions = (
    np.stack([clip['video'] for clip in clips]),
    [clip['caption'] for clip in clips],
  )
  evidence = pipeline.evidence(captions, videos)
  assert evidence.shape == (3,) and np.array_equal(evidence, pipeline.evidence(captions, videos))
  other = pipeline.evidence([captions[0], *captions[:2]], videos)
  assert other[0] == pytest.approx(evidence[0], rel=1e-5) and other[1] < evidence[1]
  assert not np.array_equal(evidence, pipeline.evidence(captions, videos, seed=1))


def test_captions_of_solids_differ_in_one_factor():
  judge = make_judge(Solids(solids=(1, 2)))
  requests = judge.asks(40)['in distribution']
  changed = judge.variants(requests)
  assert set(changed) == {'colour', 'shape', 'material', 'size', 'motion', 'camera'}
  own = [request.caption for request in requests]
  for name, captions in changed.items():
    differ = [one != other for one, other in zip(captions, own, strict=True)]
    assert sum(differ) >= 15, name
    for request, other in zip(requests, differ, strict=True):
      if other:
        assert name in {statement.what for statement in request.label.says} | {'follows'}
  assert judge.variants([]) == {}


def test_captions_of_digits_differ_in_one_word():
  judge = DigitsVideoJudge(Digits())
  (requests,) = judge.asks(27).values()
  for captions in judge.variants(requests).values():
    for caption, request in zip(captions, requests, strict=True):
      pairs = zip(caption.split(), request.caption.split(), strict=True)
      assert sum(one != other for one, other in pairs) == 1
