"""Says whose handwriting a synthetic clip or picture shows, and in which pose.

What the judge of digits sees of a clip, its mean with motion taken out, is compared with candidates
drawn in a grid of poses p: a turn and a weight of strokes. Both pass the same band of frequencies,
Gaussians of 1 pixel of 32 less those of 3, because autoencoders lose what is finer:

  (identity, p) = argmax <B x, B r(identity, p)> / (|B x| |B r(identity, p)|)

over shifts of half a pixel as well. The grid is wider than the poses that clips have. So a
reference that is merely pasted, turned and re-weighted differs from a clip: it shows the right
handwriting in a pose that no clip has (`IdentityJudge.allows`).
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Magnitude
from mgjax.core.typing import Float, UInt8
from mgjax.lab.worlds.digits.handwriting import identities_of, image_of
from mgjax.lab.worlds.digits.judges.digit import (
  CROP,
  SIDE,
  THRESHOLD,
  blurring,
  find_digit,
  middles,
)
from mgjax.lab.worlds.digits.render import stretching, weighted, written
from mgjax.lab.worlds.digits.scene import DigitSize

CANDIDATES = 20
_TURNS = np.arange(-35, 35.1, 2.5)  # degrees; a step beyond those of references
_WEIGHTS = np.arange(-1.25, 1.26, 0.25)
_MARGIN = (5.0, 0.25)  # turn and weight by which estimates may err, see docs/reference/digits.md
_BAND = (1.0, 3.0)  # standard deviations of Gaussians, pixels of 32
_STRIDE = 2  # pixels, between samples of what has passed the band
_SHIFTS = (-0.5, 0.0, 0.5)  # pixels


class Pose(NamedTuple):
  """How handwriting stands in a clip; NaN where there is none."""

  turn: float  # degrees, see `Scene.turn`
  weight: float  # of its strokes, see `Scene.weight`
  y: float  # of its centre from that of the frame, pixels of 32; of a clip the mean over its frames
  x: float


class Likeness(NamedTuple):
  """Whom a clip resembles most: one of the candidates, -1 if nothing stands out of it."""

  identity: int  # of the handwriting
  pose: Pose  # in which it is most alike
  match: float  # the correlation, at most 1


NOBODY = Likeness(-1, Pose(*[float('nan')] * 4), float('nan'))


@dataclasses.dataclass(frozen=True)
class IdentityJudge(Checked):
  """Finds one of several candidates in clips of any size and frame count."""

  turns: Magnitude = 10.0  # of the handwriting of clips, degrees, at most
  weights: Magnitude = 0.5  # of their strokes, at most, up and down
  digit_size: DigitSize = 14.0  # of a digit's side, pixels of 32

  def find(self, video: UInt8[np.ndarray, 't h w 3'], candidates: tuple[int, ...]) -> Likeness:
    """Returns the candidate, in any pose, that a clip or a picture of one frame resembles most.

    With one candidate, it estimates the pose in which the clip shows it.
    """
    sight = find_digit(video)
    if not sight.colour:
      return NOBODY
    pictures = np.stack([_passed(sight.picture, y, x) for y in _SHIFTS for x in _SHIFTS])
    pictures = _unit(pictures).T  # d s
    banks = [_portraits(identity, self.digit_size) for identity in candidates]
    matches = [portraits @ pictures for portraits, _ in banks]  # p s
    best = int(np.argmax([match.max() for match in matches]))
    best_portrait, shift = np.unravel_index(matches[best].argmax(), matches[best].shape)
    y, x = (
      sight.centre
      + np.array([_SHIFTS[shift // len(_SHIFTS)], _SHIFTS[shift % len(_SHIFTS)]])
      - banks[best][1][best_portrait]
    )
    grid = matches[best][:, shift].reshape(len(_TURNS), len(_WEIGHTS))
    i, j = divmod(int(best_portrait), len(_WEIGHTS))
    pose = Pose(_peak(_TURNS, grid[:, j], i), _peak(_WEIGHTS, grid[i], j), float(y), float(x))
    return Likeness(int(candidates[best]), pose, float(grid[i, j]))

  def allows(self, pose: Pose) -> bool:
    """Whether clips have such a turn and weight, give or take what an estimate errs by."""
    turn, weight = _MARGIN
    return abs(pose.turn) <= self.turns + turn and abs(pose.weight) <= self.weights + weight


def candidates_for(identity: int, seed: int = 0, count: int = CANDIDATES) -> tuple[int, ...]:
  """Returns `count` identities of one digit, this one first. Raises ConfigError if too few."""
  digit = image_of(identity)[1]
  identities = [candidate for candidate in identities_of('test', digit) if candidate != identity]
  if len(identities) < count - 1:
    raise ConfigError(
      f"{count} candidates are asked for, 'test' has {len(identities)} other images of {digit}"
    )
  chosen = np.random.default_rng((seed, identity)).choice(identities, count - 1, replace=False)
  return identity, *chosen.tolist()


@functools.lru_cache(maxsize=1024)
def _portraits(
  identity: int, digit_size: float
) -> tuple[Float[np.ndarray, 'p d'], Float[np.ndarray, 'p 2']]:
  """Draws a hand in every pose: rows of unit length; and how far its light lies from its centre."""
  turned = np.stack([written((identity,), turn) for turn in _TURNS.tolist()])
  images = weighted(turned[:, None], _WEIGHTS[:, None, None]).reshape(-1, 8, 8)
  start = np.array([(SIDE - digit_size) / 2])
  blurred = blurring(SIDE) @ stretching(start, SIDE, digit_size, 8)[0]
  strength = blurred @ images @ blurred.T
  centre = middles(np.where(strength > THRESHOLD, strength, 0))  # p 2
  # Averaged over places between pixels, a clip is seen through a triangle of two pixels.
  rows, columns = (
    sum(
      share * stretching(start - axis + (CROP - 1) / 2 + offset, CROP, digit_size, 8)
      for offset, share in ((-0.5, 0.25), (0.0, 0.5), (0.5, 0.25))
    )
    for axis in centre.T
  )
  views = rows @ images @ columns.transpose(0, 2, 1)
  return _unit(_passed(views)), centre - (SIDE - 1) / 2


def _passed(
  pictures: Float[np.ndarray, '*p i j'], y: float = 0.0, x: float = 0.0
) -> Float[np.ndarray, '*p a b']:
  """What of pictures passes the band, sampled (y, x) beside their pixels."""
  fine, coarse = (_gaussian(y, width) @ pictures @ _gaussian(x, width).T for width in _BAND)
  return fine - coarse


@functools.cache
def _gaussian(shift: float, width: float) -> Float[np.ndarray, 'a i']:
  places = np.arange(_STRIDE / 2 - 0.5, CROP, _STRIDE) + shift
  weights = np.exp(-0.5 * (np.subtract.outer(places, np.arange(CROP)) / width) ** 2)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _unit(pictures: Float[np.ndarray, 'p a b']) -> Float[np.ndarray, 'p d']:
  rows = pictures.reshape(len(pictures), -1)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _peak(places: Float[np.ndarray, 'n'], values: Float[np.ndarray, 'n'], best: int) -> float:
  """The place of the top of a parabola through the largest of values and its neighbours."""
  offset = 0.0
  if 0 < best < len(values) - 1:
    before, top, after = values[best - 1 : best + 2]
    if (bend := before - 2 * top + after) < 0:
      offset = float(np.clip((before - after) / (2 * bend), -0.5, 0.5))
  return float(places[best] + offset * (places[1] - places[0]))
