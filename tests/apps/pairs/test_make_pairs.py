"""Pairs made by a model: what is kept is in records, all of it on a page, whoever is killed."""

import re
import time

import numpy as np
import pytest
from PIL import Image

from mgjax.apps.pairs.make_pairs import PAGE, PICTURES, Pair, PairMaker, make_pairs
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.records.reader import Records, verify_records
from mgjax.data.records.writer import Share
from mgjax.lab.worlds.digits.clips import Digits
from tests.folders import files_of

SAMPLES, MOST = 21, 2
WORLD = Digits(length=SAMPLES, frames=3, size=(8, 8))
DARK = 'too dark & <dull>'


def brighten(indices, samples, pause=0.0):
  """Makes two brighter clips of each sample, of which some are too dark."""
  for index, sample in zip(indices, samples, strict=True):
    time.sleep(pause)
    noise = np.random.default_rng((0, index))
    pairs = []
    for gain in noise.uniform(0.5, 2.0, MOST):
      clip = np.clip(gain * sample['video'].astype(float), 0, 255).astype(np.uint8)
      row = {'before': sample['video'], 'after': clip, 'caption': sample['caption'], 'gain': gain}
      reason = DARK if gain < 1 else ''
      title = f'{index}: {sample["caption"]}'
      pairs.append(Pair(title, row, {'gain': gain}, reason, [sample['video'], clip]))
    yield pairs


def make(directory, make=brighten, meta=None, most=MOST, columns=('gain',), **options):
  maker = PairMaker(make, {'seed': 0} if meta is None else meta, most, columns)
  options = {'batch_size': 2, 'samples_per_shard': 4, **options}
  return make_pairs(WORLD, maker, directory, **options)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  directory = tmp_path_factory.mktemp('pairs') / 'undisturbed'
  return directory, make(directory)


def contents(directory):
  """All that the next steps read, by name: shards, indices, captions and the manifest."""
  return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def same(directory, expected):
  """Whether all is bit by bit as in another directory, and nothing was left over."""
  assert verify_records(directory) == []
  found, wanted = contents(directory), contents(expected)
  left = {name for name in found if name.startswith(f'.{PAGE}.')}  # of a kill at its very end
  assert found.keys() - left == wanted.keys()
  assert [name for name in wanted if found[name] != wanted[name]] == []
  return files_of(directory / PICTURES) == files_of(expected / PICTURES)


def test_kept_pairs_are_rows_and_the_page_shows_all(undisturbed):
  directory, result = undisturbed
  every = [pair for pairs in brighten(range(SAMPLES), WORLD) for pair in pairs]
  kept = [pair for pair in every if not pair.reason]
  rows = list(Records(directory))
  assert 0 < len(kept) < len(every) == SAMPLES * MOST
  assert len(rows) == len(kept) == result.kept == result.rows
  for row, pair in zip(rows, kept, strict=True):
    assert np.array_equal(row['after'], pair.row['after'])
  assert np.array_equal(Records(directory).column('gain'), [pair.row['gain'] for pair in kept])
  dropped = len(every) - len(kept)
  assert (result.total, result.reasons, result.finished) == (len(every), {DARK: dropped}, True)
  assert str(result) == f'{len(kept)} of {len(every)} pairs kept; {dropped} dropped, {DARK}'
  assert Records(directory).summary['reasons'] == {DARK: dropped}
  page = (directory / PAGE).read_text()
  assert 'too dark &amp; &lt;dull&gt;' in page and '<dull>' not in page
  sheets = sorted((directory / PICTURES).iterdir())
  assert re.findall(r'src="([^"]+)"', page) == [f'{PICTURES}/{path.name}' for path in sheets]
  titles = []
  for path in sheets:
    with Image.open(path) as sheet:
      titles += sheet.info['Description'].split('\n')
  assert len(titles) == len(every)
  for title, pair in zip(titles, every, strict=True):
    state = f'dropped, {DARK}' if pair.reason else 'kept'
    assert title == f'{state} (gain {pair.scores["gain"]:.3g}): {pair.title}'


def test_the_same_command_again_changes_nothing(undisturbed):
  directory, result = undisturbed
  before = contents(directory)
  assert make(directory, make=lambda *given: pytest.fail('was made again')) == result
  assert contents(directory) == before


def test_several_processes_make_what_one_makes(undisturbed, tmp_path):
  results = [make(tmp_path / 'pairs', share=Share(index, 3)) for index in (2, 0, 1)]
  assert [result.finished for result in results] == [False, False, True]
  assert results[-1] == undisturbed[1]
  assert same(tmp_path / 'pairs', undisturbed[0])


def test_one_row_may_hold_what_several_pairs_keep(tmp_path):
  def gather(indices, samples):
    for index, sample in zip(indices, samples, strict=True):
      row = {'video': sample['video'], 'caption': sample['caption']}
      yield [Pair(str(index), row, {}, '', [sample['video']])] + [
        Pair(str(index), None, {}, '', [sample['video']])
      ] * (index % 2)

  result = make(tmp_path / 'pairs', make=gather, most=1, columns=())
  assert (result.total, result.kept, result.rows) == (31, 31, SAMPLES)
  assert str(result) == f'31 of 31 pairs kept in {SAMPLES} rows'
  assert len(Records(tmp_path / 'pairs')) == SAMPLES


def test_samples_and_shards_may_give_no_pair(tmp_path):
  def seldom(indices, samples):
    made = zip(indices, brighten(indices, samples), strict=True)
    return [pairs if index == 5 else [] for index, pairs in made]

  result = make(tmp_path / 'pairs', make=seldom)
  assert result.total == MOST
  assert len(list(Records(tmp_path / 'pairs'))) == result.kept > 0
  assert (tmp_path / 'pairs' / PAGE).read_text().count('<img') == 1


@pytest.mark.parametrize('changes', [{'meta': {'seed': 1}}, {'batch_size': 3}, {'most': 3}])
def test_a_directory_begun_with_other_values_is_refused(undisturbed, changes):
  before = contents(undisturbed[0])
  with pytest.raises(ConfigError, match=r'was begun with other values: .*another directory'):
    make(undisturbed[0], **changes)
  assert contents(undisturbed[0]) == before


def test_what_cannot_be_made_is_one_sentence(tmp_path):
  def refuse(indices, samples):
    return [[Pair('x', None, {}, 'no good', [sample['video']])] for sample in samples]

  for _ in range(2):  # the same again
    with pytest.raises(DataError) as caught:
      make(tmp_path / 'none', make=refuse)
    said = f'0 of {SAMPLES} pairs kept; {SAMPLES} dropped, no good, so nothing is left'
    assert str(caught.value).startswith(said)
  assert 'no good' in (tmp_path / 'none' / PAGE).read_text()
  with pytest.raises(DataError, match='have no sample'):
    make_pairs(Digits(length=0), PairMaker(brighten, {}), tmp_path / 'empty')
  with pytest.raises(ConfigError, match='is an address'):
    make('gs://bucket/pairs')
