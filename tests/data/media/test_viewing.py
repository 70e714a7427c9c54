"""Small pictures are written so large that a person sees them, each pixel exactly repeated."""

import numpy as np
import pytest
from PIL import Image

from mgjax.data.media.show import save
from mgjax.data.media.video import probe, read_clip
from mgjax.data.media.viewing import viewing_scale, write_animation, write_clip, write_sheets


def waves(frames=6, height=32, width=32):
  """A smooth video that moves, as a model's are."""
  t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing='ij')
  planes = [np.sin((x + 2 * t) / 5), np.cos((y - t) / 6), np.sin((x + y) / 9)]
  return (127.5 + 100 * np.stack(planes, -1)).astype(np.uint8)


@pytest.mark.parametrize(
  ('size', 'scale'),
  [
    ((32, 32), 8),
    ((16, 24), 11),
    ((1, 1), 256),
    ((64, 100), 3),
    ((255, 3), 2),
    ((256, 8), 1),
    ((720, 1280), 1),
  ],
)
def test_the_longer_side_gets_256_pixels_and_what_is_large_stays(size, scale):
  assert viewing_scale(*size) == scale


@pytest.mark.parametrize('scale', [None, 1, 3])
def test_an_image_is_enlarged_exactly(tmp_path, scale):
  image = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
  write_clip(tmp_path / 'a.png', image, 8, scale)
  times = scale or 11
  with Image.open(tmp_path / 'a.png') as read:
    np.testing.assert_array_equal(np.asarray(read), np.kron(image[0], np.ones((times, times, 1))))


def test_an_mp4_of_32_pixels_has_256_and_holds_the_same_picture(tmp_path):
  video = waves()
  write_clip(tmp_path / 'a.mp4', video, 8)
  info = probe(tmp_path / 'a.mp4')
  assert (info.height, info.width, info.frames, info.fps) == (256, 256, 6, 8)
  large = read_clip(tmp_path / 'a.mp4', frames=6, size=(256, 256), fps=8)
  shrunk = large.reshape(6, 32, 8, 32, 8, 3).mean((2, 4))
  assert np.abs(shrunk - video).mean() < 2
  # What reads the file at the model's size, as a condition does, sees no less than in a file of it.
  write_clip(tmp_path / 'own.mp4', video, 8, scale=1)
  assert probe(tmp_path / 'own.mp4').height == 32
  errors = [
    np.square(read_clip(tmp_path / name, frames=6, size=(32, 32), fps=8) - video.astype(float))
    for name in ('a.mp4', 'own.mp4')
  ]
  assert errors[0].mean() <= errors[1].mean()


def test_save_writes_the_models_own_pixels_if_asked(tmp_path):
  sizes = [
    probe(save(waves()[None], tmp_path / name, scale=scale)[0]).width
    for name, scale in (('seen', None), ('own', 1))
  ]
  assert sizes == [256, 32]


def played(path):
  """The frames of an animation, and how many milliseconds each is shown."""
  frames, times = [], []
  with Image.open(path) as image:
    assert image.info['loop'] == 0  # for ever
    for number in range(image.n_frames):
      image.seek(number)
      frames.append(np.asarray(image.convert('RGB')))
      times.append(image.info['duration'])
  return np.stack(frames), times


def test_the_animation_shows_all_videos_at_their_rate_with_their_own_colours(tmp_path):
  videos = [waves(), 255 - waves(), waves()[::-1], waves(), waves()]
  paths = write_sheets(tmp_path / 'a.png', videos, list('abcde'), 16)
  assert [path.name for path in paths] == ['a.png', 'a.webp']
  frames, times = played(paths[1])
  assert len(frames) == 6 and sum(times) == 375 and max(times) - min(times) <= 1
  assert frames.shape[2] == 4 * (192 + 4) + 4 and frames.shape[1] > 2 * 192
  for number in range(6):
    for index in (0, 1, 2):
      left = 4 + index * 196 + 3  # in the middle of each pixel
      tile = frames[number, 24 + 3 :, left:][: 192 - 3 : 6, : 192 - 3 : 6]
      np.testing.assert_array_equal(tile, videos[index][number])


def test_videos_of_other_rates_lengths_and_sizes_play_together(tmp_path):
  videos = [waves(4), waves(8, 48, 64), waves(1)]
  write_animation(tmp_path / 'a.webp', videos, ['slow', 'fast', 'still'], [4, 8, 8])
  frames, times = played(tmp_path / 'a.webp')
  assert len(frames) == 8 and sum(times) == 1000
  assert not (frames[0] == frames[-1]).all()


def test_an_animation_of_many_colours_is_compressed_and_its_long_titles_are_on_several_lines(
  tmp_path,
):
  rng = np.random.default_rng(0)
  ramp = np.linspace(40, 200, 64)[:, None]
  clips = [(ramp + rng.normal(size=(8, 64, 64, 3)) * 6).astype(np.uint8) for _ in range(12)]
  title = 'A red metal ball rolls left and hits a small blue wooden cube. The camera circles left.'
  write_animation(tmp_path / 'long.webp', clips, [title] * 12, 8)
  write_animation(tmp_path / 'short.webp', clips, ['ball'] * 12, 8)
  (long, _), (short, _) = (played(tmp_path / f'{name}.webp') for name in ('long', 'short'))
  assert long.shape[1] > short.shape[1]
  assert (tmp_path / 'short.webp').stat().st_size < 400_000 < 12 * clips[0].size // 2
  tile = short[0, 24 + 1 :, 4 + 1 :][:192:3, :192:3].astype(float)
  assert np.abs(tile - clips[0][0]).mean() < 6
