"""Which clip belongs where, at which rate, and batches of equal cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.video import t2iv_256
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.buckets import Shape, assign_buckets, rows_for, sort_out, usable_clips
from mgjax.data.clip_index import IndexedClip, index_of_clips
from mgjax.data.settings import video_shapes

CONFIG = t2iv_256.get_config()
SHAPES = video_shapes(CONFIG.buckets.to_dict(), CONFIG.data.fps)
VIDEOS = {name: shape for name, shape in SHAPES.items() if shape.frames > 1}


def clip(seconds, width=1280, height=720, start=None, fps=25.0):
  return IndexedClip('x.mp4', 'x', seconds, start, fps, height, width, True, f'{seconds:g}.mp4')


def home(shapes=VIDEOS, **fields):
  """The bucket that takes a clip, and the rate at which it is taken."""
  given = clip(**fields)
  clips = index_of_clips([given])
  (name,) = [name for name, indices in assign_buckets(clips, shapes).items() if len(indices)]
  left = np.array([given.seconds - (given.start or 0)])
  return name, shapes[name].rates(left)[0]


@pytest.mark.parametrize(
  ('seconds', 'length', 'fps'),
  [
    (10.67, '11s', 24),
    (16.0, '16s', 16),
    (60.0, '16s', 16),
    (14.0, '12_16s', 19),  # 256 / 14 = 18.3: the next whole rate, so that it fits
    (12.5, '12_16s', 21),
    (11.5, '8_12s', 17),
    (11.0, '11s', 24),  # 192 / 11 s would be taken at 18: 10.67 s as well, with fewer frames
    (8.0, '8_12s', 24),
    (6.0, '4_8s', 22),
    (4.0, '4_8s', 32),
  ],
)
def test_the_five_durations_are_those_of_the_report(seconds, length, fps):
  name, rate = home(seconds=seconds)
  assert name == f'video_16x9_{length}' and rate == fps


def test_where_every_length_takes_its_share_a_clip_has_one_bucket_of_each():
  shapes = {
    name: Shape(frames, *size, (25, 25))
    for frames in (250, 750)
    for name, size in ((f'{frames}_wide', (16, 32)), (f'{frames}_tall', (32, 16)))
  }
  clips = index_of_clips([clip(31.0), clip(12.0), clip(40.0, width=720, height=1280)])
  found = assign_buckets(clips, shapes, every_length=True)
  assert {name: indices.tolist() for name, indices in found.items()} == {
    '250_wide': [0, 1],
    '250_tall': [2],
    '750_wide': [0],
    '750_tall': [2],
  }
  alone = assign_buckets(clips, shapes)
  assert {name: indices.tolist() for name, indices in alone.items()} == {
    '250_wide': [1],
    '250_tall': [],
    '750_wide': [0],
    '750_tall': [2],
  }


@pytest.mark.parametrize(
  ('width', 'height', 'ratio'),
  [
    (1920, 1080, '16x9'),
    (1080, 1920, '9x16'),
    (500, 500, '1x1'),
    (640, 480, '4x3'),
    (480, 640, '3x4'),
    (4000, 500, '16x9'),
    (720, 700, '1x1'),
  ],
)
def test_a_clip_goes_where_the_least_is_cut_off(width, height, ratio):
  assert home(seconds=16.0, width=width, height=height)[0] == f'video_{ratio}_16s'


@settings(max_examples=100, deadline=None)
@given(
  seconds=st.floats(3.0, 100.0),
  width=st.integers(16, 4000),
  height=st.integers(16, 2000),
  start=st.one_of(st.none(), st.floats(0.0, 50.0)),
)
def test_no_other_bucket_keeps_more_and_what_is_taken_is_there(seconds, width, height, start):
  given = clip(seconds, width, height, start)
  clips = index_of_clips([given])
  shares = {name: usable_clips(clips, shape)[0] for name, shape in SHAPES.items()}
  for images in (True, False):
    alike = {n: share for n, share in shares.items() if (SHAPES[n].frames == 1) == images}
    takers = [
      n for n, indices in assign_buckets(clips, SHAPES).items() if len(indices) and n in alike
    ]
    assert len(takers) == (max(alike.values()) > 0)
    for name in takers:
      assert shares[name] > max(alike.values()) - 1e-5
      left = seconds - (start or 0.0)
      shape = SHAPES[name]
      rate = shape.rates(np.array([left]))[0]
      assert shape.fps[0] <= rate <= shape.fps[1] and rate == round(rate)
      assert (shape.frames - 1) / rate < left
      assert 0 < shares[name] <= 1 + 1e-9


def test_every_clip_has_one_bucket_of_videos_and_one_of_images():
  generator = np.random.default_rng(0)
  clips = index_of_clips(
    [clip(*row) for row in generator.uniform((4, 200, 200), (40, 900, 900), (300, 3))]
  )
  assigned = assign_buckets(clips, SHAPES)
  for images in (True, False):
    found = np.concatenate(
      [indices for name, indices in assigned.items() if (SHAPES[name].frames == 1) == images]
    )
    np.testing.assert_array_equal(np.sort(found), np.arange(300))
  assert all((np.diff(indices) > 0).all() for indices in assigned.values())


def test_empty_buckets_and_clips_without_a_bucket_are_said_aloud(tmp_path, caplog):
  clips = index_of_clips([clip(16.0), clip(1.5)])
  taken = sort_out(clips, [], VIDEOS, 'clips/', tmp_path / 'rejected.jsonl')
  assert list(taken) == ['video_16x9_16s'] and list(taken['video_16x9_16s']) == [0]
  assert '1 clips, 1 rejected' in caplog.text and 'video_1x1_16s' in caplog.text
  assert '1.5.mp4' in (tmp_path / 'rejected.jsonl').read_text()
  with pytest.raises(DataError, match=r'too short: it lasts 1.50 s, 128 frames at 32.*4\.00 s'):
    sort_out(clips.take(np.array([1])), [], VIDEOS, 'clips/')


def test_a_part_of_a_clip_index_has_another_fingerprint():
  clips = index_of_clips([clip(16.0), clip(1.5)])
  assert clips.fingerprint == index_of_clips([clip(16.0), clip(1.5)]).fingerprint
  others = [index_of_clips([clip(16.0), clip(1.6)]), clips.take(np.array([1, 0]))]
  assert all(other.fingerprint != clips.fingerprint for other in others)
  assert clips.take(np.array([1]))[0].seconds == 1.5


def test_a_range_of_rates_must_be_one():
  size = {'frames': 8, 'height': 8, 'width': 8}
  shapes = video_shapes({'a': size, 'b': {**size, 'fps': [9, 12]}}, 16)
  assert shapes['a'].fps == (16, 16) and shapes['b'].fps == (9, 12)
  with pytest.raises(ConfigError, match=r'buckets\.a: fps = .*lowest, highest'):
    video_shapes({'a': {**size, 'fps': (12, 9)}}, 16)


def test_at_equal_cost_batches_cost_about_the_same_in_every_bucket():
  costs = {}
  for name, bucket in t2iv_256.get_config('30b,equal_cost').buckets.items():
    latents = -(-bucket.frames // 8) * bucket.height // 16 * (bucket.width // 16)
    costs[name] = bucket.batch_size * latents
  assert max(costs.values()) / min(costs.values()) < 1.05


def test_rows_are_a_multiple_of_what_is_asked():
  large, small = Shape(256, 256, 256, (16, 16)), Shape(128, 256, 256, (16, 16))
  assert rows_for(small, large, 100) == 200
  assert rows_for(small, large, 100, 64) == 192
  assert rows_for(large, small, 4, 64) == 64


def test_of_very_many_clips_without_a_bucket_the_first_are_listed_and_all_counted(
  monkeypatch, tmp_path, caplog
):
  monkeypatch.setattr('mgjax.data.buckets._LISTED', 3)
  clips = index_of_clips([clip(16.0), *[clip(1 + index / 100) for index in range(9)]])
  report = tmp_path / 'rejected.jsonl'
  sort_out(clips, [], VIDEOS, 'clips/', report)
  assert '1 clips, 9 rejected' in caplog.text and 'but for 6 like the last' in caplog.text
  assert len(report.read_text().splitlines()) == 3


def test_clips_whose_frames_repeat_are_counted_and_the_worst_is_named(caplog):
  rates = {4.2: 24.0, 4.4: 10.0, 4.1: 23.976, 6.0: 25.0, 16.0: 16.0, 5.0: 60.0}
  clips = index_of_clips([clip(seconds, fps=fps) for seconds, fps in rates.items()])
  taken = sort_out(clips, [], VIDEOS, 'slow/')
  assert sum(map(len, taken.values())) == len(rates)
  said = (
    '3 of 6 clips have fewer frames a second than their bucket takes and repeat some, 4.4.mp4 67%'
  )
  assert said in caplog.text and 'config.data.repeats' in caplog.text
  caplog.clear()
  sort_out(clips, [], VIDEOS, 'slow/')  # as of each split and stage
  assert 'repeat' not in caplog.text


def test_clips_whose_frames_repeat_may_be_refused(tmp_path, caplog):
  clips = index_of_clips([clip(4.2, fps=24.0), clip(4.4, fps=10.0), clip(16.0, fps=24.0)])
  report = tmp_path / 'rejected.jsonl'
  (kept,) = sort_out(clips, [], VIDEOS, 'refused/', report, repeats=0).values()
  assert kept.tolist() == [2] and 'repeat some' not in caplog.text
  reasons = report.read_text().splitlines()
  assert len(reasons) == 2
  assert (
    'it has 24 a second, 128 frames at 31 per second are taken, and data.repeats = 0' in reasons[0]
  )
  taken = sort_out(clips, [], VIDEOS, 'refused/', repeats=0.25)
  assert sorted(np.concatenate(list(taken.values()))) == [0, 2]


def test_a_clip_whose_frames_would_repeat_goes_to_a_bucket_of_fewer_frames():
  size = {'height': 16, 'width': 16}
  shapes = video_shapes(
    {'long': {'frames': 128, 'fps': (16, 32), **size}, 'short': {'frames': 64, 'fps': 16, **size}},
    0,
  )
  clips = index_of_clips([clip(4.2, fps=24.0)])
  homes = {
    share: [
      name for name, indices in assign_buckets(clips, shapes, repeats=share).items() if len(indices)
    ]
    for share in (1.0, 0.0)
  }
  assert homes == {1.0: ['long'], 0.0: ['short']}


@given(st.floats(1, 60), st.floats(4, 40))
@settings(deadline=None, max_examples=60)
def test_the_share_that_repeats_is_the_share_of_neighbours_that_are_one_frame(fps, seconds):
  for shape in VIDEOS.values():
    rate = shape.rates(np.array([seconds]))[0]
    shown = np.floor(np.arange(shape.frames) / rate * fps + 1e-6)
    repeated = np.mean(np.diff(shown) == 0) if rate > fps else 0
    found = shape.repeats(np.array([seconds]), np.array([fps]))[0]
    assert abs(found - repeated) < 0.05
