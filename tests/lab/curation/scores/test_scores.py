"""Each score tells what it is named for, and is the same however a clip lies in its video."""

import dataclasses

import cv2
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.lab.curation.scores.borders import Borders
from mgjax.lab.curation.scores.fingerprint import Fingerprint
from mgjax.lab.curation.scores.jitter import Jitter
from mgjax.lab.curation.scores.motion import Motion
from mgjax.lab.curation.scores.plug_in import Aesthetics
from mgjax.lab.curation.scores.scorer import make_scorers, watch
from mgjax.lab.curation.scores.stillness import Stillness
from mgjax.lab.curation.scores.text import Text
from mgjax.lab.curation.settings import MeasureSettings, PlugIn
from tests.lab.curation.footage import vmaf_motion
from tests.lab.curation.scores.shown import frames_of, pattern, scores_of

SETTINGS = MeasureSettings()


def moving(count=24, step=3, seed=0):
  wide = pattern(96, 128 + step * count, seed)
  return [np.ascontiguousarray(wide[:, step * n : step * n + 128]) for n in range(count)]


def test_words_are_read_and_pictures_are_not():
  plain = pattern(240, 320)
  written = plain.copy()
  cv2.putText(written, 'SUBSCRIBE NOW', (20, 200), 0, 1, (255,) * 3, 2, cv2.LINE_AA)
  assert scores_of(Text(SETTINGS), [plain] * 8)['score'] < 0.6
  said = scores_of(Text(SETTINGS), [written] * 8)
  assert said['score'] > 0.6 and 'SUBSCRIBE' in str(said['words'])


@pytest.mark.parametrize('value', [0, 255, 90])
@pytest.mark.parametrize('widths', [(7, 0), (0, 12), (4, 4)], ids=['first', 'second', 'both'])
@pytest.mark.parametrize('columns', [False, True], ids=['rows', 'columns'])
def test_a_flat_border_is_measured_to_two_lines(value, widths, columns):
  pictures = []
  for picture in moving():
    framed = picture.copy()
    turned = framed.transpose(1, 0, 2) if columns else framed
    turned[: widths[0]] = value
    turned[len(turned) - widths[1] :] = value
    pictures.append(framed)
  said = scores_of(Borders(SETTINGS), pictures)
  names = ('left', 'right') if columns else ('top', 'bottom')
  # Steps are looked for over two lines, since compression smears them.
  assert [said[name] for name in names] == pytest.approx(widths, abs=2)
  assert said['share'] > 0.01


def test_a_picture_without_a_border_has_none_even_when_it_fades_from_black():
  assert scores_of(Borders(SETTINGS), moving())['share'] == 0
  faded = [np.uint8(picture * min(1, n / 12)) for n, picture in enumerate(moving(48))]
  assert scores_of(Borders(SETTINGS), faded)['share'] == 0


def test_motion_is_that_of_vmaf():
  pictures = moving()
  said = scores_of(Motion(SETTINGS), pictures, vectors=3.0)
  luma = [np.repeat(frame.luma[..., None], 3, -1) for frame in frames_of(pictures)]
  # The twin brings brightness to the codec's range, 219 of 255; ffmpeg rounds to whole numbers.
  assert said['vmaf'] == pytest.approx(vmaf_motion(luma) * 255 / 219, rel=0.02)
  assert said['vectors'] == 3.0
  assert scores_of(Motion(SETTINGS), pictures)['vectors'] is None
  assert scores_of(Motion(SETTINGS), [pictures[0]] * 5)['vmaf'] == 0


def test_the_cut_before_a_clip_is_no_motion_of_it():
  scorer = Motion(SETTINGS)
  watch(frames_of([pattern(seed=1)] * 8 + [pattern(seed=2)] * 8), [scorer])
  assert scorer.scores(1.0, 2.0)['vmaf'] == 0 and scorer.scores(0.0, 2.0)['vmaf'] > 1


def test_what_shakes_has_many_shots_and_what_pans_has_one():
  chance = np.random.default_rng(0)
  wide = pattern(400, 400, coarse=24)
  places = chance.integers(0, 270, (32, 2))
  shaken = [np.ascontiguousarray(wide[y : y + 96, x : x + 128]) for y, x in places]
  assert scores_of(Jitter(SETTINGS), shaken)['rate'] > 0.85
  assert scores_of(Jitter(SETTINGS), moving(32))['shots'] == 1


def test_stillness_is_the_share_of_steps_in_which_no_block_changes():
  pictures = moving(24)
  assert scores_of(Stillness(SETTINGS), pictures)['share'] == 0
  assert scores_of(Stillness(SETTINGS), [pictures[0]] * 24)['share'] == 1
  half = [pictures[0]] * 24 + pictures
  assert scores_of(Stillness(SETTINGS), half)['share'] == pytest.approx(0.5, abs=0.05)
  corner = []
  for n in range(24):  # only one block in 64 changes
    picture = pictures[0].copy()
    picture[:12, :16] = n * 10
    corner.append(picture)
  assert scores_of(Stillness(SETTINGS), corner)['share'] == 0


def test_a_copy_of_another_size_and_rate_has_the_same_fingerprint():
  def said(pictures, fps):
    found = scores_of(Fingerprint(SETTINGS), pictures, fps)
    return np.array(found['vector']), np.frombuffer(found['hash'], np.uint8)

  pictures = moving(48)
  vector, bits = said(pictures, 8.0)
  assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6) and len(bits) == 32
  smaller = [cv2.resize(each, (96, 72), interpolation=cv2.INTER_AREA) for each in pictures[::2]]
  other, other_bits = said(smaller, 4.0)
  assert vector @ other > 0.99
  assert np.median(np.bitwise_count(bits ^ other_bits).reshape(4, 8).sum(1)) <= 10
  third, _ = said(moving(48, seed=5), 8.0)
  assert vector @ third < 0.99
  black, _ = said([np.zeros((64, 64, 3), np.uint8)] * 8, 8.0)
  assert np.isfinite(black).all()


def brightness(frames, weights):
  """A plug-in."""
  return frames.mean() + float(weights or 0)


def test_a_plug_in_sees_the_middle_frame():
  where = f'{__name__}:brightness'
  settings = dataclasses.replace(SETTINGS, aesthetics=PlugIn(where, weights='1'))
  pictures = [np.full((32, 32, 3), 10 * n, np.uint8) for n in range(17)]
  assert scores_of(Aesthetics(settings), pictures)['score'] == pytest.approx(81, abs=1)
  with pytest.raises(ConfigError, match='cannot be imported'):
    make_scorers(dataclasses.replace(SETTINGS, aesthetics=PlugIn('nowhere:f')))


def test_what_nobody_supplies_is_not_measured():
  names = [scorer.name for scorer in make_scorers(SETTINGS)]
  assert 'aesthetics' not in names and 'people' not in names and 'text' in names
  with pytest.raises(ConfigError, match='expected one of'):
    make_scorers(dataclasses.replace(SETTINGS, scorers=('txet',)))
