"""Made pictures of somebody become references if they show them; others have reasons."""

from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from mgjax.apps.pairs.cross_pairs import (
  CrossPairSettings,
  Look,
  PairedClips,
  Seen,
  make_cross_pairs,
)
from mgjax.apps.pairs.cross_pairs import cross_pairs as make_all
from mgjax.apps.pairs.make_pairs import PAGE, PICTURES
from mgjax.core.errors import DataError
from mgjax.data.ingest.clip_check import COLUMNS, make_row
from mgjax.data.media.video import write_video
from mgjax.data.records.reader import Records, write_records
from mgjax.data.records.writer import Share
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import make_sources
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.sections.personalization.pipeline import PersonalizationPipeline
from tests import binaries
from tests.data.media.faces.pictured import astronaut_crop, driver
from tests.tiny_personalization import SIDE, make_recogniser, make_untrained

REFERENCES = 5
RED, GREEN, DARK = (220, 30, 30), (30, 200, 40), (0, 0, 0)


def clip_row(path, frames, caption, reference, **more):
  write_video(path, frames, 8)
  row = make_row(path.read_bytes(), caption, path.name)
  return row | {'reference': reference, **more}


def write(directory, rows):
  known = [name for name in ('cross',) if name in rows[0]]
  return write_records(directory, rows, rows_per_shard=2, columns=(*COLUMNS, *known))


@pytest.fixture(scope='module')
def untrained(tiny_runs):
  return make_untrained(tiny_runs, tiny_runs / 'untrained_personalization')


class Painter(PersonalizationPipeline):
  """Paints what a prompt names, and notes what it was asked for."""

  painted: ClassVar = {}
  asked: ClassVar = []

  def generate(self, prompts, *, reference, first, **options):
    self.asked.append((first, reference.copy(), options))
    return np.stack([self.painted[prompt] for prompt in prompts])[:, None]


def colour(rgb, side=SIDE):
  return np.full((side, side, 3), rgb, np.uint8)


PLAIN = {'red': colour(RED), 'a shade of it': colour((200, 60, 60)), 'green': colour(GREEN)}
PLAIN |= {'dark': colour(DARK), 'crowd': np.concatenate([colour(RED), colour(GREEN)])[8:24]}


