"""Models of somebody's own clips: which clip is nearest to a sample, and how near."""

import json

import numpy as np
import pytest

from configs.clips.fast import video as fast_video
from mgjax.core.errors import DataError
from mgjax.data.media.video import read_clip, write_video
from mgjax.lab.evaluation.own_clips import judge_clips, write_nearest
from mgjax.sections.video.pipeline import VideoPipeline

COLOURS = {'a red screen': (200, 0, 0), 'a green screen': (0, 200, 0), 'a blue screen': (0, 0, 200)}


class Copies(VideoPipeline):
  """In place of a model: shows the clip that `shows` names for the caption, one grey level off."""

  def __init__(self, folder, shows=lambda caption: caption):
    self.config = fast_video.get_config(str(folder))
    self.config.buckets.video.update({'frames': 4, 'height': 16, 'width': 16})
    self._folder, self._shows = folder, shows

  @property
  def reads(self):
    return ()

  def stream(self, prompts=None, **options):
    for prompt in prompts or ():
      path = self._folder / f'{self._shows(prompt)}.mp4'
      yield read_clip(path, frames=4, size=(16, 16), fps=8) + np.uint8(1)

  def reconstruction_error(self, video):
    return 1e-3


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three clips of one colour, one of them five times as long, and a damaged one."""
  folder = tmp_path_factory.mktemp('clips')
  for caption, colour in COLOURS.items():
    frames = np.full((80 if 'red' in caption else 16, 32, 32, 3), colour, np.uint8)
    write_video(folder / f'{caption}.mp4', frames, 16)
    (folder / f'{caption}.txt').write_text(caption)
  (folder / 'broken.mp4').write_bytes(b'not a video' * 99)
  return folder


def test_samples_like_their_clips_are_nearest_to_them(folder, tmp_path):
  measured, videos, windows = judge_clips(Copies(folder))
  record = json.loads(json.dumps(measured.record))
  assert sorted(record['captions']) == sorted(COLOURS) and record['nearest'] == record['captions']
  assert record['nearest_is_own'] == 1 and record['chance'] == pytest.approx(1 / 3)
  np.testing.assert_allclose(record['psnr'], 20 * np.log10(255), rtol=1e-6)  # one grey level
  assert record['reconstruction_psnr'] == pytest.approx(30) and record['windows'] > 3
  assert measured.metrics['nearest_is_own'].beside == {'chance': pytest.approx(1 / 3)}
  sheets, paths = write_nearest(tmp_path, measured, videos, windows, 8)
  assert [sheet.suffix for sheet in sheets] == ['.png', '.webp'] and len(paths) == 3
  assert all(path.exists() for path in [*sheets, *paths])


def test_samples_like_another_clip_are_not_their_own(folder):
  model = Copies(folder, shows=lambda caption: 'a blue screen')
  few, videos, _ = judge_clips(model, samples=2)
  assert len(few.samples) == len(videos) == 2 and few.record['clip_captions'] == 3
  measured, _, _ = judge_clips(model)
  assert measured.record['nearest_is_own'] == pytest.approx(1 / 3)
  assert set(measured.record['nearest']) == {'a blue screen'}


def test_clips_that_moved_are_named_anew(folder, tmp_path):
  model = Copies(folder)
  model.config.data.path = str(tmp_path / 'gone')
  with pytest.raises(DataError, match='gone'):
    judge_clips(model)
  assert judge_clips(model, clips=str(folder))[0].record['nearest_is_own'] == 1
