"""Windows and tiles of an upsampler make what the whole would be, whatever is done at a time."""

import numpy as np
import pytest

import mgjax
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.resize import resize
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.sections.upsampler.colours import keep_colours
from tests.tiny_upsampler import SIDE, WINDOW

# Bytes are rounded from float32 sums whose order differs: one level of 255 where they lie between.
LEVEL = 1


def clip(frames, height=SIDE // 2, width=SIDE // 2, seed=0):
  size = (frames, height, width, 3)
  return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def stream(upsampler, video, size, **options):
  return np.stack(list(upsampler.stream(iter(video), size=size, **options)))


def close(first, second):
  return first.shape == second.shape and np.abs(first.astype(int) - second).max() <= LEVEL


@pytest.mark.parametrize('frames', [1, 4, WINDOW])
def test_what_fits_a_window_is_the_same_streamed_and_whole(upsampler, frames):
  video = clip(frames)
  whole = upsampler.generate(video=video, seed=3)[0]
  assert close(stream(upsampler, video, (SIDE, SIDE), seed=3), whole)


def test_a_video_does_not_depend_on_the_others_in_its_batch(upsampler):
  videos = np.stack([clip(WINDOW, seed=seed) for seed in range(3)])
  prompts = ['the green digit 3 moves left', 'a red one', '']
  together = upsampler.generate(prompts, video=videos, batch_size=2)
  alone = [
    upsampler.generate([prompt], video=video, first=row)[0]
    for row, (prompt, video) in enumerate(zip(prompts, videos, strict=True))
  ]
  assert close(together, np.stack(alone))


@pytest.mark.parametrize('size', [(SIDE, SIDE), (SIDE, 2 * SIDE), (40, 24)])
def test_rows_at_a_time_change_nothing(upsampler, size):
  video = clip(2 * WINDOW + 3, 8, 12)
  one, many = (stream(upsampler, video, size, rows=rows) for rows in (1, 8))
  assert one.shape == (len(video), *size, 3) and close(one, many)


# Each is a program: all sizes, both lengths, and not each size at each length.
@pytest.mark.parametrize(
  ('size', 'frames'),
  [((17, 23), WINDOW + 1), ((16, 9), 1), ((9, 33), 1), ((1, 1), WINDOW + 1)],
)
def test_any_size_and_length_comes_out_as_asked_for(upsampler, size, frames):
  assert stream(upsampler, clip(frames, 5, 7), size).shape == (frames, *size, 3)


def test_the_seed_and_the_index_decide(upsampler):
  video, size = clip(WINDOW + 2), (SIDE, SIDE)
  first = stream(upsampler, video, size)
  assert (first == stream(upsampler, video, size)).all()
  assert (first != stream(upsampler, video, size, seed=1)).any()
  assert (first != stream(upsampler, video, size, index=1)).any()


def test_the_low_resolution_video_is_what_is_enlarged(upsampler):
  size = (SIDE, SIDE)
  assert (stream(upsampler, clip(3), size) != stream(upsampler, clip(3, seed=1), size)).any()


@pytest.mark.parametrize('frames', [1, WINDOW, WINDOW + 3])
def test_colours_are_those_of_the_source_unless_the_model_shall_mend_them(upsampler, frames):
  # Grey enough that no sum is clipped; each of the two roundings to bytes moves a mean by at most
  # half a level.
  video = 96 + clip(frames) // 4
  kept, free = (stream(upsampler, video, (SIDE, SIDE), keep_colours=keep) for keep in (True, False))
  assert close(kept, keep_colours(free, video))
  errors = [kept.mean((1, 2)) - video.mean((1, 2)), free.mean((1, 2)) - video.mean((1, 2))]
  assert np.abs(errors[0]).max() < 1 < np.abs(errors[1]).max()
  assert close(upsampler.generate(video=video)[0], kept)


def test_what_ships_keeps_colours_and_draws_no_pattern():
  """Of the soft and bright clips of a few-step model, with and without a caption."""
  prompts = [f'the {colour} digit 7 bounces' for colour in ('red', 'yellow')]
  small = mgjax.load('digits/few_steps', steps=4).generate(prompts)[:, :6]
  upsampler = mgjax.load('digits/upsampler')
  checked = Digits(textures=('checked',), background='black', frames=6, size=(64, 64), length=1)
  pattern = checked[0]['video']
  for captions, most in ((prompts, 0.01), (None, 0.03)):  # of what the pattern has there
    large = upsampler.generate(captions, video=small)
    means = [videos.mean((1, 2, 3)) for videos in (large, small)]
    assert np.abs(means[0] - means[1]).max() < 1
    assert high_band(large) < most * high_band(pattern[None])
  unchanged = np.stack([resize(video, (64, 64), 'bicubic') for video in small])
  assert 0 < high_band(unchanged) < high_band(large)


def high_band(videos):
  """The share of the energy beyond 7/8 of the highest frequency that pixels can have."""
  energy = np.abs(np.fft.fft2(videos.astype(float), axes=(2, 3))) ** 2
  rows, columns = (np.abs(np.fft.fftfreq(side)) for side in videos.shape[2:4])
  return energy[:, :, np.maximum(rows[:, None], columns) >= 7 / 16].sum() / energy.sum()


def pulled_ahead(stream, video):
  """At each frame that is made, how many more have been pulled."""
  pulled = 0

  def frames():
    nonlocal pulled
    for frame in video:
      pulled += 1
      yield frame

  return [pulled - done for done, _ in enumerate(stream(frames()))]


def test_frames_are_pulled_as_they_are_needed(upsampler):
  options = {'size': (SIDE, SIDE), 'rows': 2}
  ahead = pulled_ahead(lambda frames: upsampler.stream(frames, **options), clip(400))
  assert len(ahead) == 400 and max(ahead[:100]) >= max(ahead[100:]) - 8  # a chunk of the codec


def test_what_cannot_be_is_said(upsampler):
  with pytest.raises(ConfigError, match='20000 x 16 pixels; expected 1 to 16384'):
    stream(upsampler, clip(1), (16, 20_000))
  with pytest.raises(DataError, match='all of one size'):
    stream(upsampler, [clip(1)[0], clip(1, 9, 9)[0]], (SIDE, SIDE))
  with pytest.raises(DataError, match='expected uint8'):
    upsampler.generate(video=clip(3).astype(np.float32))
  with pytest.raises(ConfigError, match='2 prompts for 1 videos'):
    upsampler.generate(['a', 'b'], video=clip(3))
  with pytest.raises(DataError, match='no frame'):
    stream(upsampler, [], (SIDE, SIDE))
