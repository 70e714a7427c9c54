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
  found = classify(pipeline, samples=27)
  told = found.record['classifier']
  assert {name: each['clips'] for name, each in told.items()} == dict.fromkeys(
    told, 33
  )  # each caption once
  assert min(each['right'] for each in told.values()) > 0.8 and told['colour']['right'] == 1
  assert all(each['bits'] > 0 for each in told.values())
  assert 'told apart' in table_of(found)


def test_evidence_is_that_of_each_clip_alone_and_of_its_seed(pipeline):
  source = Digits(**Digits().validation(16))
  clips = [source[index] for index in range(3)]
  videos, captions = (
    np.stack([each['video'] for each in clips]),
    [each['caption'] for each in clips],
  )
  found = pipeline.evidence(captions, videos)
  assert found.shape == (3,) and np.array_equal(found, pipeline.evidence(captions, videos))
  other = pipeline.evidence([captions[0], *captions[:2]], videos)
  assert other[0] == pytest.approx(found[0], rel=1e-5) and other[1] < found[1]
  assert not np.array_equal(found, pipeline.evidence(captions, videos, seed=1))


def test_captions_of_solids_differ_in_one_factor():
  judge = make_judge(Solids(solids=(1, 2)))
  asked = judge.asks(40)['in distribution']
  changed = judge.variants(asked)
  assert set(changed) == {'colour', 'shape', 'material', 'size', 'motion', 'camera'}
  own = [each.caption for each in asked]
  for name, captions in changed.items():
    differ = [one != other for one, other in zip(captions, own, strict=True)]
    assert sum(differ) >= 15, name
    for given, other in zip(asked, differ, strict=True):
      if other:
        assert name in {statement.what for statement in given.label.says} | {'follows'}
  assert judge.variants([]) == {}


def test_captions_of_digits_differ_in_one_word():
  judge = DigitsVideoJudge(Digits())
  (asked,) = judge.asks(27).values()
  for captions in judge.variants(asked).values():
    for caption, given in zip(captions, asked, strict=True):
      pairs = zip(caption.split(), given.caption.split(), strict=True)
      assert sum(one != other for one, other in pairs) == 1
