"""Batch = function of (seed, step, host): properties over hosts, workers, stops and weights."""

import collections
import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgjax.data.batch_order import ShapeBucket, make_batches, samples_seen, share_by_samples
from mgjax.data.loader import StepIterator

STEPS = 33


class Named:
  """Samples that say which they are."""

  def __init__(self, bucket, size):
    self.bucket, self.size = bucket, size

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    return {'which': np.array([self.bucket, index])}


def bench(seed_of_sizes=0):
  """Buckets of images and videos as the backbone has them, 1 : 10, sizes unlike each other."""
  sizes = np.random.default_rng(seed_of_sizes).integers(5, 90, 4)
  return [
    ShapeBucket('image_wide', Named(0, int(sizes[0])), 24, 1, group='image'),
    ShapeBucket('image_tall', Named(1, int(sizes[1])), 36, 1, group='image'),
    ShapeBucket('video_wide', Named(2, int(sizes[2])), 12, 10),
    ShapeBucket('video_tall', Named(3, int(sizes[3])), 12, 10),
  ]


def read(start, stop, *, host=0, hosts=1, workers=0, seed=0, sizes=0):
  batches = make_batches(bench(sizes), seed=seed, host=host, hosts=hosts)
  with StepIterator(batches, start, threads=2, workers=workers) as iterator:
    return [next(iterator)['which'] for _ in range(start, stop)]


def union(parts):
  """What all hosts hold at each step, the rows of the first host first."""
  return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


@settings(max_examples=10, deadline=None)
@given(
  hosts=st.integers(1, 4),
  later_hosts=st.integers(1, 4),
  stop=st.integers(0, STEPS),
  seed=st.integers(0, 5),
  sizes=st.integers(0, 5),
)
def test_stopped_anywhere_and_resumed_on_other_hosts_the_samples_are_the_same(
  hosts, later_hosts, stop, seed, sizes
):
  expected = read(0, STEPS, seed=seed, sizes=sizes)
  options = {'seed': seed, 'sizes': sizes}
  before = union(read(0, stop, host=h, hosts=hosts, **options) for h in range(hosts))
  after = union(read(stop, STEPS, host=h, hosts=later_hosts, **options) for h in range(later_hosts))
  for found, wanted in zip(before + after, expected, strict=True):
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
  'workers', [1, *(pytest.param(each, marks=pytest.mark.slow) for each in (2, 3))]
)
def test_any_number_of_workers_on_any_number_of_hosts_gives_the_same_samples(workers):
  expected = read(0, STEPS)
  for hosts in (1, 4) if workers == 3 else (workers + 1,):
    stop = 7 * workers
    before = union(read(0, stop, host=h, hosts=hosts) for h in range(hosts))
    after = union(read(stop, STEPS, host=h, hosts=hosts, workers=workers) for h in range(hosts))
    for found, wanted in zip(before + after, expected, strict=True):
      np.testing.assert_array_equal(found, wanted)
    assert not multiprocessing.active_children()


@settings(max_examples=20, deadline=None)
@given(
  videos=st.sampled_from([3, 10]),
  cycles=st.integers(1, 5),
  start=st.integers(0, 10**9),
  shared=st.booleans(),
)
def test_one_batch_of_images_comes_to_so_many_of_videos_in_any_window_of_whole_cycles(
  videos, cycles, start, shared
):
  buckets = [
    ShapeBucket('image_wide', Named(0, 61), 8, 1, group='image'),
    ShapeBucket('image_tall', Named(0, 17), 8, 1, group='image'),
    *(ShapeBucket(f'video_{i}', Named(1, 5 + 7 * i), 4, 2 * videos / 5) for i in range(5)),
  ]
  batches = make_batches(share_by_samples(buckets) if shared else buckets, seed=0)
  window = cycles * (videos + 1)
  seen = collections.Counter(int(batches[start + k]['which'][0, 0]) for k in range(window))
  assert seen == {0: cycles, 1: cycles * videos}


def test_shared_by_samples_every_sample_of_a_group_comes_equally_often():
  sizes = (20, 30, 50)
  buckets = [ShapeBucket(f'b{i}', Named(i, size), 5 * (i + 1), 1) for i, size in enumerate(sizes)]
  batches = make_batches(share_by_samples(buckets), seed=0)
  # Weights 20/5 : 30/10 : 50/15 = 12 : 9 : 10 batches; in 31 * 10 steps every sample comes 10 times
  # 3 times over: 120 * 5 / 20, 90 * 10 / 30, 100 * 15 / 50.
  seen = collections.Counter(
    tuple(which) for step in range(310) for which in batches[step]['which'].tolist()
  )
  assert set(seen.values()) == {30} and len(seen) == sum(sizes)


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=3, max_size=3), steps=st.integers(0, 60))
def test_the_samples_that_a_run_sees_are_counted_as_the_loader_gives_them(sizes, steps):
  buckets = [
    ShapeBucket('image', Named(0, 9), 3, 1, group='image'),
    *(ShapeBucket(f'video_{i}', Named(i + 1, size), 4 + i, 2) for i, size in enumerate(sizes)),
  ]
  buckets = share_by_samples(buckets)
  batches, given = make_batches(buckets, seed=0), collections.Counter()
  for step in range(steps):
    given.update(buckets[which].name for which in batches[step]['which'][:, 0])
  assert samples_seen(buckets, steps) == {bucket.name: given[bucket.name] for bucket in buckets}


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 40), batch=st.integers(1, 12), epochs=st.integers(1, 4))
def test_every_sample_comes_once_per_epoch_per_bucket(size, batch, epochs):
  buckets = [ShapeBucket('a', Named(0, size), batch, 1), ShapeBucket('b', Named(1, 7), 3, 2)]
  batches = make_batches(buckets, seed=4)
  steps = -(-size * epochs // batch) * 3
  mine = [batches[step]['which'] for step in range(steps)]
  order = np.concatenate([rows[:, 1] for rows in mine if rows[0, 0] == 0])
  for epoch in order[: size * epochs].reshape(epochs, size):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(size))
