"""Videos that anybody made are scored by index, and what the scores say is in the videos."""

import json
import math

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.media.viewing import write_clip
from mgjax.data.synthetic_datasets import prompts_of
from mgjax.lab.evaluation.record.measured import table_of
from mgjax.lab.evaluation.suites.score import find_videos, score_suite
from mgjax.lab.evaluation.suites.suite import FILE, Row, Suite, read_suite
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.sections.clip.pipeline import Clip

SIZE = {'frames': 8, 'size': (32, 32)}


def write_digits(directory, captions):
  """Real clips of held-out handwriting with these captions, by index."""
  source = Digits(split='test', captions='all', **SIZE)
  remaining = dict(enumerate(captions))
  for index in range(len(source)):
    caption = source.listen(index)['caption']
    position = next(
      (position for position, candidate in remaining.items() if candidate == caption), None
    )
    if position is not None:
      write_clip(directory / f'{position:05d}.mp4', source[index]['video'], 8)
      del remaining[position]
    if not remaining:
      return


def flat(level, frames=4):
  return np.full((frames, 16, 16, 3), level, np.uint8)


def suite_of(*prompts):
  return Suite('s', 'video', tuple(Row(index, prompt) for index, prompt in enumerate(prompts)))


def test_videos_are_found_by_index_or_by_the_names_of_vbench(tmp_path):
  suite = suite_of('a dog', 'a cat', 'a dog')
  for name in ('0.png', '0001_1f3a55c0.png', 'a dog-1.png', 'a dog-7.png', 'sheet.png', 'x.json'):
    write_clip(tmp_path / name, flat(0, 1), 8)
  names = {position: path.name for position, path in find_videos(tmp_path, suite).items()}
  assert names == {0: '0.png', 1: '0001_1f3a55c0.png', 2: 'a dog-1.png'}
  part = Suite('s', 'video', suite.rows[1:2])  # in which it has place 0, but its own index
  assert find_videos(tmp_path, part) == {0: tmp_path / '0001_1f3a55c0.png'}
  write_clip(tmp_path / '00002.png', flat(0, 1), 8)
  with pytest.raises(DataError, match=r'00002\.png and a dog-1\.png are both of prompt 2'):
    find_videos(tmp_path, suite)
  with pytest.raises(DataError, match='none of its 5 videos is of s'):
    find_videos(tmp_path, Suite('s', 'video', (Row(9, 'a horse'),)))
  with pytest.raises(DataError, match='is no folder'):
    find_videos(tmp_path / 'nowhere', suite)


def test_flicker_is_that_of_the_frames_and_who_has_no_number_counts_nowhere(tmp_path):
  # Grey, so that 4:2:0 and the codec (crf 12) keep levels to about one of 255.
  ramp = np.repeat(np.arange(8) * 10 + 60, 16 * 16 * 3).reshape(8, 16, 16, 3).astype(np.uint8)
  blink = np.where(np.arange(8)[:, None, None, None] % 2, 60, 100).astype(np.uint8)
  for name, frames in (('0', ramp), ('1', np.tile(blink, (1, 16, 16, 3))), ('2', flat(9, 1))):
    write_clip(tmp_path / f'{name}.{"mp4" if len(frames) > 1 else "png"}', frames, 8)
  suite = suite_of('a', 'b', 'c', 'none')
  scores = score_suite(find_videos(tmp_path, suite), suite)
  flicker = scores.metrics['scores/flicker'].value.each
  np.testing.assert_allclose(flicker, [0, 80, np.nan], atol=4)
  assert '1 of 4 prompts have no video' in table_of(scores)
  record = json.loads(json.dumps(scores.record, allow_nan=False))
  assert record['missing'] == 1 and [row['index'] for row in record['videos']] == [0, 1, 2]
  assert record['videos'][2]['flicker'] is None and record['scores']['flicker']['videos'] == 2


