"""Identity, its consistency and copying, from embeddings and poses alone."""

import itertools

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.evaluation.metrics.identity import copying, identity_shares, resemblance

GENERATOR = np.random.default_rng(0)
PERSON, OTHER = np.eye(8)[:2]


def cosine(a, b):
  return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_best_worst_and_consecutive_are_as_loops_say():
  frames, references = GENERATOR.normal(size=(5, 8)), GENERATOR.normal(size=(3, 8))
  found = resemblance(frames * [[1], [2], [3], [4], [5]], references)  # lengths do not count
  towards = np.mean([row / np.linalg.norm(row) for row in references], 0)
  cosines = [cosine(frame, towards) for frame in frames]
  pairs = [cosine(a, b) for a, b in itertools.pairwise(frames)]
  assert found.best == pytest.approx(max(cosines)) and found.worst == pytest.approx(min(cosines))
  assert found.consecutive == pytest.approx(pairs) and found.found == 1


def test_frames_without_a_face_are_left_out():
  lost = np.full(8, np.nan)
  found = resemblance(np.stack([PERSON, lost, PERSON, OTHER]), PERSON[None])
  assert (found.best, found.worst, found.consecutive, found.found) == (1, 0, (0,), 0.75)
  nobody = resemblance(np.stack([lost, lost]), PERSON[None])
  assert np.isnan(nobody.best) and np.isnan(nobody.worst) and nobody.consecutive == ()
  shares = identity_shares([found, nobody], 0.5)
  assert (shares['best'].value, shares['worst'].value) == (0.5, 0)
  assert shares['consistency'].value == 0
  assert 'consistency' not in identity_shares([nobody], 0.5)
  for references in (np.zeros((0, 8)), np.full((1, 8), np.nan)):
    with pytest.raises(DataError, match='references, of which'):
      resemblance(PERSON[None], references)


def test_shares_are_those_above_the_threshold():
  near = PERSON + 0.5 * OTHER  # a cosine of .894
  videos = [resemblance(np.stack(frames), PERSON[None]) for frames in ((near, near), (near, OTHER))]
  shares = identity_shares(videos, 0.8)
  assert (shares['best'].value, shares['worst'].value) == (1, 0.5)
  assert shares['consistency'].value == 0.5 and shares['consistency'].count == 2
  assert identity_shares(videos, 0.9)['best'].value == 0


def test_pasting_is_copying_and_independence_is_not():
  references = {'turn': GENERATOR.uniform(-30, 30, 200), 'place': GENERATOR.uniform(-9, 9, 200)}
  noise = GENERATOR.normal(size=200)
  found = copying(references, {'turn': references['turn'] + noise, 'place': noise})
  assert found['turn'].low > 0.99
  assert found['place'].low < 0 < found['place'].high
  assert abs(found['place'].value) < 2 * found['place'].chance
  half = copying({'turn': references['turn']}, {'turn': references['turn'] / 17.3 + noise})
  # r = 1 / sqrt(2) of signal and noise alike; 4 standard errors (1 - r^2) / sqrt(n).
  assert half['turn'].value == pytest.approx(0.5**0.5, abs=4 * 0.5 / 200**0.5)
