"""Filters of fine-tuning and of sound: subjects, seeds of concepts, silence, Table 24."""

import numpy as np
import pytest

from configs.curation import finetuning, sound
from mgjax.core.errors import DataError
from mgjax.core.settings import unpack
from mgjax.lab.curation.filters.registry import FILTERS, filters_of
from mgjax.lab.curation.filters.seeds import nearest_concepts
from mgjax.lab.curation.scores.sound import SoundLimits
from mgjax.lab.curation.settings import CurationSettings, KeepSettings

KEEP = KeepSettings()


def verdicts(name, table, keep=KEEP):
  count = len(next(iter(table.values())))
  table = {'clip': [f'{n}' for n in range(count)], **table}
  return [not reason for reason in FILTERS[name].keep(table, keep)]


def around(count=60):
  """Clips of three concepts, whose vectors point in three directions; clip n is of n % 3."""
  chance = np.random.default_rng(0)
  vectors = np.eye(3, 8)[np.arange(count) % 3] + 0.1 * chance.normal(size=(count, 8))
  return {
    'clip': [f'{n}.mp4#0' for n in range(count)],
    'video': [f'{n}.mp4' for n in range(count)],
    'concepts_vector': vectors.tolist(),
  }


def seeds(tmp_path, text):
  path = tmp_path / 'seeds.csv'
  path.write_text(text)
  return str(path)


def test_the_clips_nearest_to_each_seed_are_kept(tmp_path):
  path = seeds(tmp_path, 'concept,clip\nrun,0.mp4\nswim,1.mp4#0\n')  # a video, and a clip
  keep, table = KeepSettings(seeds=path, neighbours=9), around()
  kept = np.array(verdicts('seeds', table, keep))
  assert kept[0] and kept[1] and kept.sum() == 18 and not kept[2::3].any()
  columns = {name: np.asarray(each) for name, each in table.items()}
  vectors = columns['concepts_vector']
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  for number, concept in ((0, 'run'), (1, 'swim')):  # against all cosines
    near = set(np.argsort(-unit @ unit[number])[:9].tolist())
    assert near == {*np.flatnonzero(nearest_concepts(columns, keep)[0] == concept).tolist()}
  dropped = FILTERS['seeds'].keep(table, keep)[2]
  assert dropped.startswith('none of the 9 nearest clips of a seed, cosine ')


def test_a_seed_brings_nothing_that_is_unlike_it(tmp_path):
  path = seeds(tmp_path, 'concept,clip\nrun,0.mp4\n')
  kept = np.array(verdicts('seeds', around(), KeepSettings(seeds=path, neighbours=60, alike=0.7)))
  assert kept[::3].all() and kept.sum() == 20


def test_seeds_that_are_not_there_are_told(tmp_path, caplog):
  some = seeds(tmp_path, 'concept,clip\nrun,0.mp4\nfly,gone.mp4\n')
  assert sum(verdicts('seeds', around(), KeepSettings(seeds=some, neighbours=4))) == 4
  assert '1 of 2 seeds' in caplog.text
  for text, what in (
    ('concept,clip\nfly,gone.mp4\n', 'none of the 1 seeds'),
    ('concept,video\nrun,0.mp4\n', 'columns concept and clip'),
  ):
    with pytest.raises(DataError, match=what):
      verdicts('seeds', around(), KeepSettings(seeds=seeds(tmp_path, text)))
  with pytest.raises(DataError, match='cannot be read'):
    verdicts('seeds', around(), KeepSettings(seeds=str(tmp_path / 'missing.csv')))
  assert 'nothing is asked of it' in FILTERS['seeds'].off(around(), KEEP)


def test_small_subjects_are_dropped_by_whichever_score_is_there():
  assert verdicts('subject', {'subject_share': [0.04, 0.05, None]}) == [False, True, True]
  assert 'subject is off' in FILTERS['subject'].off({'clip': ['0']}, KEEP)


def test_silence_and_what_is_too_soft_or_too_loud_are_dropped():
  assert verdicts('silence', {'sound_silence': [0.0, 0.5, 0.51, 1.0]}) == [True, True, False, False]
  assert verdicts('loudness', {'sound_loudness': [-51.0, -20.0, 1.0, None]}) == [
    False,
    True,
    False,
    False,
  ]


HEARD = {
  'sound_voice': [0.0, 0.0, 0.0, 0.9, 0.0, None],
  'sound_music': [0.0, 0.9, 0.9, 0.9, 0.4, 0.9],
  'sound_sound': [0.9, 0.0, 0.9, 0.9, 0.9, 0.9],
  'sound_cosine': [0.25, 0.05, 0.2, 0.2, 0.1, 0.9],
}
PLACES = ['diegetic', 'non-diegetic', 'non-diegetic', 'mixed', 'unknown', 'unknown']


@pytest.mark.parametrize('places', [('diegetic',), ('diegetic', 'mixed'), ('unknown',)])
def test_sounds_are_kept_by_the_places_of_table_24(places):
  keep = KeepSettings(sound=SoundLimits(places=places))
  assert verdicts('diegetic', HEARD, keep) == [place in places for place in PLACES]
  reason = FILTERS['diegetic'].keep({'clip': list('012345'), **HEARD}, keep)[1]
  assert reason == 'sound is non-diegetic, cosine 0.05'


def test_other_thresholds_put_sounds_elsewhere_and_measure_nothing():
  keep = KeepSettings(sound=SoundLimits(heard=0.3, places=('non-diegetic',)))
  assert verdicts('diegetic', HEARD, keep)[4]  # music is heard now
  assert 'sound_events' in FILTERS['diegetic'].off({'clip': ['0']}, KEEP)


def test_configurations_of_fine_tuning_and_of_sound_are_as_published_where_that_is_known():
  tuned, heard = (
    unpack(CurationSettings, each.get_config().to_dict(), 'config') for each in (finetuning, sound)
  )
  assert tuned.keep.clip_seconds == (10.6, 16.0) and tuned.review.undecided == 'wait'
  names = [each.name for each in filters_of(tuned)]
  assert 'seeds' in names and 'concepts' not in names and 'subject' in tuned.measure.scorers
  limits = heard.keep.sound
  assert (limits.diegetic, limits.diegetic_music, limits.apart, limits.between) == (
    0.2,
    0.3,
    0.1,
    (0.1, 0.25),
  )
  assert heard.keep.side == 480 and heard.captions.template == '{sound}'
