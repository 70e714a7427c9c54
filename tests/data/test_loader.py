"""The order of the batches: exact, resumable, and the same on any number of hosts."""

import collections
import gc
import pathlib
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.batch_order import ShapeBucket, describe_data, make_batches
from mgjax.data.loader import (
  StepIterator,
  continue_orders,
  data_hash,
  validation_batches,
  without_worlds,
)
from mgjax.lab.worlds.digits.clips import Digits
from tests.tensors import same_each


class Numbered:
  """Samples that know their bucket and index, with a shape of their own per bucket."""

  def __init__(self, mark: int, size: int, frames: int = 1):
    self.mark, self.size, self.frames = mark, size, frames

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    return {
      'mark': np.int32(self.mark),
      'index': np.array(index),
      'video': np.full((self.frames, 2, 2, 3), index, np.uint8),
    }


def image_and_video(image_weight=10, video_weight=1):
  return [
    ShapeBucket('image', Numbered(0, 250), 24, image_weight),
    ShapeBucket('video', Numbered(1, 100, frames=4), 12, video_weight),
  ]


def read(batches, start, stop, **options):
  with StepIterator(batches, start, **options) as iterator:
    result = [next(iterator) for _ in range(start, stop)]
    assert iterator.step == stop
  return result


@pytest.mark.parametrize('threads', [0, 1, 16])
def test_batches_do_not_depend_on_the_threads(threads):
  batches = make_batches(image_and_video(), seed=3)
  same_each(read(batches, 0, 30, threads=threads), [batches[step] for step in range(30)])


def test_seek_goes_back_and_forth():
  batches = make_batches(image_and_video(), seed=3)
  with StepIterator(batches) as iterator:
    first = [next(iterator) for _ in range(4)]
    iterator.seek(1)
    assert iterator.step == 1
    same_each([next(iterator) for _ in range(3)], first[1:])


@pytest.mark.parametrize(
  ('weights', 'counts'),
  [
    ((1, 3), (1, 3)),
    ((10, 1), (10, 1)),
    ((7, 3), (7, 3)),
    ((0.1, 0.3), (1, 3)),
    ((10, 0.5, 0.3, 0.2), (100, 5, 3, 2)),
    ((2,), (1,)),
  ],
)
def test_the_ratio_is_exact_over_every_cycle(weights, counts):
  buckets = [ShapeBucket(f'b{i}', Numbered(i, 200), 1, weight) for i, weight in enumerate(weights)]
  batches, cycle = make_batches(buckets, seed=0), sum(counts)
  for start in (0, cycle, 5 * cycle, 10**9 * cycle):
    seen = collections.Counter(int(batches[start + step]['mark'][0]) for step in range(cycle))
    assert tuple(seen[i] for i in range(len(counts))) == counts


def test_a_rare_bucket_is_spread_evenly():
  batches = make_batches(image_and_video(10, 1), seed=0)
  turns = [step for step in range(110) if batches[step]['mark'][0] == 1]
  assert np.ptp(np.diff(turns)) == 0


def test_epochs_seeds_and_buckets_have_orders_of_their_own():
  def order(seed, name='a'):
    batches = make_batches([ShapeBucket(name, Numbered(0, 40), 10)], seed=seed)
    return np.concatenate([batches[step]['index'] for step in range(8)])

  first, second = np.split(order(1), 2)
  assert not np.array_equal(first, second)
  assert not np.array_equal(second, order(2)[:40])
  assert not np.array_equal(first, order(2)[:40])
  assert not np.array_equal(first, order(1, name='b')[:40])
  np.testing.assert_array_equal(order(1), order(1))


def test_another_bucket_does_not_change_the_order_within_a_bucket():
  alone = make_batches(image_and_video()[:1], seed=3)
  mixed = make_batches(image_and_video(1, 1), seed=3)
  images = [mixed[step] for step in range(10) if mixed[step]['mark'][0] == 0]
  same_each(images, [alone[step] for step in range(5)])


