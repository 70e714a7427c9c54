"""Filters drop what is outside the published numbers, and say why."""

import dataclasses

import numpy as np
import pyarrow
import pytest

from configs.curation import extended, high_resolution, low_resolution
from mgjax.core.errors import ConfigError
from mgjax.core.settings import unpack
from mgjax.lab.curation.filters.concepts import chances, concept_clusters, merged
from mgjax.lab.curation.filters.duplicates import close_pairs
from mgjax.lab.curation.filters.registry import FILTERS, filters_of
from mgjax.lab.curation.settings import CurationSettings, KeepSettings

KEEP = KeepSettings()


def rows(count, **columns):
  return {'clip': [f'clip {n}' for n in range(count)], **columns}


def verdicts(name, table, keep=KEEP):
  return [not reason for reason in FILTERS[name].keep(table, keep)]


@pytest.mark.parametrize(
  ('name', 'columns', 'kept'),
  [
    ('duration', {'seconds': [3.9, 4, 120, 121]}, [False, True, True, False]),
    ('resolution', {'width': [768, 767, 800], 'height': [768, 800, 767]}, [True, False, False]),
    ('aspect', {'width': [768, 768, 768], 'height': [768, 767, 769]}, [True, True, False]),
    ('text', {'text_score': [0.0, 0.59, 0.6, None]}, [True, True, False, False]),
    ('borders', {'borders_share': [0.0, 0.02]}, [True, False]),
    ('scenes', {'start': [0, 1, 0, 0], 'end': [12, 12, 16, 17]}, [True, False, True, False]),
    ('aesthetics', {'aesthetics_score': [3.9, 4.0]}, [False, True]),
    ('static', {'stillness_share': [0.0, 0.95]}, [True, False]),
    ('slides', {'stillness_share': [0.4, 0.6]}, [True, False]),
    (
      'motion',
      {'motion_vmaf': [2.0, 2.1, 3, 3, 3], 'motion_vectors': [1, 0.5, 7, 6.9, None]},
      [False, False, False, True, True],
    ),
    ('jitter', {'jitter_rate': [0.84, 0.85]}, [True, False]),
  ],
)
def test_thresholds_are_those_of_table_44(name, columns, kept):
  table = rows(len(kept), **columns)
  assert verdicts(name, table) == kept
  assert verdicts(name, pyarrow.table(table)) == kept


def test_a_reason_has_the_number_and_the_limit():
  (reason,) = FILTERS['text'].keep(rows(1, text_score=[0.834]), KEEP)
  assert reason == 'text_score 0.834 >= 0.6'
  (reason,) = FILTERS['text'].keep(pyarrow.table(rows(2, text_score=[None, 0.1])), KEEP)[:1]
  assert reason == 'text_score is unknown'


def test_a_filter_without_its_scores_is_off_and_says_so():
  table = rows(2, width=[1, 1], height=[1, 1])
  assert 'aesthetics is off' in FILTERS['aesthetics'].off(table, KEEP)
  assert verdicts('aesthetics', table) == [True, True]
  nothing = rows(2, aesthetics_score=[None, None])
  assert 'aesthetics is off' in FILTERS['aesthetics'].off(nothing, KEEP)
  assert not FILTERS['aesthetics'].off(rows(2, aesthetics_score=[None, 5.0]), KEEP)
  assert 'mixture is off' in FILTERS['mixture'].off(table, KEEP)
  assert not FILTERS['mixture'].off(table, KeepSettings(landscape=0.6))
  assert not any(FILTERS[name].keep(rows(0), KEEP).size for name in FILTERS)


