"""Photographs of every kind are read right, or a sentence says why not."""

import io

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.media.containers import Blob, Limits
from mgjax.data.media.faces.pictures import read_picture, sample_frames
from mgjax.data.media.video import write_video

# By which transpose a picture is stored that each EXIF orientation shows upright.
STORED = {
  1: None,
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_90,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_270,
}


def picture(height=48, width=64):
  """Smooth colours without any symmetry."""
  ys, xs = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing='ij')
  return np.uint8(np.stack([250 * ys, 200 * xs, 180 * ys * xs + 40], -1))


def stored(image, kind='PNG', **more):
  buffer = io.BytesIO()
  image.save(buffer, kind, **more)
  return Blob('a picture', buffer.getvalue())


@pytest.mark.parametrize('orientation', STORED)
@pytest.mark.parametrize('side', [1080, 24])
def test_every_orientation_is_shown_upright(orientation, side):
  image = Image.fromarray(picture())
  if STORED[orientation] is not None:
    image = image.transpose(STORED[orientation])
  exif = Image.Exif()
  exif[0x112] = orientation
  found = read_picture(stored(image, exif=exif), side)
  expected = picture() if side > 48 else picture().reshape(24, 2, 32, 2, 3).mean((1, 3))
  assert np.abs(found - expected.astype(float)).max() <= 1


@pytest.mark.parametrize('mode', ['RGB', 'CMYK', 'RGBA', 'L', 'LA', 'P', 'I;16', '1'])
def test_every_number_of_colours_becomes_three(mode):
  if mode == 'I;16':
    image, kind = Image.fromarray(picture()[..., 0].astype(np.uint16) * 257), 'PNG'
  else:
    image, kind = Image.fromarray(picture()).convert(mode), 'TIFF' if mode == 'CMYK' else 'PNG'
  found = read_picture(stored(image, kind))
  assert found.dtype == np.uint8 and found.shape == (48, 64, 3)
  expected = {'I;16': picture()[..., :1], 'L': np.asarray(image)[..., None] if mode == 'L' else 0}
  if mode in expected or mode in ('RGB', 'RGBA', 'CMYK'):
    assert np.abs(found.astype(int) - expected.get(mode, picture())).max() <= 1


def test_a_jpeg_of_cmyk_has_the_colours_that_it_shows():
  found = read_picture(stored(Image.fromarray(picture()).convert('CMYK'), 'JPEG', quality=95))
  assert np.abs(found.astype(int) - picture()).mean() < 4


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG'])
def test_of_an_animation_the_first_frame_counts(kind):
  first, second = Image.fromarray(picture()), Image.fromarray(255 - picture())
  found = read_picture(stored(first, kind, save_all=True, append_images=[second], duration=100))
  assert np.abs(found.astype(int) - picture()).mean() < 8


def test_a_huge_photograph_is_shrunk_and_a_larger_one_refused():
  huge = stored(Image.new('RGB', (8000, 8000), (9, 80, 200)), 'JPEG')
  found = read_picture(huge)
  assert found.shape == (1080, 1080, 3) and np.abs(found[5, 5].astype(int) - (9, 80, 200)).max() < 3
  with pytest.raises(DataError, match='has 8000 x 8000, more than 1000000 pixels; shrink it'):
    read_picture(huge, limits=Limits(pixels=1_000_000))


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP'])
def test_one_that_is_cut_off_is_a_sentence(kind):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
  data = stored(Image.fromarray(noise), kind).data
  for part in (0.9, 0.5, 0.1):
    with pytest.raises(DataError, match=r'^a picture: .*(damaged|cut off)'):
      read_picture(Blob('a picture', data[: int(part * len(data))]))


def test_what_is_no_picture_is_a_sentence(tmp_path):
  (tmp_path / 'page.jpg').write_text('<html>not found</html>')
  (tmp_path / 'empty.jpg').touch()
  for path, said in (
    (tmp_path, 'is a folder, not a picture'),
    (tmp_path / 'page.jpg', r'is a web page \(HTML\)'),
    (tmp_path / 'empty.jpg', 'is empty'),
    (tmp_path / 'none.jpg', 'there is no such file'),
    ('https://example.org/face.jpg', 'is an address; download the file'),
  ):
    with pytest.raises(DataError, match=said):
      read_picture(path)


def test_of_a_video_the_first_frame_is_a_picture_and_frames_are_sampled(tmp_path):
  frames = np.stack([np.full((32, 32, 3), 8 * n, np.uint8) for n in range(25)])
  write_video(tmp_path / 'a.mp4', frames, 10)
  assert read_picture(tmp_path / 'a.mp4').mean() < 4
  sampled = list(sample_frames(tmp_path / 'a.mp4', 1.0))
  assert [time for time, _ in sampled] == [0.5, 1.5]
  assert [round(frame.mean() / 8) for _, frame in sampled] == [5, 15]
  short = list(sample_frames(tmp_path / 'a.mp4', 0.1))
  assert [time for time, _ in short] == [0.0]
