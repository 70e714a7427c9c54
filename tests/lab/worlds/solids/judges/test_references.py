import dataclasses

import numpy as np

from mgjax.lab.worlds.judging import ReferencesJudge
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.references import SolidsReferences


def test_looks_are_read_and_the_light_of_a_clip_is_not_that_of_its_reference():
  judge = SolidsReferences(Solids(solids=(1, 1), meetings=0.0))
  assert isinstance(judge, ReferencesJudge)
  asked = judge.asks(40)
  clips = judge.clips(asked)
  assert all('this object' in each.caption.lower() for each in asked)
  assert len({clip['identity'] for clip in clips}) > 10
  videos, references = [clip['video'] for clip in clips], [clip['reference'] for clip in clips]
  right = {name: np.mean(each) for name, each in judge.right(videos, asked).items()}
  assert right.keys() == set(judge.attributes) and min(right.values()) > 0.85, right
  ((_, others),) = judge.ways(asked).items()
  assert np.mean(judge.right(others, asked)['colour']) < 0.4
  # A shadow falls away from the light: of references and of clips, which have a light each.
  scenes = [each.label for each in asked]
  near = [dataclasses.replace(judge.source, named=False).portrait(each, True) for each in scenes]
  lights = {}
  for name, shown, pictures in (('clip', scenes, videos), ('reference', near, references)):
    lights[name] = np.array(judge.poses(pictures, asked)['light'])
    true = np.sin([scene.light[0] for scene in shown])
    there = np.isfinite(lights[name])
    assert there.mean() > 0.8 and np.corrcoef(lights[name][there], true[there])[0, 1] < -0.7, name
  both = np.isfinite(lights['clip']) & np.isfinite(lights['reference'])
  apart = np.corrcoef(lights['clip'][both], lights['reference'][both])[0, 1]
  assert abs(apart) < 3 / np.sqrt(both.sum())
