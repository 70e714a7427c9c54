"""Optical flow finds how a picture moved, warping undoes it, and what is hidden is known."""

import sys

import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.media import optical_flow as module
from mgjax.data.media.optical_flow import flow_of_luma, flows, occluded, optical_flow, warp

BORDER = 12  # pixels that what moves in or out reaches, more than any move here


def picture(side=96, seed=0):
  """Blurred noise, full range, periodic: it moves by any part of a pixel without an error."""
  noise = np.random.default_rng(seed).standard_normal((side, side))
  smooth = gaussian_filter(noise, 2, mode='wrap')
  return 128 + 110 * smooth / np.abs(smooth).max()


def moved(plane, by):
  return np.fft.ifftn(fourier_shift(np.fft.fftn(plane), by)).real


def frame(plane):
  return np.repeat(np.uint8(np.rint(np.clip(plane, 0, 255)))[..., None], 3, -1)


@pytest.mark.parametrize('by', [(0.0, 0.0), (3.0, 0.0), (0.0, -2.5), (-4.3, 6.2)])
def test_a_translation_is_found_and_undone(by):
  a, b = frame(picture()), frame(moved(picture(), by))
  flow = optical_flow(a, b)
  assert flow.dtype == np.float32 and flow.shape == (96, 96, 2)
  inside = slice(BORDER, -BORDER)
  assert np.abs(flow - by)[inside, inside].mean() < 0.1
  assert np.abs(np.median(flow[inside, inside], axis=(0, 1)) - by).max() < 0.1
  before = np.abs(a[inside, inside].astype(float) - b[inside, inside]).mean()
  after = np.abs(a - warp(b, flow))[inside, inside].mean()
  assert after < 2 and (before == 0 or after < before / 5)


def test_warping_is_exact_for_whole_pixels_and_linear_between():
  plane = np.arange(30, dtype=np.float32).reshape(5, 6)
  np.testing.assert_array_equal(warp(plane, np.zeros((5, 6, 2), np.float32)), plane)
  by = np.broadcast_to(np.float32([1, -2]), (5, 6, 2))
  np.testing.assert_array_equal(warp(plane, by)[:4, 2:], plane[1:, :4])
  half = warp(np.stack([plane, -plane], -1), np.full((5, 6, 2), 0.5, np.float32))
  np.testing.assert_allclose(half[:4, :5, 0], plane[:4, :5] + 3.5)
  np.testing.assert_allclose(half[..., 1], -half[..., 0])


def test_what_a_moving_thing_uncovers_is_occluded():
  behind, thing = frame(picture(seed=1)), frame(picture(seed=2))
  videos = [behind.copy(), behind.copy()]
  for video, left in zip(videos, (24, 34), strict=True):
    video[32:64, left : left + 32] = thing[32:64, 32:64]
  ((back, there),) = flows(videos)
  hidden = occluded(back, there)  # pixels of the second frame that the first does not show
  uncovered = np.zeros_like(hidden)
  uncovered[34:62, 25:33] = True
  still = np.zeros_like(hidden)
  still[:20], still[76:] = True, True
  assert hidden[uncovered].mean() > 0.7 and hidden[still].mean() < 0.01


def test_what_leaves_the_frame_is_occluded():
  there = np.zeros((20, 20, 2), np.float32)
  there[..., 1] = 5
  hidden = occluded(there, -there)
  assert hidden[:, 15:].all() and not hidden[:, :15].any()


def test_a_flow_needs_two_frames_of_one_size():
  small = np.zeros((8, 40, 3), np.uint8)
  with pytest.raises(DataError, match='16 pixels a side or more'):
    optical_flow(small, small)
  with pytest.raises(DataError, match='of one size'):
    optical_flow(frame(picture(32)), frame(picture(48)))


def test_without_opencv_it_says_what_to_install(monkeypatch):
  module.opencv.cache_clear()
  monkeypatch.setitem(sys.modules, 'cv2', None)
  with pytest.raises(ConfigError, match=r"pip install 'mgjax\[curation\]'"):
    optical_flow(frame(picture(32)), frame(picture(32)))


def test_parts_of_a_picture_flow_as_their_copies():
  generator = np.random.default_rng(0)
  a, b = generator.integers(0, 256, (2, 48, 64), np.uint8)
  found = flow_of_luma(a[:, 8:56], b[:, 8:56])
  np.testing.assert_array_equal(found, flow_of_luma(a[:, 8:56].copy(), b[:, 8:56].copy()))
