"""Clips are stretches of whole frames, each within one shot."""

import itertools

import pytest

from mgjax.lab.curation.clips import choose_clips
from mgjax.lab.curation.filters.scenes import Shot
from mgjax.lab.curation.settings import ClipSettings

FPS = 24000 / 1001


def video(*frames):
  """Shots of so many frames each, and the times of all frames."""
  bounds = [0, *itertools.accumulate(frames)]
  times = [number / FPS for number in range(bounds[-1] + 1)]
  pairs = itertools.pairwise(bounds)
  return [Shot(times[first], times[last], first, last) for first, last in pairs], times


@pytest.mark.parametrize('most', [1, 2])
def test_the_longest_shots_give_a_clip_each_in_their_order(most):
  shots, times = video(30, 200, 500, 90, 240)
  clips = choose_clips(shots, times, ClipSettings(most=most, first=0.0))
  assert [clip.shot for clip in clips] == [2, 4][:most]


@pytest.mark.parametrize('length', [96, 100, 383, 384, 385, 1000])
@pytest.mark.parametrize('first', [0.0, 1.0])
def test_a_clip_lies_within_its_shot_and_is_as_long_as_it_may_be(length, first):
  shots, times = video(150, length)
  settings = ClipSettings(shortest=4.0, longest=16.0, most=2, first=first)
  clip = choose_clips(shots, times, settings)[-1]
  shot = shots[clip.shot]
  assert shot.first <= clip.first < clip.last <= shot.last
  assert (clip.start, clip.end) == (times[clip.first], times[clip.last])
  wanted = min(16.0, shot.end - shot.start)
  assert wanted - 1 / FPS < clip.end - clip.start < wanted + 1e-3


def test_the_first_seconds_are_left_out_if_enough_is_left():
  settings = ClipSettings(first=1.0)
  (clip,) = choose_clips(*video(240), settings)
  assert clip.start >= 1.0 - 1e-3 and clip.first == 24
  (short,) = choose_clips(*video(100), settings)  # 4.17 s
  assert short.start == 0


def test_a_video_without_a_shot_of_enough_length_gives_its_longest_one_to_be_counted():
  (clip,) = choose_clips(*video(10, 30, 20), ClipSettings())
  assert (clip.shot, clip.first, clip.last) == (1, 10, 40)
  (frame,) = choose_clips(*video(1), ClipSettings())
  assert (frame.first, frame.last) == (0, 1)
