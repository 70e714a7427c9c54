"""What is seen of clips of moving digits, as rows of numbers: for Frechet distances between sets.

The judge says of one clip whether it is as asked. These numbers say of many how they are spread:
shapes of the digits, tints and ways, in standard deviations of true clips. A distance of such rows
(`mgjax.lab.evaluation.metrics.frechet`) plays the part that FVD has elsewhere, with the judge's eye
for a network; it is no FVD, and compares only with others of the same rows.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.typing import Float
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.digit import Sight, find_digit

SHAPES = 16  # leading components of the crops: nine tenths of how handwriting differs
_CLIPS = 500  # true ones that say what is usual
_LEAST = 1e-6  # of a deviation: what never changes stays near 0


class DigitFeatures(NamedTuple):
  """How rows are made of clips."""

  mean: Float[np.ndarray, 'd']  # of the crops of true clips
  shapes: Float[np.ndarray, 'k d']  # their leading components, of unit length
  usual: Float[np.ndarray, 'f']  # means of all numbers of true clips
  deviation: Float[np.ndarray, 'f']  # standard deviations of the same

  def rows(self, videos: Iterable[np.ndarray]) -> Float[np.ndarray, 'n f']:
    """Returns a row of numbers a clip, uint8 (t h w 3): of the shape, the tint and the way."""
    sights = [find_digit(np.asarray(video)) for video in videos]
    return (_raw(sights, self.mean, self.shapes) - self.usual) / self.deviation


def fit_features(clips: int = _CLIPS, seed: int = 0, **world: Any) -> DigitFeatures:
  """Learns what is usual from true clips of training handwriting; `world` is of `Digits`."""
  source = Digits(captions='all', length=clips, seed=seed, **world)
  sights = [find_digit(source[index]['video']) for index in range(clips)]
  crops = np.stack([sight.crop for sight in sights])
  mean = crops.mean(0)
  shapes = np.linalg.svd(crops - mean, full_matrices=False)[2][:SHAPES]
  raw = _raw(sights, mean, shapes)
  return DigitFeatures(mean, shapes, raw.mean(0), np.maximum(raw.std(0), _LEAST))


def _raw(
  sights: list[Sight], mean: Float[np.ndarray, 'd'], shapes: Float[np.ndarray, 'k d']
) -> Float[np.ndarray, 'n f']:
  crops = np.stack([sight.crop for sight in sights])
  tints_and_paths = np.stack([np.concatenate([sight.tint, _way(sight.path)]) for sight in sights])
  return np.concatenate([(crops - mean) @ shapes.T, tints_and_paths], axis=1)


def _way(path: Float[np.ndarray, 't 2']) -> Float[np.ndarray, '4']:
  """Returns how far the later half of a path is from the earlier one, and how far it spreads."""
  there = path[np.isfinite(path).all(1)]
  if len(there) < 2:
    return np.zeros(4)
  half = len(there) // 2
  return np.concatenate([there[-half:].mean(0) - there[:half].mean(0), there.std(0)])