def look(picture):
  """Takes what is of one colour for a person."""
  middles = {tuple((each // 64).tolist()) for each in picture.reshape(-1, 3)[:: SIDE + 1]}
  if len(middles) > 1:
    return 'several faces'
  if not picture.any():
    return 'no face'
  vector = picture[0, 0] / np.linalg.norm(picture[0, 0].astype(float))
  return Seen(colour(picture[0, 0]), vector, (0.1, 0.2, 0.3, 0.4))


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """Clips of somebody red, one of them a cross pair, of nobody, and of somebody green."""
  folder = tmp_path_factory.mktemp('clips')
  rows = [
    clip_row(
      folder / f'{number}.mp4',
      np.tile(colour(shown, 32), (6, 1, 1, 1)),
      f'person {number}',
      np.stack([colour((10 * number, 200, n)) for n in range(REFERENCES)]),
      cross=cross,
    )
    for number, (shown, cross) in enumerate(
      [(RED, False), (RED, True), (DARK, False), (GREEN, False), (RED, False)]
    )
  ]
  write(folder / 'records', rows)
  return folder / 'records', rows


@pytest.fixture(scope='module')
def painter(untrained):
  Painter.painted = PLAIN
  return Painter(untrained)


SETTINGS = CrossPairSettings(threshold=0.95, prompts=tuple(PLAIN), seed=3)


def made(painter, records, directory, settings=SETTINGS, look=look, **options):
  painter.asked.clear()
  return make_cross_pairs(
    painter,
    PairedClips(records[0]),
    directory,
    Look(look, {'look': 'colours'}),
    settings,
    samples_per_shard=2,
    **options,
  )


def test_pictures_of_the_same_person_become_references(painter, records, tmp_path):
  result = made(painter, records, tmp_path / 'made')
  found = list(Records(tmp_path / 'made'))
  clips = [records[1][number] for number in (0, 4)]  # two red ones; of green one picture is left
  assert len(found) == result.rows == len(clips)
  for row, clip in zip(found, clips, strict=True):
    assert row.keys() == clip.keys() | {'synthetic', 'reference_box', 'reference_second'}
    for name in clip.keys() - {'reference', 'cross'}:
      assert np.array_equal(row[name], clip[name])
    assert row['cross'] and row['synthetic']
    first, second = colour(RED), colour((200, 60, 60))
    assert np.array_equal(row['reference'], [first, first, first, second, second])
    assert np.allclose(row['reference_box'], [(0.1, 0.2, 0.3, 0.4)] * REFERENCES)
    assert (row['reference_second'] == -1).all()
  assert Records(tmp_path / 'made').column('synthetic').all()


def test_the_model_is_shown_the_first_reference_and_noise_is_of_seed_and_index(
  painter, records, tmp_path
):
  made(painter, records, tmp_path / 'made')
  asked = {first: (shown, options) for first, shown, options in painter.asked}
  assert list(asked) == [0, 10, 15]  # five a clip; in clip 1 nobody is seen, so nothing is made
  for first, number in ((0, 0), (10, 3), (15, 4)):
    shown, options = asked[first]
    assert np.array_equal(shown, records[1][number]['reference'][:1])
    assert (options['seed'], options['shape']) == (3, (1, SIDE, SIDE))
  whole = [path.read_bytes() for path in sorted((tmp_path / 'made').glob('*.arrayrecord'))]
  for process in (1, 0):
    made(painter, records, tmp_path / 'shared', share=Share(process, 2))
  shared = sorted((tmp_path / 'shared').glob('*.arrayrecord'))
  assert [path.read_bytes() for path in shared] == whole


def test_what_is_dropped_has_its_reason(painter, records, tmp_path):
  result = made(painter, records, tmp_path / 'made')
  assert result.reasons == {
    'no face': 3,
    'several faces': 3,
    'another person': 4,
    "no face in the clip's first frame": 1,
    'fewer than 2 of its clip are left': 1,
  }
  assert (result.total, result.kept, result.rows) == (16, 4, 2)
  sheets = sorted((tmp_path / 'made' / PICTURES).iterdir())
  titles = []
  for path in sheets:
    with Image.open(path) as sheet:
      titles += sheet.info['Description'].split('\n')
  assert titles[2] == 'dropped, another person (cosine 0.299): clip 0, green'
  assert "dropped, no face in the clip's first frame: clip 1" in titles
  assert 'another person' in (tmp_path / 'made' / PAGE).read_text()


def test_a_cosine_that_is_written_as_the_threshold_reaches_it(painter, records, tmp_path):
  def near(picture):
    seen = look(picture)
    shade = (picture[0, 0] == (200, 60, 60)).all()
    vector = np.array([0.94996 if shade else 1.0, 0.0])  # of one person, but for its length
    return seen if isinstance(seen, str) else seen._replace(vector=vector)

  assert made(painter, records, tmp_path, look=near).kept == 9


def test_faces_are_found_and_compared_in_pictures(tiny_runs, tmp_path):
  """The astronaut is herself in other light, and neither the driver nor two of her."""
  face = astronaut_crop(114, 20, 314, 220, 128)
  man = driver(128)[0]
  brighter = np.clip(face.astype(float) * 1.15 + 8, 0, 255).astype(np.uint8)
  shifted = np.roll(face, 5, axis=1)
  twice = np.asarray(Image.fromarray(np.concatenate([face, face], 1)).resize((128, 64)))
  Painter.painted = {
    'brighter': brighter,
    'shifted': shifted,
    'the driver': man,
    'nothing': np.full((128, 128, 3), 90, np.uint8),
    'twice': np.concatenate([twice, np.zeros_like(twice)]),
  }
  model = Painter(
    make_untrained(tiny_runs, tmp_path / 'model', side=32, references__faces='cascade')
  )
  reference = np.stack([np.asarray(Image.fromarray(face).resize((32, 32)))] * REFERENCES)
  rows = [clip_row(tmp_path / 'a.mp4', np.stack([face] * 6), 'a woman', reference, cross=False)]
  write(tmp_path / 'records', rows)
  prompts = tuple(Painter.painted)
  try:
    result = make_all(model, tmp_path / 'records', tmp_path / 'made', prompts=prompts)
  finally:
    Painter.painted = PLAIN
  assert result.reasons == {'no face': 1, 'several faces': 1, 'another person': 1}
  (row,) = Records(tmp_path / 'made')
  assert row['reference'].shape == (REFERENCES, 32, 32, 3)
  assert not row['reference'][:, 0, 0].any() and row['reference'][:, 16, 16].all()  # masked
  assert ((row['reference_box'] > 0) & (row['reference_box'] < 1)).all()


@pytest.fixture(scope='module')
def recogniser(tmp_path_factory):
  return make_recogniser(tmp_path_factory.mktemp('clip') / 'clip')


def test_the_command_makes_cross_pairs_of_moving_digits(untrained, recogniser, tmp_path):
  world = Digits(length=3, frames=4, size=(SIDE, SIDE), extras=('reference',), references=2)
  rows = [
    clip_row(tmp_path / f'{n}.mp4', sample['video'], sample['caption'], sample['reference'])
    for n, sample in enumerate(world)
  ]
  write(tmp_path / 'digits', rows)
  flags = [
    'cross_pairs',
    f'--workdir={untrained}',
    f'--input={tmp_path / "digits"}',
    f'--output={tmp_path / "made"}',
    '--threshold=-1',
  ]
  done = binaries.run('data', *flags)
  assert (done.returncode, done.stdout) == (2, '')
  assert 'as in --recogniser=' in done.stderr and 'Traceback' not in done.stderr
  assert not (tmp_path / 'made').exists()
  done = binaries.finish('data', *flags, f'--recogniser={recogniser}')
  assert done.stdout.splitlines() == [
    '18 of 18 pairs kept in 3 rows',
    f'{tmp_path / "made"}/{PAGE}',
  ]
  fields = {'kind': 'records', 'path': str(tmp_path / 'made'), 'fps': 8, 'only': 'cross'}
  bucket = {'video': {'frames': 4, 'height': SIDE, 'width': SIDE}}
  source = make_sources(data_settings(fields), video_shapes(bucket, 8), 'train')['video']
  assert len(source) == 3
  assert source[0]['reference'].shape == (2, SIDE, SIDE, 3)
  done = binaries.run('data', *flags, f'--recogniser={recogniser}', '--batch_size=2')
  assert done.returncode == 2 and 'begun with other values' in done.stderr


def test_records_without_references_are_refused(painter, tmp_path):
  world = Digits(length=1, frames=4)
  path = tmp_path / 'a.mp4'
  write_video(path, world[0]['video'], 8)
  write(tmp_path / 'plain', [make_row(path.read_bytes(), 'a', 'a')])
  with pytest.raises(DataError, match=r"rows have no 'reference'; .* launch.data references makes"):
    make_all(painter, tmp_path / 'plain', tmp_path / 'made')
  with pytest.raises(DataError, match='there are no records'):
    make_all(painter, tmp_path / 'none', tmp_path / 'made')
  assert not (tmp_path / 'made').exists()
