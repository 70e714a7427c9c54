"""Clips of people become records with references; whatever is left out has a reason."""

import json

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.data.ingest.clip_check import open_row
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.media.faces.face import Face
from mgjax.data.media.faces.recognition import Faces
from mgjax.data.media.video import probe, stream_frames, write_video
from mgjax.data.records.reader import Records
from mgjax.data.records.writer import Share
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import make_sources
from mgjax.lab.curation.filters.scenes import SceneSettings, Shot
from mgjax.lab.curation.people.records import ReferenceFinder, write_references
from mgjax.lab.curation.people.sheet import ReferenceSheet
from mgjax.lab.curation.people.single_person_references import (
  ReferenceSettings,
  Track,
  cross_fields,
  names_person,
)
from tests import binaries
from tests.data.media.faces.pictured import astronaut_crop

SMALL = ReferenceSettings(side=32, pixels=8)
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (30, 40, 210)


class Squares:
  """Takes bright squares for faces, and their colour for the person."""

  threshold = 0.99

  def find(self, frames):
    return [self._find(frame) for frame in frames]

  def _find(self, frame):
    found = []
    for colour in (RED, GREEN, BLUE):
      ys, xs = np.nonzero(np.abs(frame.astype(int) - colour).max(-1) < 40)
      if len(ys) > 16:
        low, high = (int(ys.min()), int(xs.min())), (int(ys.max()) + 1, int(xs.max()) + 1)
        found.append(Face(*low, high[0] - low[0], high[1] - low[1]))
    return found

  def crop(self, frame, face):
    middle = frame[int(face.top + face.height / 2), int(face.left + face.width / 2)]
    return np.full((4, 4, 3), middle, np.uint8)

  def embed(self, crops):
    vectors = np.stack([crop[0, 0].astype(np.float32) for crop in crops])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


FACES = Faces('squares', Squares(), Squares(), Squares.threshold)


def shot(colours, count=30, ground=60, size=16, start=0):
  """Frames of 64 x 96 with a square of each colour that moves to the right."""
  frames = np.full((count, 64, 96, 3), ground, np.uint8)
  for n in range(count):
    for place, colour in enumerate(colours):
      left = 4 + 30 * place + (start + n) // 4
      frames[n, 10 + 4 * place : 10 + 4 * place + size, left : left + size] = colour
  return frames


