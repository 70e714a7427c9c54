"""Resampling: as Pillow's, with weights that sum to one."""

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.core.resize import KERNELS, resampling, resize

PILLOW = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
  'area': Image.Resampling.BOX,
}
SIZES = [((64, 48), (32, 24)), ((32, 24), (64, 48)), ((37, 53), (20, 71)), ((5, 4), (1, 9))]


def picture(size, channels=3, frames=2):
  return np.random.default_rng(0).uniform(0, 255, (frames, *size, channels)).astype(np.float32)


@pytest.mark.parametrize('kernel', ['bilinear', 'bicubic', 'lanczos'])
@pytest.mark.parametrize(('size', 'wanted'), SIZES)
def test_it_resizes_as_pillow_does(kernel, size, wanted):
  frames = picture(size)
  ours = resize(frames, wanted, kernel)
  for frame, result in zip(frames, ours, strict=True):
    for channel in range(3):
      whole = Image.fromarray(frame[..., channel]).resize(wanted[::-1], PILLOW[kernel])
      # Sums of at most 60 terms of up to 255 in float32, once for each axis.
      atol = 2 * 60 * 255 * 2**-24
      np.testing.assert_allclose(result[..., channel], np.asarray(whole), atol=atol)


@pytest.mark.parametrize('factor', [2, 3])
def test_area_is_the_mean_of_blocks_as_in_pillow(factor):
  frame = picture((24, 36), channels=1, frames=1)
  whole = Image.fromarray(frame[0, ..., 0]).resize((36 // factor, 24 // factor), PILLOW['area'])
  ours = resize(frame, (24 // factor, 36 // factor), 'area')
  np.testing.assert_allclose(ours[0, ..., 0], np.asarray(whole), atol=1e-3)


@pytest.mark.parametrize('kernel', KERNELS)
def test_weights_sum_to_one_and_a_size_kept_keeps_the_pixels(kernel):
  for length, wanted in ((64, 10), (10, 64), (7, 7), (1, 5), (5, 1)):
    np.testing.assert_allclose(resampling(length, wanted, kernel).sum(1), 1, atol=1e-5)
  np.testing.assert_allclose(resampling(9, 9, kernel), np.eye(9), atol=1e-6)


@pytest.mark.parametrize('kernel', KERNELS)
def test_bytes_are_rounded_and_clipped(kernel):
  frames = np.random.default_rng(0).choice([0, 255], (2, 16, 12, 3)).astype(np.uint8)
  exact = resize(frames.astype(np.float64), (23, 30), kernel)
  ours = resize(frames, (23, 30), kernel)
  assert ours.dtype == np.uint8 and exact.dtype == np.float64
  # Rounded sums of float32 may fall on the other side of a half.
  assert np.abs(ours - np.clip(exact, 0, 255)).max() < 0.5 + 1e-3
  if kernel == 'lanczos':
    assert exact.min() < 0 and exact.max() > 255


def test_an_unknown_kernel_is_refused_with_those_there_are():
  with pytest.raises(ConfigError, match="kernel = 'cubic'; expected one of area, bilinear"):
    resize(picture((8, 8)), (4, 4), 'cubic')
