"""Contact sheets: a person sees every video, its title, and enough of its frames."""

import numpy as np
import pytest
from PIL import Image

from mgjax.data.media.contact_sheet import contact_sheet


def ramp(frames, height, width):
  """Frame i is all red of brightness i."""
  video = np.zeros((frames, height, width, 3), np.uint8)
  video[..., 0] = np.arange(frames)[:, None, None]
  return video


def opened(path):
  with Image.open(path) as image:
    return np.asarray(image.convert('RGB'))


def test_first_and_last_frame_are_shown_and_tiny_ones_grow(tmp_path):
  contact_sheet(tmp_path / 'a.png', [ramp(200, 16, 16)], ['red'], columns=8)
  sheet = opened(tmp_path / 'a.png')
  assert sheet.shape[1] == 8 * 128 + 9 * 4 and sheet.shape[0] >= 128
  middle = sheet[sheet.shape[0] - 50]  # a line through the frames
  shown = {tuple(pixel) for pixel in middle.tolist()}
  assert len(shown - {(255, 255, 255)}) == 8
  assert {(0, 0, 0), (199, 0, 0)} <= shown
  assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_each_video_has_a_row_whatever_its_size(tmp_path):
  videos = [ramp(1, 16, 16), ramp(5, 64, 96), ramp(3, 720, 1280)]
  contact_sheet(tmp_path / 'a.png', videos, ['image', 'video', 'large'], columns=4)
  sheet = opened(tmp_path / 'a.png')
  assert sheet.shape[0] > 128 + 64 + 180
  assert sheet.shape[1] == 3 * 320 + 4 * 4


def test_the_title_is_drawn(tmp_path):
  video = ramp(2, 64, 64)
  contact_sheet(tmp_path / 'a.png', [video], ['the green digit 3'])
  contact_sheet(tmp_path / 'b.png', [video], [''])
  with_title, without = opened(tmp_path / 'a.png'), opened(tmp_path / 'b.png')
  assert with_title[:20].min() < 100 < without[:20].min()


def test_scale_is_obeyed(tmp_path):
  contact_sheet(tmp_path / 'a.png', [ramp(1, 10, 20)], ['x'], scale=3)
  assert opened(tmp_path / 'a.png').shape[1] == 60 + 2 * 4


def test_a_title_for_each_video(tmp_path):
  with pytest.raises(ValueError, match='a title for each video'):
    contact_sheet(tmp_path / 'a.png', [ramp(1, 8, 8)], [])
