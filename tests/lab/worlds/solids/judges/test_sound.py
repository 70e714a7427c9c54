"""The judge of sounds of solids hears when, of what and how strongly they meet."""

import dataclasses

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.lab.worlds.judging import SoundJudge
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges import sound as sounds
from mgjax.lab.worlds.solids.judges.sound import SolidsSoundJudge, audible
from mgjax.lab.worlds.solids.scene import Scene, Solid

CLIPS = 60
SOURCE = Solids(split='in_distribution', sound=True)


@pytest.fixture(scope='module', autouse=True)
def quick_lessons():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sounds, '_LESSONS', 150)
    sounds._classifier.cache_clear()
    yield
    sounds._classifier.cache_clear()


@pytest.fixture(scope='module')
def samples():
  return [SOURCE.listen(index) for index in range(CLIPS)]


def scores_of(heard, samples):
  judge = SolidsSoundJudge()
  return judge.scores(judge.read(heard, samples))


def test_contacts_are_heard_in_time_and_by_their_material(samples):
  found = scores_of([sample['audio'] for sample in samples], samples)
  contacts = sum(len(audible(sample['events'], sample['loudness'])) for sample in samples)
  assert contacts > 40
  assert found.onset_error < 1 and found.silence > 0.9 and found.clips == CLIPS
  # Shares of .03 of 300 clips (docs/experiments/solids_judges.md), and four deviations of so many
  # contacts.
  most = 0.03 + 4 * np.sqrt(0.03 * 0.97 / contacts)
  assert found.missed < most and found.extra < most
  assert found.material > 0.8 and found.strength > 0.6  # of a judge of 150 lessons


def test_noise_and_a_dull_codec_change_little(samples):
  noise = np.random.default_rng(0)
  dull = lambda sound: np.stack(  # noqa: E731
    [np.convolve(sound[:, k], np.hanning(7) / np.hanning(7).sum(), 'same') for k in (0, 1)], 1
  )
  worn = [dull(each['audio']) + noise.normal(0, 2e-3, each['audio'].shape) for each in samples]
  found = scores_of(worn, samples)
  assert found.onset_error < 1 and found.missed < 0.15 and found.extra < 0.1


def test_other_sounds_are_right_by_chance_alone(samples):
  found = scores_of([sample['audio'] for sample in samples], [*samples[1:], samples[0]])
  assert found.onset_error > 10 and found.missed > 0.5 and abs(found.strength) < 0.6


def test_pairs_that_differ_in_a_material_are_told_apart():
  judge, heard = sounds._classifier('judge'), {}
  for material in ('rubber', 'metal', 'wood', 'glass'):
    scene = Scene((Solid('ball', 'red', material, 0.6, 'falls', height=1.2),))
    labels = SOURCE.labels(scene)
    sample = SOURCE._sample(scene, labels)
    mono = sounds.mono_of(sample['audio'])
    heard[material] = int(judge(sounds.features_of(mono, sounds._onsets(mono)))[0])
    assert heard[material] == sample['materials'][0, 0]
  assert len({*heard.values()}) == 4


def test_what_nobody_could_hear_is_not_asked_for():
  events, loudness = np.array([0.1, 0.11, 0.5, 0.56, 0.9]), np.array([0.1, 0.1, 0.4, 0.05, 0.005])
  assert audible(events, loudness).tolist() == [0, 2]  # too near, drowned, too soft


def test_a_judge_is_what_instruments_ask_for(samples):
  judge = SolidsSoundJudge()
  assert isinstance(judge, SoundJudge)
  scores = judge.scores(judge.read([samples[0]['audio']], samples[:1]))
  assert {*judge.columns} < {field.name for field in dataclasses.fields(scores)}
  long = judge.long_clips(dataclasses.replace(SOURCE, size=(8, 8)), 2, 2)
  assert len(long) == 2 and all(len(sample['events']) > 1 for sample in long)
  with pytest.raises(DataError, match='expected finite numbers'):
    judge.read([np.full((100, 2), np.nan)], samples[:1])
  with pytest.raises(DataError, match='no audio'):
    judge.scores([])
