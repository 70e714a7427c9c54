"""Faces are found in real pictures and compared; every plug-in keeps to one protocol."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.media.faces.face import Face, crop_face, draw_faces, mask_face
from mgjax.data.media.faces.recognition import open_faces
from tests.data.media.faces.pictured import FACE, astronaut, astronaut_crop, driver

CLOSE = 20  # pixels of a box's edge, a fifth of the face


def needs_dlib():
  """Skips a test without dlib and its weights."""
  try:
    open_faces('dlib')
  except ConfigError as error:
    pytest.skip(str(error))


@pytest.fixture(params=['cascade', 'dlib'])
def faces(request):
  if request.param == 'dlib':
    needs_dlib()
  return open_faces(request.param)


def near(face, box=FACE):
  return np.abs(np.subtract((face.top, face.left, face.height, face.width), box)).max() < CLOSE


def test_a_face_is_found_where_it_is_at_any_size(faces):
  small, whole = astronaut()[::4, ::4], astronaut()
  large = np.repeat(np.repeat(whole, 3, 0), 3, 1)
  (one,), (other,), (third,) = faces.find([small, whole, large])
  assert near(one.scaled(4)) and near(other) and near(third.scaled(1 / 3))


def test_two_people_are_two_faces_the_larger_first(faces):
  found = faces.find([np.concatenate([astronaut_crop(60, 0, 380, 320), driver()[0]], axis=1)])[0]
  middles = [face.left + face.width / 2 for face in found]
  assert len(found) >= 2 and min(middles) < 256 < max(middles)
  assert [face.height for face in found] == sorted((f.height for f in found), reverse=True)


@pytest.mark.parametrize('side', [1, 2, 40])
def test_what_shows_nothing_has_no_face(faces, side):
  assert faces.find([np.full((side, side, 3), 128, np.uint8)]) == [[]]
  assert faces.find([]) == [] and len(faces.embed([], [])) == 0


def test_vectors_have_length_one_and_do_not_depend_on_their_batch(faces):
  frames = [astronaut(), astronaut_crop(60, 0, 380, 320)]
  found = [faces.find([frame])[0][0] for frame in frames]
  together = faces.embed(frames, found)
  alone = np.concatenate([faces.embed([f], [x]) for f, x in zip(frames, found, strict=True)])
  np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
  np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_threshold_tells_a_person_moved_and_relit_from_another(faces):
  wide, near_by = astronaut_crop(60, 0, 380, 320), astronaut_crop(75, 10, 395, 330)
  frames = [wide, np.uint8(0.8 * near_by), driver()[0]]
  found = [faces.find([frame])[0][0] for frame in frames]
  one, same, other = faces.embed(frames, found)
  assert one @ same >= faces.threshold > one @ other


def test_a_crop_is_the_square_around_a_face_and_black_beyond_the_picture():
  frame = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3) + 1
  face = Face(2, 3, 4, 4)
  np.testing.assert_array_equal(crop_face(frame, face, 4), frame[2:6, 3:7])
  np.testing.assert_array_equal(crop_face(frame, face, 6, 0.25), frame[1:7, 2:8])
  edge = crop_face(frame, Face(-2, 10, 4, 4), 4)
  assert not edge[:2].any() and not edge[:, 2:].any()
  np.testing.assert_array_equal(edge[2:, :2], frame[:2, 10:])
  assert not crop_face(frame, Face(50, -50, 4, 4), 8).any()
  assert crop_face(frame, Face(0, 0, 1, 9), 5, 0.3).shape == (5, 5, 3)


def test_a_mask_keeps_the_ellipse_and_nothing_else():
  masked = mask_face(np.full((100, 100, 3), 9, np.uint8))
  assert abs((masked == 9).mean() - np.pi / 4) < 0.01 and set(np.unique(masked)) == {0, 9}
  assert masked[50, 0].all() and not masked[0, 0].any()


def test_boxes_are_drawn_on_a_copy():
  frame = np.zeros((40, 40, 3), np.uint8)
  drawn = draw_faces(frame, [Face(5, 6, 20, 10, np.zeros((5, 2), np.float32))])
  assert not frame.any() and drawn[5, 6:16].any(-1).all() and not drawn[10, 10].any()


def test_a_face_scales_with_its_landmarks():
  face = Face(1, 2, 3, 4, np.ones((5, 2), np.float32)).scaled(2)
  assert (face.top, face.left, face.height, face.width) == (2, 4, 6, 8) and (face.points == 2).all()
  assert face.within(8, 16) == (0.25, 0.25, 0.75, 0.5)


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('casade', 'cascade'),
    ('', 'unknown key'),
    ('arcface', 'arcface:FILE.onnx'),
    ('arcface:', 'arcface:FILE.onnx'),
    ('dlip+cascade', 'dlib'),
    ('arcface:/nowhere.onnx', 'there is no file'),
    ('cascade:x', 'arcface:FILE.onnx'),
  ],
)
def test_a_name_that_is_none_is_a_sentence(name, said):
  with pytest.raises(ConfigError, match=said):
    open_faces(name)
