"""Thresholds lie where the errors are least, and the intervals count people, not pairs."""

import numpy as np
import pytest
from PIL import Image

from mgjax.media.faces import calibration


def unit(vectors):
  vectors = np.asarray(vectors, np.float32)
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def people(count=6, pictures=3, noise=0.3, seed=0):
  generator = np.random.default_rng(seed)
  return {
    f'person {n}': unit(
      generator.standard_normal(16) + noise * generator.standard_normal((pictures, 16))
    )
    for n in range(count)
  }


def pairs(cosines, trials=4):
  return calibration.Pairs(np.array(cosines), [(0, 1)] * len(cosines), trials)


def test_all_pairs_are_those_of_one_person_and_those_of_two():
  known = people() | {'once': unit(np.ones((1, 16)))}
  same, different = calibration.all_pairs(known)
  vectors = np.concatenate(list(known.values()))
  assert len(same.cosines) == 6 * 3 and len(different.cosines) == 19 * 18 / 2 - 18
  assert (same.trials, different.trials) == (6, 3)
  for found in (same, different):
    for cosine, (a, b) in zip(found.cosines, found.places, strict=True):
      assert cosine == pytest.approx(float(vectors[a] @ vectors[b]), abs=1e-6)
  assert all(a // 3 == b // 3 for a, b in same.places)


def test_people_apart_are_told_apart_in_the_middle_of_the_gap():
  found = calibration.calibrate(pairs([0.8, 0.9]), pairs([0.1, 0.4]))
  assert found.threshold == pytest.approx(0.6)
  assert found.missed[0] == found.confused[0] == 0


def test_the_threshold_makes_the_worse_error_least():
  generator = np.random.default_rng(0)
  same, different = pairs(generator.normal(1, 1, 300)), pairs(generator.normal(-1, 1, 500))
  found = calibration.calibrate(same, different)
  worse = max(found.missed[0], found.confused[0])
  for threshold in np.linspace(-3, 3, 200):
    other = calibration.errors_at(threshold, same, different)
    assert max(other.missed[0], other.confused[0]) >= worse - 1e-12
  assert abs(found.threshold) < 0.3


def test_intervals_are_wilsons():
  # Newcombe, 1998, Statistics in Medicine 17, table I, method 3.
  for part, trials, low, high in (
    (81, 263, 0.2553, 0.3662),
    (0, 20, 0, 0.1611),
    (1, 29, 0.0061, 0.1718),
  ):
    assert calibration.wilson_interval(part / trials, trials) == pytest.approx(
      (low, high), abs=1e-4
    )


def test_the_page_shows_both_histograms_and_the_threshold(tmp_path):
  same, different = calibration.all_pairs(people())
  crops = [np.full((20, 20, 3), 200, np.uint8)] * 18
  found = calibration.calibrate(same, different)
  calibration.draw_calibration(tmp_path / 'page.png', 'six people', same, different, found, crops)
  with Image.open(tmp_path / 'page.png') as page:
    colours = {colour for _, colour in page.convert('RGB').getcolors(1 << 20)}
    assert f'{found.threshold:.3f}' in page.info['Description']
  assert {(43, 138, 62), (196, 82, 28), (60, 60, 60), (200, 200, 200)} <= colours
