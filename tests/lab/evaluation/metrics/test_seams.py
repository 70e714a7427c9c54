"""A joint that is heard is told from one that is not."""

import numpy as np
import pytest

from mgjax.lab.evaluation.metrics.seams import gather_seams

RATE = 16_000
SEAMS = np.array([2.0, 4.1, 6.3, 8.2])
SECONDS = 10


def now():
  return np.arange(SECONDS * RATE) / RATE


def hum(frequency=220.0, phase=0.0):
  return 0.3 * np.sin(2 * np.pi * frequency * now() + phase)


def noise(seed=0):
  return np.random.default_rng(seed).normal(size=SECONDS * RATE) * 0.05


def alternate(first, second):
  """One sound and the other, changing at each seam."""
  odd = np.searchsorted(SEAMS, now(), side='right') % 2 == 1
  return np.where(odd, second, first)[:, None].astype(np.float32)


@pytest.mark.parametrize('background', [0.0, 1.0])
@pytest.mark.parametrize(
  ('first', 'second'),
  [(hum(), hum(330.0)), (hum(), hum(phase=np.pi)), (noise(), 10 * noise(1)), (hum(), 0 * hum())],
  ids=['another tone', 'another phase', 'louder', 'silence'],
)
def test_a_seam_that_is_heard_stands_out(first, second, background):
  rough = background * np.random.default_rng(5).normal(size=len(first)) * 1e-3
  seams = gather_seams([(alternate(first + rough, second + rough), SEAMS)], RATE)
  assert seams.ratio > 2
  assert seams.rank > 0.99
  assert seams.seams == 4


@pytest.mark.parametrize('sound', [hum(), noise(), 0 * hum()], ids=['hum', 'noise', 'silence'])
def test_a_seam_that_is_no_seam_does_not(sound):
  seams = gather_seams([(alternate(sound, sound), SEAMS)], RATE)
  # The largest of eight looks at noise varies by a few percent from place to place; four of them
  # rank anywhere with a mean of a half and a deviation of .29 / 2.
  assert seams.ratio == pytest.approx(1, abs=0.1)
  assert 0.5 - 0.44 < seams.rank < 0.5 + 0.44
  assert seams.places > 150


def test_seams_at_times_of_loud_events_elsewhere_rank_in_the_middle():
  generator = np.random.default_rng(0)
  sound = noise() * 0.1
  for begin in generator.uniform(0.2, 9.5, 60):
    first = int(begin * RATE)
    sound[first : first + 800] += generator.normal(size=800) * 0.3
  seams = gather_seams([(sound[:, None].astype(np.float32), np.linspace(0.5, 9.5, 12))], RATE)
  assert 0.2 < seams.rank < 0.8


def test_stereo_is_heard_on_both_sides():
  left, right = alternate(hum(), hum()), alternate(hum(), hum(330.0))
  both = np.concatenate([left, right], 1)
  assert gather_seams([(both, SEAMS)], RATE).rank > 0.99
  seams = gather_seams([(left, SEAMS), (right, SEAMS)], RATE)
  assert seams.seams == 8 and 0.6 < seams.rank < 0.99  # one sound has seams, one has none
