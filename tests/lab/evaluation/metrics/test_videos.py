"""Videos are scored by name with what is given: alone, beside prompts, beside other videos."""

import json
import math

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.lab.evaluation.metrics import frechet as sets
from mgjax.lab.evaluation.metrics.frechet import frechet_distance, kernel_distance, neighbourhood
from mgjax.lab.evaluation.metrics.videos import BETTER, compare_clips, read_vectors, score_videos
from tests.lab.evaluation.metrics.test_stability import drift

ALONE = {'flicker', 'warping_error', 'motion', 'dynamic_degree'}
SETS = {'frechet_videos', 'frechet_frames', 'kernel_distance', *sets.Neighbourhood._fields}
COLOURS = ('red', 'green', 'blue')


class MeanColour:
  """An encoder whose vectors can be worked out: the mean colour, and the colour that is named."""

  def encode_images(self, images):
    assert len(images) <= 16
    return images.mean((1, 2)) / 255

  def encode_texts(self, texts):
    return np.stack([np.eye(3)[COLOURS.index(text)] for text in texts])


def coloured(generator, count, frames=4, size=24):
  """Videos of noise with a colour of their own."""
  colours = generator.uniform(40, 200, (count, 1, 1, 1, 3))
  noise = generator.uniform(-30, 30, (count, frames, size, size, 3))
  return np.uint8(colours + noise)


def test_videos_alone_are_measured_by_their_motion_and_flicker():
  still = np.repeat(drift(1), 6, axis=0)
  scores = score_videos(iter([drift(6), still]))
  assert set(scores) == ALONE and tuple(scores) == tuple(name for name in BETTER if name in ALONE)
  moving = np.hypot(0.6, 0.9) / 64
  assert scores['motion'].each == pytest.approx((moving, 0), rel=0.15, abs=1e-3)
  assert scores['flicker'].each[1] == scores['warping_error'].each[1] == 0
  assert (scores['dynamic_degree'].value, scores['dynamic_degree'].count) == (0, 2)  # 1.7% a frame
  assert set(score_videos([drift(6)], motion=False)) == {'flicker'}


def test_pictures_have_no_motion_and_do_not_move_the_others_in_their_list():
  scores = score_videos([drift(1), drift(6), drift(2)])
  assert [math.isnan(value) for value in scores['motion'].each] == [True, False, False]
  assert [math.isnan(value) for value in scores['dynamic_degree'].each] == [True, False, False]
  assert [math.isnan(value) for value in scores['flicker'].each] == [True, False, True]
  assert (scores['motion'].count, scores['flicker'].count) == (2, 1)
  assert 'motion' not in score_videos([drift(1)])


def test_frames_are_compared_with_their_prompt():
  colour = np.zeros((2, 3, 16, 16, 3), np.uint8)
  colour[0, ..., 0] = 200  # red
  colour[1, ..., 1:] = 100  # green and blue
  scores = score_videos(colour, ['red', 'green'], MeanColour())
  assert scores['clip_score'].each == pytest.approx((100, 100 / math.sqrt(2)))
  assert scores['clip_score'].value == pytest.approx(50 + 50 / math.sqrt(2))
  assert scores['frame_consistency'].each == pytest.approx((1, 1))
  assert set(scores) == ALONE | {'clip_score', 'frame_consistency'}
  for value in scores.values():
    assert json.loads(json.dumps(value.as_dict(), allow_nan=False))['count'] == 2


def test_sets_are_compared_by_the_encoders_vectors():
  generator = np.random.default_rng(0)
  ours, true = coloured(generator, 14), coloured(generator, 20)
  scores = score_videos(iter(ours), None, MeanColour(), iter(true), motion=False)
  assert set(scores) == SETS | {'flicker', 'frame_consistency'}
  x, y = (videos.mean((2, 3)) / 255 for videos in (ours, true))
  means = x.mean(1), y.mean(1)
  assert scores['frechet_videos'].value == pytest.approx(frechet_distance(*means))
  frames = x.reshape(-1, 3), y.reshape(-1, 3)
  assert scores['frechet_frames'].value == pytest.approx(frechet_distance(*frames))
  assert scores['kernel_distance'].value == pytest.approx(kernel_distance(*means))
  lies = neighbourhood(means[1], means[0])  # the true ones first
  for name, value in lies._asdict().items():
    assert scores[name].value == pytest.approx(value)
  for name in SETS:
    assert (scores[name].count, scores[name].references) == (14, 20)
    assert scores[name].low <= scores[name].value <= scores[name].high
  vectors = score_videos(ours, None, MeanColour(), y, motion=False)
  assert vectors['frechet_videos'] == scores['frechet_videos']


def test_too_few_videos_say_so_in_place_of_a_number():
  x, y = np.random.default_rng(1).normal(size=(2, 6, 3))
  scores = compare_clips(x, y)
  assert scores['frechet_videos'].value > 0 and math.isnan(scores['recall'].value)
  assert scores['recall'].warning == '6 and 6 videos are too few; 12 of both have it'
  none = compare_clips(x[:3], y)
  assert all(math.isnan(value.value) and 'four of both' in value.warning for value in none.values())
  assert none['frechet_videos'].as_dict()['value'] is None


@pytest.mark.parametrize(
  ('videos', 'prompts', 'said'),
  [
    ([], None, '0 videos;'),
    ([drift(3)] * 2, ['red'], '2 videos or more and 1 prompts'),
    ([drift(3)], ['red', 'green'], '1 videos and 2 prompts'),
    ([drift(3), drift(3) / 255], None, r'video 1 is float64 \(3, 64, 64, 3\)'),
    ([drift(3)[0]], None, r'video 0 is uint8 \(64, 64, 3\)'),
    ([drift(3)[:0]], None, r'video 0 is uint8 \(0, '),
  ],
)
def test_what_are_no_videos_of_the_prompts_are_refused(videos, prompts, said):
  with pytest.raises(DataError, match=said):
    score_videos(iter(videos), prompts, motion=False)


def test_vectors_are_read_from_files_and_other_files_are_refused(tmp_path):
  path = tmp_path / 'vectors.npy'
  np.save(path, np.ones((5, 3), np.float16))
  assert read_vectors(path).shape == (5, 3)
  for content in (np.ones((2, 2), int), np.ones(4), np.array([{}], object), None):
    path.write_bytes(b'')
    if content is not None:
      np.save(path, content)
    with pytest.raises(DataError, match=r'vectors\.npy'):
      read_vectors(path)
