"""Shots begin and end where a video cuts, and nowhere else."""

import numpy as np
import pytest

from mgjax.lab.curation.filters.scenes import SceneSettings, find_shots, shots_of_file
from tests.data.media.real_clips import real_clip


def timed(frames, fps=10):
  return [(n / fps, (n + 1) / fps, frame) for n, frame in enumerate(frames)]


def pictures(lengths, seed=0):
  """Shots of smooth pictures that drift slowly, each with colours of its own."""
  generator = np.random.default_rng(seed)
  ys, xs = np.indices((36, 64)) / 64
  for length in lengths:
    base, slope = generator.uniform(40, 200, 3), generator.uniform(-60, 60, (2, 3))
    for n in range(length):
      yield np.uint8(
        np.clip(base + ys[..., None] * slope[0] + (xs + n / 200)[..., None] * slope[1], 0, 255)
      )


def test_the_five_cuts_of_bikes_are_found():
  shots = shots_of_file(real_clip('bikes.mp4'))
  starts = [shot.start for shot in shots]
  np.testing.assert_allclose(starts, [0, 1.2, 3.04, 5.48, 7.48, 9.68], atol=1e-6)
  assert shots[-1].end == pytest.approx(10.0) and shots[-1].last == 250


def test_hard_cuts_are_found_to_the_frame():
  lengths = (20, 33, 17, 40)
  shots = find_shots(timed(pictures(lengths)))
  ends = np.cumsum(lengths).tolist()
  assert [(shot.first, shot.last) for shot in shots] == list(
    zip([0, *ends[:-1]], ends, strict=True)
  )
  for shot in shots:
    assert (shot.start, shot.end) == pytest.approx((shot.first / 10, shot.last / 10))


def test_what_has_no_cut_is_one_shot():
  (shot,) = find_shots(timed(pictures([30])))
  assert (shot.first, shot.last, shot.end) == (0, 30, 3)
  (shot,) = find_shots(timed(pictures([1])))
  assert (shot.first, shot.last) == (0, 1)


def test_a_shot_has_the_fewest_frames_that_are_asked_for():
  frames = list(pictures([20, 20, 20]))
  assert len(find_shots(timed(frames), SceneSettings(frames=30))) < 3
  assert len(find_shots(timed(frames), SceneSettings(frames=5))) == 3