def test_the_transform_makes_arrays_of_captions():
  class Captioned(Numbered):
    def __getitem__(self, index):
      return {'caption': 'x' * (index + 1)}

  def count_letters(sample):
    return {'text': np.array([len(sample['caption'])], np.int32)}

  batches = make_batches([ShapeBucket('text', Captioned(0, 4), 4, transform=count_letters)], seed=0)
  assert sorted(batches[0]['text'][:, 0]) == [1, 2, 3, 4]
  with pytest.raises(DataError, match=r"'text'.*'caption'.*str.*transform"):
    make_batches([ShapeBucket('text', Captioned(0, 4), 4)], seed=0)[0]


@pytest.mark.parametrize(
  ('transform', 'message'),
  [
    (lambda sample: None, 'expected a dict'),
    (lambda sample: {'words': np.array(['a'])}, "'words'.*numbers only"),
    (lambda sample: {'x': np.zeros(int(sample['index']) + 1)}, "'x' is float64.*different buckets"),
    (lambda sample: {f'x{sample["index"]}': np.zeros(1)}, 'has the fields'),
  ],
)
def test_a_sample_that_does_not_fit_its_bucket_is_named(transform, message):
  batches = make_batches([ShapeBucket('odd', Numbered(0, 4), 4, transform=transform)], seed=0)
  with pytest.raises(DataError, match=f"'odd'.*{message}"):
    batches[0]


@pytest.mark.parametrize(
  ('change', 'hosts', 'error', 'message'),
  [
    ({'weight': 0}, 1, ConfigError, 'weight 0 must be a positive number'),
    ({'weight': -1.0}, 1, ConfigError, 'weight -1.0'),
    ({'weight': float('nan')}, 1, ConfigError, 'weight nan'),
    ({'batch_size': 10}, 4, ConfigError, '4 .* batch of 10; .* 8 or 12'),
    ({'batch_size': 2}, 4, ConfigError, 'batch_size to 4 or a multiple'),
    ({'batch_size': 0}, 1, ConfigError, 'batch of 0'),
    ({'source': Numbered(0, 0)}, 1, DataError, 'no samples'),
  ],
)
def test_a_wrong_bucket_is_refused(change, hosts, error, message):
  bucket = ShapeBucket(**{'name': 'a', 'source': Numbered(0, 4), 'batch_size': 4} | change)
  with pytest.raises(error, match=f"bucket 'a'.*{message}"):
    make_batches([bucket], seed=0, hosts=hosts)


def test_a_batch_that_raises_is_asked_for_again():
  broken = {'now': True}

  def fail_once(sample):
    if broken['now'] and sample['index'] == 3:
      raise OSError('a disk is away')
    return sample

  bucket = ShapeBucket('a', Numbered(0, 8), 2, transform=fail_once)
  expected = [
    make_batches([ShapeBucket('a', Numbered(0, 8), 2)], seed=0)[step] for step in range(4)
  ]
  with StepIterator(make_batches([bucket], seed=0)) as iterator:
    result = []
    with pytest.raises(OSError, match='a disk is away'):
      result.extend(next(iterator) for _ in range(4))
    result = result[: iterator.step]
    broken['now'] = False
    while iterator.step < 4:
      result.append(next(iterator))
  same_each(result, expected)


def test_closed_is_closed_and_the_threads_are_gone():
  iterator = StepIterator(make_batches(image_and_video(), seed=3))
  next(iterator)
  iterator.close()
  iterator.close()
  with pytest.raises(ValueError, match='closed'):
    next(iterator)
  with pytest.raises(ValueError, match='negative'):
    StepIterator(make_batches(image_and_video(), seed=3), -1)


def test_a_forgotten_iterator_stops_its_threads():
  def prefetching():
    return [t for t in threading.enumerate() if t.name.startswith('grain-prefetch')]

  iterator = StepIterator(make_batches(image_and_video(), seed=3))
  next(iterator)
  assert prefetching()
  del iterator
  gc.collect()
  for thread in prefetching():
    thread.join(timeout=10)
  assert not prefetching()