CLIPS = {
  'alone': (shot([RED]), 'A Man walks'),
  'bare': (shot([]), 'a woman out of sight'),
  'child': (shot([GREEN], size=6), 'a child far away'),
  'pair': (shot([RED, GREEN]), 'two people'),
  'quick': (shot([RED], 12), 'a boy'),
  'scenery': (shot([RED]), 'mandarins on a hemanhill'),
  'scenes': (
    np.concatenate([shot([RED]), shot([RED], ground=190, start=20), shot([BLUE], 40, 10)]),
    'a girl, and her brother',
  ),
  'swap': (np.concatenate([shot([RED], 15), shot([BLUE], 15)]), 'one becomes the other, he says'),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('clips')
  for name, (frames, caption) in CLIPS.items():
    write_video(folder / f'{name}.mp4', frames, 10)
    (folder / f'{name}.txt').write_text(caption)
  data = (folder / 'pair.mp4').read_bytes()
  (folder / 'torn.mp4').write_bytes(data[: len(data) // 2])
  (folder / 'torn.txt').write_text('a man')
  return folder


def make(folder, output, settings=SMALL, sheet=None, **more):
  finder = ReferenceFinder(FACES, settings, SceneSettings(), sheet=sheet or ReferenceSheet(0))
  return write_references(open_inputs(folder), output, finder, clips_per_shard=3, **more)


@pytest.fixture(scope='module')
def made(folder, tmp_path_factory):
  output, sheet = tmp_path_factory.mktemp('records') / 'people', ReferenceSheet(8)
  return make(folder, output, sheet=sheet), output, sheet


def test_every_clip_is_a_row_or_has_a_reason(made):
  outcome, output, _ = made
  rows = list(Records(output))
  assert outcome.finished and outcome.inputs == len(CLIPS) + 1
  assert (outcome.paired, outcome.cross) == (4, 2) and len(rows) == 6
  reasons = {each.name.removesuffix('.mp4'): each.reason for each in outcome.rejected}
  expected = {
    'bare': 'no face at 0.50 s',
    'child': 'a face of 5 pixels at 0.50 s, fewer than 8',
    'pair': '2 faces at 0.50 s',
    'quick': 'lasts 1.20 s, less than 2',
    'scenery': 'its caption names no person',
    'swap': 'another face at 1.50 s than before: similarity 0.291, less than 0.99',
    'torn': 'begins as mp4 or mov, but is damaged, cut off',
  }
  assert reasons.keys() == expected.keys()
  for name, reason in expected.items():
    assert reasons[name].startswith(reason), reasons[name]
  listed = [json.loads(line) for line in (output / 'rejected.jsonl').read_text().splitlines()]
  assert {line['entry']: line['reason'] for line in listed} == {
    each.name: each.reason for each in outcome.rejected
  }
  assert '7 clips or shots left out' in str(outcome)


def colour(reference):
  return reference[12:20, 12:20].mean((0, 1))


def test_paired_references_are_the_face_of_the_clip_masked(folder, made):
  row = next(row for row in Records(made[1]) if row['source'] == 'alone.mp4')
  assert row['media'].tobytes() == (folder / 'alone.mp4').read_bytes()
  reference = row['reference']
  assert reference.shape == (5, 32, 32, 3) and reference.dtype == np.uint8 and not row['cross']
  assert not reference[:, 0, 0].any() and not reference[:, -1, -1].any()
  for each in reference:
    assert np.abs(colour(each) - RED).max() < 12
    assert np.abs(each[2, 16].astype(int) - 60).max() < 20  # the ground, in the margin
  # three frames were sampled: 0.5, 1.5 and 2.5 s
  np.testing.assert_allclose(row['reference_second'], [0.5, 0.5, 1.5, 1.5, 2.5][:5], atol=1.01)
  assert row['reference_second'][[0, 2, 4]].tolist() == [0.5, 1.5, 2.5]
  lefts = row['reference_box'][[0, 2, 4], 1] * 96
  np.testing.assert_allclose(lefts, [5, 7, 10], atol=1)


def test_cross_references_come_from_other_shots_of_the_same_face(made):
  rows = [row for row in Records(made[1]) if row['source'].startswith('scenes.mp4')]
  assert [bool(row['cross']) for row in rows] == [False, True, False, True, False]
  own, cross = rows[:2]
  assert own['source'] == cross['source'] == 'scenes.mp4, 0.00 to 3.00 s'
  assert (own['reference_second'] < 3).all()
  assert ((cross['reference_second'] > 3) & (cross['reference_second'] < 6)).all()
  for each in cross['reference']:
    assert np.abs(colour(each) - RED).max() < 12
    assert np.abs(each[2, 16].astype(int) - 190).max() < 20
  assert np.abs(colour(rows[-1]['reference'][0]) - BLUE).max() < 12


def test_a_shot_is_cut_out_with_its_frames(folder, made):
  row = next(row for row in Records(made[1]) if '3.00 to 6.00' in row['source'])
  info = probe(open_row(row))
  assert info.frames == 30 and info.seconds == pytest.approx(3.0) and info.fps == pytest.approx(10)
  original = [frame for _, _, frame in stream_frames(folder / 'scenes.mp4')][30:60]
  for (_, _, frame), expected in zip(stream_frames(open_row(row)), original, strict=True):
    assert np.abs(frame.astype(int) - expected).mean() < 4


def test_records_are_read_as_clips_with_their_references(made):
  data = data_settings({'kind': 'records', 'path': str(made[1]), 'fps': 8})
  buckets = {'clip': {'frames': 8, 'height': 32, 'width': 32}}
  source = make_sources(data, video_shapes(buckets, 8), 'train')['clip']
  rows = {(row['source'], row['reference'].tobytes()): row for row in Records(made[1])}
  for index in range(len(source)):
    sample = source[index]
    row = rows[sample['source'], sample['reference'].tobytes()]
    assert sample['video'].shape == (8, 32, 32, 3) and sample['caption'] == row['caption']
    assert sample['cross'] == row['cross'] and 'media' not in sample
  assert Records(made[1]).column('cross').sum() == 2


def test_another_call_goes_on_where_it_stopped(folder, made, tmp_path):
  class Ends(Exception):
    pass

  def after_four(done, total):
    if done == 4:
      raise Ends

  with pytest.raises(Ends):
    make(folder, tmp_path / 'people', progress=after_four)
  left = []
  outcome = make(folder, tmp_path / 'people', progress=lambda done, total: left.append(total))
  assert left[0] == 6  # of nine clips in shards of three, one shard was whole
  assert outcome == made[0]
  assert Records(tmp_path / 'people').fingerprint == Records(made[1]).fingerprint


def test_processes_share_the_clips(folder, made, tmp_path):
  first = make(folder, tmp_path / 'people', share=Share(0, 2))
  second = make(folder, tmp_path / 'people', share=Share(1, 2))
  assert not first.finished and second == made[0]
  assert Records(tmp_path / 'people').fingerprint == Records(made[1]).fingerprint


def test_other_settings_do_not_go_into_the_same_records(folder, made):
  other = ReferenceSettings(side=16, pixels=8)
  with pytest.raises(ConfigError, match='was begun with other values'):
    make(folder, made[1], other)


def test_the_sheet_shows_frames_with_boxes_and_references(made, tmp_path):
  assert made[2].write(tmp_path / 'sheet.png')
  with Image.open(tmp_path / 'sheet.png') as sheet:
    told = sheet.info['Description']
  for title in ('alone.mp4: 1 row', 'pair.mp4: 2 faces', 'cross-paired references'):
    assert title in told
  assert not ReferenceSheet(8).write(tmp_path / 'none.png')
  assert not (tmp_path / 'none.png').exists()


def test_a_caption_names_a_person_by_a_whole_word():
  assert names_person('The MAN in black') and names_person("a woman's hand")
  assert names_person('Frau am Fenster', ('frau',))
  assert not names_person('a mandarin, a mango') and not names_person('')


def test_references_of_nobody_alike_are_none():
  def track(vector):
    return Track(Shot(0, 2, 0, 2), '', [np.zeros((2, 2, 3))], [np.float32(vector)], [(0,) * 4], [0])

  one, other = track([1, 0]), track([0, 1])
  assert cross_fields(one, [one, other], 0.5, SMALL) is None
  assert cross_fields(one, [one], 0.5, SMALL) is None
  assert cross_fields(one, [one, track([0.8, 0.6])], 0.5, SMALL)['cross']


def test_the_commands_make_records_and_a_page(tmp_path):
  clips = tmp_path / 'clips'
  clips.mkdir()
  frames = [astronaut_crop(60 + n, 0, 380 + n, 320) for n in range(20)]
  write_video(clips / 'a.mp4', np.stack(frames), 8)
  (clips / 'a.txt').write_text('an astronaut smiles')
  sheet = tmp_path / 'sheet.png'
  places = f'--input={clips}', f'--output={tmp_path}/out', f'--sheet={sheet}'
  arguments = (*places, '--references=side=64')
  done = binaries.finish('data', 'references', *arguments)
  assert '1 rows paired, 0 cross-paired' in done.stdout and sheet.exists()
  (row,) = Records(tmp_path / 'out')
  assert row['reference'].shape == (5, 64, 64, 3) and row['reference'].any()
  wrong = binaries.run('data', 'references', *arguments, '--faces=casade')
  assert wrong.returncode == 2 and 'cascade' in wrong.stderr
