"""Pairs made by a model: what is kept is in records, all of it on a page, whoever is killed."""

import multiprocessing
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.records.reader import Records, verify_records
from mgjax.digits.clips import Digits
from mgjax.media.titles import read_titles
from mgjax.workflows.make_pairs import PAGE, PICTURES, Pair, make_pairs

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


def make(directory, make=brighten, meta=None, **options):
  options = {'most': MOST, 'columns': ('gain',), 'batch_size': 2, 'samples_per_shard': 4, **options}
  return make_pairs(WORLD, make, directory, meta={'seed': 0} if meta is None else meta, **options)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  directory = tmp_path_factory.mktemp('pairs') / 'undisturbed'
  return directory, make(directory)


def contents(directory):
  """All that the next steps read, by name: shards, indices, captions and the manifest."""
  return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def pictures(directory):
  return {path.name: path.read_bytes() for path in (directory / PICTURES).iterdir()}


def same(directory, expected):
  """Whether all is bit by bit as in another directory, and nothing was left over."""
  assert verify_records(directory) == []
  found, wanted = contents(directory), contents(expected)
  left = {name for name in found if name.startswith(f'.{PAGE}.')}  # of a kill at its very end
  assert found.keys() - left == wanted.keys()
  assert [name for name in wanted if found[name] != wanted[name]] == []
  return pictures(directory) == pictures(expected)


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
  assert (result.made, result.reasons, result.finished) == (len(every), {DARK: dropped}, True)
  assert str(result) == f'{len(kept)} of {len(every)} pairs kept; {dropped} dropped, {DARK}'
  assert Records(directory).summary['reasons'] == {DARK: dropped}
  page = (directory / PAGE).read_text()
  assert 'too dark &amp; &lt;dull&gt;' in page and '<dull>' not in page
  sheets = sorted((directory / PICTURES).iterdir())
  assert re.findall(r'src="([^"]+)"', page) == [f'{PICTURES}/{path.name}' for path in sheets]
  titles = [title for path in sheets for title in read_titles(path)]
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
  results = [make(tmp_path / 'pairs', process=index, processes=3) for index in (2, 0, 1)]
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
  assert (result.made, result.kept, result.rows) == (31, 31, SAMPLES)
  assert str(result) == f'31 of 31 pairs kept in {SAMPLES} rows'
  assert len(Records(tmp_path / 'pairs')) == SAMPLES


def test_samples_and_shards_may_give_no_pair(tmp_path):
  def seldom(indices, samples):
    made = zip(indices, brighten(indices, samples), strict=True)
    return [pairs if index == 5 else [] for index, pairs in made]

  result = make(tmp_path / 'pairs', make=seldom)
  assert result.made == MOST
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
    make_pairs(Digits(length=0), brighten, tmp_path / 'empty', meta={})
  with pytest.raises(ConfigError, match='is an address'):
    make('gs://bucket/pairs')


def work(directory, process, processes, ready):
  """What a process does that may be killed."""
  ready.set()
  make(directory, lambda *given: brighten(*given, pause=0.01), process=process, processes=processes)


def start(context, directory, processes):
  """Processes that share the work and have begun, from a server that has imported all of it."""
  running = []
  for process in range(processes):
    ready = context.Event()
    running.append(context.Process(target=work, args=(directory, process, processes, ready)))
    running[-1].start()
    assert ready.wait(120)
  return running


def end(running):
  for process in running:
    process.join(timeout=120)
  return [process.exitcode for process in running]


def killed(directory, expected, least):
  """Kills processes at random moments, two at work at once, until there were `least` kills."""
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload([__name__])
  running, begun = start(context, directory, 1), time.monotonic()
  assert end(running) == [0]
  seconds = time.monotonic() - begun  # twice what two take, so that some come to their end
  assert same(directory, expected)
  shutil.rmtree(directory)
  chance, kills = random.Random(0), 0
  while kills < least:
    running = start(context, directory, 2)
    begun = time.monotonic()
    for moment, process in sorted((chance.uniform(0, seconds), i) for i in range(2)):
      time.sleep(max(0.0, begun + moment - time.monotonic()))
      running[process].kill()
    codes = end(running)
    assert set(codes) <= {0, -signal.SIGKILL}
    kills += codes.count(-signal.SIGKILL)
    if codes == [0, 0]:
      assert same(directory, expected)
      shutil.rmtree(directory)
  assert end(start(context, directory, 1)) == [0]
  return same(directory, expected)


@pytest.mark.parametrize('kills', [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_processes_leave_what_an_undisturbed_one_makes(undisturbed, tmp_path, kills):
  assert killed(tmp_path / 'pairs', undisturbed[0], kills)
