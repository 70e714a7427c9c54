"""Thresholds lie where the errors are least, and the intervals count people, not pairs."""

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.media.faces.recognition import open_faces
from mgjax.data.media.video import write_video
from mgjax.lab.curation.people import face_calibration as calibration
from tests.data.media.faces.pictured import astronaut_crop, driver


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


def folder_of_people(folder):
  for n, place in enumerate(((60, 0, 380, 320), (75, 10, 395, 330), (90, 0, 390, 300))):
    (folder / 'collins').mkdir(parents=True, exist_ok=True)
    Image.fromarray(astronaut_crop(*place)).save(folder / 'collins' / f'{n}.png')
  (folder / 'driver').mkdir()
  write_video(folder / 'driver' / 'a.mp4', driver(), 10)
  Image.new('RGB', (64, 64)).save(folder / 'driver' / 'black.jpg')
  return folder


def test_a_folder_of_people_calibrates(tmp_path):
  faces, folder = open_faces('cascade'), folder_of_people(tmp_path / 'people')
  lines, rejected = calibration.calibrate_folder(folder, faces)
  assert 'of 2 people' in lines[0]
  hardest = lines[lines.index('one person, least alike:') + 1]
  assert 'collins/' in hardest or 'driver/a.mp4, frame' in hardest
  assert 'collins/' in lines[-1] and 'driver/a.mp4' in lines[-1]
  assert {each.name: each.reason for each in rejected}['driver/black.jpg'] == (
    'shows no face, expected one'
  )
  with pytest.raises(DataError, match='one folder a person'):
    calibration.calibrate_folder(folder / 'driver', faces)
  with pytest.raises(DataError, match='two people at least'):
    (tmp_path / 'one' / 'x').mkdir(parents=True)
    Image.new('RGB', (64, 64)).save(tmp_path / 'one' / 'x' / 'a.png')
    calibration.calibrate_folder(tmp_path / 'one', faces)