def test_videos_are_compared_with_those_of_another_folder_or_with_their_vectors(tmp_path):
  suite = suite_of(*['bright'] * 4)
  for name, levels in (('ours', [200, 10, 200, 10]), ('true', [200, 200, 10, 10])):
    (tmp_path / name).mkdir()
    for index, level in enumerate(levels):
      write_clip(tmp_path / name / f'{index}.mp4', flat(level), 8)
  write_clip(tmp_path / 'true' / 'sheet.png', flat(0, 1), 8)  # of all videos, and none itself
  videos = find_videos(tmp_path / 'ours', suite)
  folder = score_suite(videos, suite, clip=PixelClip(), reference=tmp_path / 'true')
  # Equal sets of vectors: as far apart as nothing.
  distance = folder.record['sets']['frechet_videos']
  assert distance['value'] == pytest.approx(0, abs=1e-9) and distance['references'] == 4
  assert 'frechet_videos' in table_of(folder)
  np.save(tmp_path / 'true.npy', np.array([[0.0, 1.0]] * 4))
  far = score_suite(videos, suite, clip=PixelClip(), reference=tmp_path / 'true.npy')
  assert far.record['sets']['frechet_videos']['value'] > 0.5  # the means alone are (.5, .5) apart
  with pytest.raises(ConfigError, match='--clip'):
    score_suite(videos, suite, reference=tmp_path / 'true.npy')


@pytest.mark.slow
def test_the_judge_of_the_small_world_reads_real_clips_and_not_those_of_other_prompts(tmp_path):
  suite = read_suite('digits:27')
  write_digits(tmp_path, suite.prompts)
  videos = find_videos(tmp_path, suite)
  assert len(videos) == 27
  right = score_suite(videos, suite, judge='digits')
  turned = {position: videos[(position + 1) % 27] for position in videos}
  wrong = score_suite(turned, suite, judge='digits')
  # .97 of real clips and .006 of shuffled ones are right (docs/reference/digits.md); of 27 fewer
  # than 23 or more than 3 are so with a probability below 1e-3.
  means = [measured.record['scores']['all']['value'] for measured in (right, wrong)]
  assert means[0] >= 23 / 27 and means[1] <= 3 / 27
  red = sum(' red ' in prompt for prompt in suite.prompts)
  assert right.record['tags']['red']['colour']['videos'] == red


@pytest.mark.slow
def test_the_judge_of_solids_reads_real_clips_and_not_those_of_other_prompts(tmp_path):
  (tmp_path / FILE).write_text(json.dumps(read_suite('solids:12').as_dict()))
  suite = read_suite(tmp_path)  # as launch.sample leaves it beside its videos
  prompts = prompts_of('solids')
  clips = [prompts.asked(row.prompt, row.scene).label.scene for row in suite.rows]
  for row, scene in zip(suite.rows, clips, strict=True):
    write_clip(tmp_path / f'{row.file}.mp4', Solids().show(scene)['video'], 8, scale=4)
  videos = find_videos(tmp_path, suite)
  right = score_suite(videos, suite, judge='solids').record['scores']
  turned = {position: videos[(position + 3) % 12] for position in videos}
  wrong = score_suite(turned, suite, judge='solids').record['scores']
  assert right['colour']['value'] > 0.9 > 0.6 > wrong['colour']['value']
  assert right['camera']['value'] == 1
  with pytest.raises(DataError, match="'a dog' is no caption of a suite of solids"):
    score_suite(videos, suite_of(*['a dog'] * 12), judge='solids')


class PixelClip(Clip):
  """A CLIP whose vectors are known: of a frame by its brightness, of a text by its first word."""

  def __init__(self):
    pass

  def encode_images(self, images):
    bright = images.mean((1, 2, 3)) > 127
    return np.stack([bright, ~bright], 1).astype(np.float32)

  def encode_texts(self, texts):
    bright = np.array([text.startswith('bright') for text in texts])
    return np.stack([bright, ~bright], 1).astype(np.float32)


def test_the_score_of_clip_is_the_mean_cosine_of_frames_with_their_prompt(tmp_path):
  suite = suite_of('bright', 'dark', 'bright half')
  for index, levels in enumerate(([200] * 8, [200] * 8, [200] * 4 + [10] * 4)):
    video = np.concatenate([flat(level, 1) for level in levels])
    write_clip(tmp_path / f'{index}.mp4', video, 8)
  scores = score_suite(find_videos(tmp_path, suite), suite, clip=PixelClip())
  score = scores.metrics['scores/clip_score'].value
  np.testing.assert_allclose(score.each, [100, 0, 50])
  assert score.count == 3 and math.isnan(score.low)  # of three prompts
