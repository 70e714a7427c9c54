"""Directional similarity is the cosine of two ways, and says so where there is no way."""

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.evaluation.metrics.directional import directional_similarity


def given(clips=5, frames=3, d=8) -> list[np.ndarray]:
  generator = np.random.default_rng(0)
  shapes = (clips, frames, d), (clips, frames, d), (clips, d), (clips, d)
  return [generator.standard_normal(shape) for shape in shapes]


def cosine(x: np.ndarray, y: np.ndarray) -> float:
  return float(x @ y / np.sqrt(x @ x) / np.sqrt(y @ y))


def test_it_is_the_cosine_of_both_ways_frame_by_frame():
  before, after, source, target = given()
  found = directional_similarity(*(each.astype(np.float32) for each in given()))

  def unit(x):
    return x / np.sqrt((x * x).sum())

  for clip in range(5):
    said = unit(target[clip]) - unit(source[clip])
    ways = [unit(after[clip, t]) - unit(before[clip, t]) for t in range(3)]
    # Vectors came rounded to float32: an error of 6e-8 of lengths near 1, over ways as long.
    assert found.direction[clip] == pytest.approx(
      np.mean([cosine(w, said) for w in ways]), abs=1e-6
    )
    same = np.mean([cosine(after[clip, t], target[clip]) for t in range(3)])
    assert found.output[clip] == pytest.approx(same, abs=1e-6)


def test_an_edit_along_the_captions_is_1_and_one_against_them_is_less():
  source, target = np.eye(4)[:1], np.eye(4)[1:2]
  there = directional_similarity(source[:, None], target[:, None], source, target)
  back = directional_similarity(target[:, None], source[:, None], source, target)
  assert there.direction == pytest.approx(1) and there.output == pytest.approx(1)
  assert back.direction == pytest.approx(-1) and back.output == pytest.approx(0)


def test_only_directions_of_vectors_count():
  parts = given()
  longer = [each * factor for each, factor in zip(parts, (2, 0.5, 3, 7), strict=True)]
  np.testing.assert_allclose(
    directional_similarity(*longer).direction, directional_similarity(*parts).direction, atol=1e-12
  )


def test_a_clip_that_stayed_goes_no_way_and_captions_that_agree_name_none():
  before, after, source, target = given()
  after[0] = before[0]
  target[1] = source[1]
  found = directional_similarity(before, after, source, target)
  assert found.direction[0] == 0 and np.isnan(found.direction[1])
  assert np.isfinite(found.direction[2:]).all() and np.isfinite(found.output).all()


def test_what_does_not_belong_together_is_refused():
  before, after, source, target = given()
  with pytest.raises(DataError, match='expected'):
    directional_similarity(before, after[:, :2], source, target)
  with pytest.raises(DataError, match='expected'):
    directional_similarity(before, after, source[:2], target)