def test_nothing_is_said_at_exit_by_iterators_left_open(tmp_path):
  program = """
    import numpy as np
    from mgjax.data.loader import StepIterator
    from mgjax.data.batch_order import ShapeBucket, make_batches

    if __name__ == '__main__':
      rows = [{'x': np.full(300_000, index)} for index in range(8)]
      batches = make_batches([ShapeBucket('a', rows, 4)], seed=0)
      threads, workers = StepIterator(batches), StepIterator(batches, threads=1, workers=1)
      kept = next(threads), next(workers)
      assert np.array_equal(kept[0]['x'], kept[1]['x'])
  """
  path = tmp_path / 'program.py'
  path.write_text(textwrap.dedent(program))
  root = pathlib.Path(__file__).parents[2]
  run = subprocess.run(
    [sys.executable, '-W', 'error::ResourceWarning', str(path)],
    env={'PYTHONPATH': str(root), 'PATH': '', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert (run.returncode, run.stdout, run.stderr) == (0, '', '')


def test_validation_batches_are_the_first_ones_in_order_at_every_call():
  bucket = ShapeBucket('held out', Numbered(0, 13), 6)
  for _ in range(2):
    batches = list(validation_batches(bucket, 2))
    assert [list(batch['index']) for batch in batches] == [list(range(6)), list(range(6, 12))]
  second = list(validation_batches(bucket, 2, host=1, hosts=2))
  assert [list(batch['index']) for batch in second] == [[3, 4, 5], [9, 10, 11]]
  with pytest.raises(ConfigError, match=r'3 batches of 6 need 18 samples.*13 make 2 batches'):
    validation_batches(bucket, 3)


def test_the_hash_names_what_the_order_depends_on():
  base = describe_data(image_and_video(), seed=1)
  assert data_hash(base) == data_hash(dict(reversed(base.items())))
  assert data_hash(base) == data_hash(describe_data(image_and_video(10.0, 1), seed=1))
  for other in (
    describe_data(image_and_video(), seed=2),
    describe_data(image_and_video(9, 1), seed=1),
    describe_data(image_and_video()[::-1], seed=1),
    describe_data(image_and_video()[:1], seed=1),
  ):
    assert data_hash(other) != data_hash(base)
  assert data_hash({'seed': 1}) == 'a4bbadc1c78966d2'  # the same in every run and release


def test_changed_data_are_refused_or_begin_an_order_of_their_own():
  begun = [(0, 'aa')]
  assert continue_orders(begun, 7, 'aa') == begun
  with pytest.raises(ConfigError, match=r'step 7 was trained on aa.*describes bb.*--new_data'):
    continue_orders(begun, 7, 'bb')
  second = continue_orders(begun, 7, 'bb', allow=True)
  assert second == [(0, 'aa'), (7, 'bb')]
  assert continue_orders(second, 9, 'bb') == second
  # As JSON gives it back; a change at a step at which one has begun leaves no empty order behind.
  assert continue_orders([[0, 'aa'], [7, 'bb']], 7, 'cc', allow=True) == [(0, 'aa'), (7, 'cc')]
  with pytest.raises(ConfigError, match='not JSON serializable'):
    data_hash({'source': object()})


def test_other_files_of_the_same_number_are_other_data():
  class Files(Numbered):
    fingerprint = 'first'

  def order(source):
    return data_hash(describe_data([ShapeBucket('a', source, 2)], seed=1))

  files = Files(0, 10)
  first = order(files)
  files.fingerprint = 'second'
  assert order(files) != first != order(Numbered(0, 10))


def test_runs_on_the_small_world_that_earlier_versions_began_go_on():
  """Its sources did not say what they are: all had the content None."""

  def described(source):
    return describe_data([ShapeBucket('video', source, 2)], seed=3)

  red, blue = (Digits(frames=2, size=(8, 8), length=8, colours=(name,)) for name in ('red', 'blue'))
  begun = [(0, data_hash(described(range(8))))]
  new, before = data_hash(described(red)), data_hash(without_worlds(described(red)))
  assert continue_orders(begun, 7, new, before=before) == begun
  assert data_hash(described(blue)) != new  # and now they do
  with pytest.raises(ConfigError, match='the data have changed'):
    continue_orders([(0, data_hash(described(blue)))], 7, new, before=before)
