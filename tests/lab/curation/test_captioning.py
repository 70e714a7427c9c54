"""Captions are written once a clip, and what records carry is made of them by a template."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.ingest.worker_pool import Allowance
from mgjax.data.media.video import write_video
from mgjax.lab.curation.captioning import caption_clips, carried, compose
from mgjax.lab.curation.captions import Captioner
from mgjax.lab.curation.scores.sound import SoundLimits
from mgjax.lab.curation.settings import CaptionSettings
from mgjax.sections.audio.captions import parse

LIMITS = SoundLimits()
ALLOWANCE = Allowance(gigabytes=4.0, processor_seconds=60, wall_seconds=60.0, tries=1)
CAMERA = {'camera_class': 'pan or truck right', 'camera_confidence': 0.9}
RULES = 'Pan or truck right. A cat.'  # as rules write it


class Told(Captioner):
  """Says how many frames it saw, how bright they are and what came along."""

  asked = 0
  most = 10**9

  def captions(self, clips):
    found = []
    for clip in clips:
      if Told.asked >= Told.most:
        raise KeyboardInterrupt
      Told.asked += 1
      frames = clip.read()
      found.append(f'{clip.caption}: {len(frames)} frames, {frames.mean() / 50:.0f}')
    return found


@pytest.fixture
def told(monkeypatch):
  monkeypatch.setattr(Told, 'asked', 0)
  monkeypatch.setattr(Told, 'most', 10**9)
  return CaptionSettings(f'{__name__}:Told', frames=4)


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  """Two videos of 4 s, black and then white, and one that is none."""
  folder = tmp_path_factory.mktemp('raw')
  for number in range(2):
    frames = np.zeros((32, 32, 48, 3), np.uint8)
    frames[16:] = 250
    write_video(folder / f'{number}.mp4', frames, 8)
    (folder / f'{number}.txt').write_text(f'text {number}')
  (folder / '2.mp4').write_text('no video')
  (folder / '2.txt').write_text('text 2')
  return open_inputs(str(folder))


def row(place, start, end):
  name = f'{place}.mp4#{start:g}'
  return {'clip': name, 'place': place, 'start': start, 'end': end, 'caption': f'text {place}'}


ROWS = [row(0, 0.0, 2.0), row(0, 2.0, 4.0), row(1, 1.0, 4.0), row(2, 0.0, 2.0)]


def written(raw, folder, settings, rows=ROWS):
  return caption_clips(rows, raw, folder, settings, allowance=ALLOWANCE)


def test_a_captioner_sees_the_frames_of_each_clip_and_none_of_its_neighbours(raw, told, tmp_path):
  found = written(raw, tmp_path, told)
  assert [each and each.split(': ')[0] for each in found] == ['text 0', 'text 0', 'text 1', '']
  assert found[0].endswith('8 frames, 0') and found[1].endswith('8 frames, 5')  # black, white


def test_no_caption_is_written_twice(raw, told, tmp_path):
  found = written(raw, tmp_path, told)
  assert Told.asked == 3 and written(raw, tmp_path, told) == found and Told.asked == 3
  other = CaptionSettings(told.kind, frames=4, template='{caption} {camera}', prefix=0.1)
  assert written(raw, tmp_path, other) == found and Told.asked == 3  # asks nobody anything else
  trimmed = [ROWS[0] | {'end': 1.0}]
  assert written(raw, tmp_path, told, trimmed)[0] and Told.asked == 4
  assert written(raw, tmp_path, CaptionSettings(told.kind, frames=2)) and Told.asked == 7


def test_what_was_written_before_a_run_was_stopped_counts(raw, told, tmp_path, monkeypatch):
  monkeypatch.setattr('mgjax.lab.curation.captioning._AT_ONCE', 1)
  Told.most = 2
  with pytest.raises(KeyboardInterrupt):
    written(raw, tmp_path, told)
  (path,) = tmp_path.glob('*.jsonl')
  with path.open('ab') as file:
    file.write(b'["cut by a cr')
  Told.most = 10**9
  assert len([each for each in written(raw, tmp_path, told) if each]) == 3 and Told.asked == 3


def test_existing_text_needs_no_frame(raw, tmp_path):
  rows = [*ROWS, ROWS[0] | {'caption': ''}]
  found = written(raw, tmp_path / 'none', CaptionSettings(), rows)
  assert found == ['text 0', 'text 0', 'text 1', 'text 2', None]


def test_rules_describe_a_clip(raw, tmp_path):
  (found,) = written(raw, tmp_path, CaptionSettings('rules'), ROWS[1:2])
  assert found.endswith('mostly white.')


@pytest.mark.parametrize(
  ('more', 'expected'),
  [
    (CAMERA, 'Pan or truck right. A dog runs.'),
    (CAMERA | {'camera_confidence': 0.59}, 'A dog runs.'),
    (CAMERA | {'camera_class': 'roll'}, 'A dog runs.'),
    (CAMERA | {'labels': ['pan right', 'wide shot']}, 'Pan right. Wide shot. A dog runs.'),
    (CAMERA | {'labels': ['pan right'], 'caption': RULES}, 'Pan right. A cat.'),
    (CAMERA | {'labels': ['wide shot']}, 'Pan or truck right. Wide shot. A dog runs.'),
    (CAMERA | {'caption': RULES}, RULES),
    (CAMERA | {'caption': ''}, 'Pan or truck right.'),
    ({}, 'A dog runs.'),
  ],
)
def test_the_camera_and_labels_go_before_the_caption(more, expected):
  assert compose({'caption': 'A dog runs.', **more}, CaptionSettings(), LIMITS) == expected


def test_a_template_orders_what_is_known():
  settings = CaptionSettings(template='A video: {caption} {shot}', prefix=0.0)
  known = {'caption': 'A dog {runs}.', 'labels': ['aerial shot'], **CAMERA}
  assert compose(known, settings, LIMITS) == 'A video: A dog {runs}. Aerial shot.'
  for wrong in ('{title}', 'no field', '{caption', '{caption} {sound}', '{caption.x}', '{}'):
    with pytest.raises(ConfigError, match='template'):
      CaptionSettings(template=wrong)


def test_the_template_of_sound_is_that_of_table_27():
  known = {
    'caption': 'Waves break.',
    'sound_voice': 0.1,
    'sound_music': 0.9,
    'sound_quality': 8.0,
  }
  settings = CaptionSettings(template='{sound}')
  text = compose(known, settings, LIMITS)
  assert text == (
    'This audio has quality: 8.0. This audio does not contain speech. This audio contains music '
    'with a 0.90 likelihood. This audio has a description: "Waves break.".'
  )
  assert parse(text).description == 'Waves break.'
  bare = compose({'caption': 'Waves break.'}, settings, LIMITS)
  assert bare == 'This audio has a description: "Waves break.".'  # nobody said anything of the rest
  assert compose({'caption': ''}, settings, LIMITS) == ''


def test_records_carry_camera_labels_and_sound():
  scores = {
    'sound_voice': 0.0,
    'sound_music': 0.0,
    'sound_sound': 0.9,
    'sound_cosine': 0.25,
    'sound_loudness': -20.0,
    'sound_quality': None,
    'labels': ['pan right', 'wide shot'],
  }
  found = carried({**CAMERA, **scores}, LIMITS)
  assert found['sound_place'] == 'diegetic' and found['labels'] == 'pan right, wide shot'
  assert found['camera'] == 'pan or truck right' and found['sound_loudness'] == -20.0
  assert 'sound_quality' not in found and carried({}, LIMITS) == {}