def copied(count=40, seed=0):
  """Clips in pairs, the second of each with a little noise, and twice as high."""
  chance = np.random.default_rng(seed)
  vectors = chance.normal(size=(count, 64)).astype(np.float32)
  vectors[1::2] = vectors[::2] + 0.02 * chance.normal(size=(count // 2, 64))
  hashes = chance.integers(0, 256, (count, 32)).astype(np.uint8)
  hashes[1::2] = hashes[::2]
  table = rows(count, width=[64] * count, height=[32, 64] * (count // 2))
  table |= {'start': [0.0] * count, 'end': [5.0] * count, 'fingerprint_vector': vectors.tolist()}
  return table | {'fingerprint_hash': [each.tobytes() for each in hashes]}


def test_of_copies_the_one_with_most_pixels_is_kept():
  table = copied()
  assert verdicts('duplicates', table) == [False, True] * 20
  assert FILTERS['duplicates'].keep(pyarrow.table(table), KEEP)[0] == 'copy of clip 1'
  hashes = table['fingerprint_hash']
  hashes[0] = bytes(255 - each for each in hashes[0])
  assert verdicts('duplicates', table)[:2] == [True, True]  # the hashes disagree
  other = table | {'copies_vector': table['fingerprint_vector']}
  assert verdicts('duplicates', other)[:2] == [False, True]  # a network's vectors say enough
  assert all(verdicts('duplicates', table, KeepSettings(copies=1.0)))


def test_pairs_among_many_are_those_among_all():
  chance = np.random.default_rng(0)
  vectors = chance.normal(size=(6000, 16)).astype(np.float32)
  vectors[3000:3100] = vectors[:100] * 1.5 + 0.01 * chance.normal(size=(100, 16))
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  close = np.argwhere(np.triu(unit @ unit.T >= 0.99, 1))
  found = {*zip(*(each.tolist() for each in close_pairs(vectors, 0.99)), strict=True)}
  expected = {tuple(pair) for pair in close.tolist()}
  assert found <= expected and len(found) >= 0.95 * len(expected) >= 95


def test_common_concepts_are_kept_by_one_over_the_root_of_their_size():
  sizes = {'a man on a bicycle': 3600, 'a red kite': 900, 'a snail in the rain': 100}
  captions = [caption for caption, size in sizes.items() for _ in range(size)]
  keep = KeepSettings(clusters=3, resample=0.03)
  table = rows(len(captions), caption=captions)
  kept = np.array(verdicts('concepts', table, keep))
  counts = np.array([kept[np.array(captions) == caption].sum() for caption in sizes])
  # c sqrt(size) clips of each are expected, with the c that gives 3% of all; three deviations.
  expected = np.sqrt([3600, 900, 100])
  expected *= 0.03 * len(captions) / expected.sum()
  assert (np.abs(counts - expected) <= 3 * np.sqrt(expected)).all()
  assert verdicts('concepts', table, keep) == kept.tolist()
  other = dataclasses.replace(keep, seed=1)
  assert verdicts('concepts', table, other) != kept.tolist()


def test_chances_keep_the_share_that_is_asked_for():
  sizes = np.repeat([1, 10, 1000], [1, 10, 1000])
  for share in (0.01, 0.5, 0.9, 1.0):
    found = chances(sizes, share)
    assert found.mean() == pytest.approx(share, abs=1e-6) and found.max() <= 1
  assert chances(sizes, 0.01)[0] == pytest.approx(chances(sizes, 0.01)[-1] * np.sqrt(1000))


def test_clusters_with_close_centres_are_one():
  centres = np.array([[1, 0], [0.999, 0.0447], [0, 1]], np.float32)
  assert merged(centres, 0.95).tolist() == [0, 0, 1]
  table = {'caption': np.array(['a cat', 'a cat', 'a dog', ''], object)}
  clusters = concept_clusters(table, KeepSettings(clusters=3))
  assert clusters[0] == clusters[1] != clusters[2]


def test_people_stay_when_concepts_are_resampled():
  table = rows(100, caption=['a cat'] * 100, people_score=[1.0] * 50 + [0.0] * 50)
  kept = verdicts('concepts', table, KeepSettings(clusters=1, resample=0.1, people=0.6))
  assert all(kept[:50]) and not all(kept[50:])


def test_the_mixture_has_the_shares_that_are_asked_for():
  chance = np.random.default_rng(0)
  wide, people = chance.random(1000) < 0.95, (chance.random(1000) < 0.3)
  table = rows(
    1000,
    width=np.where(wide, 1024, 768),
    height=np.where(wide, 768, 1024),
    people_score=people.astype(float),
  )
  kept = np.array(verdicts('mixture', table, KeepSettings(landscape=0.8, people=0.6)))
  assert wide[kept].mean() == pytest.approx(0.8, abs=0.01)
  assert people[kept].mean() >= 0.6 - 0.01
  alone = rows(5, width=[2] * 5, height=[1] * 5)
  assert all(verdicts('mixture', alone, KeepSettings(landscape=0.6)))


def test_the_published_sets_are_configurations():
  def settings(module):
    return unpack(CurationSettings, module.get_config().to_dict(), 'curation')

  high, low, more = (settings(each) for each in (high_resolution, low_resolution, extended))
  assert (high.keep.side, low.keep.side, more.keep.side) == (768, 720, 768)
  assert (low.keep.landscape, more.keep.landscape, more.keep.people) == (0.6, 0.8, 0.6)
  shares = [each.published for each in filters_of(high) if each.published]
  assert shares == [1, 0.25, 0.07, 0.0194, 0.0187, 0.0178, 0.0157, 0.0132, 0.0122, 0.0115, 0.0094]


def test_a_filter_stands_once_in_the_order():
  with pytest.raises(ConfigError, match='expected each at most once'):
    filters_of(CurationSettings(order=('text', 'text')))
