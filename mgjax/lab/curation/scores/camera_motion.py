"""How the camera moves in a shot, of the paper's 16 classes (Movie Gen §3.2.1).

Between two frames a partial affine model is fitted to optical flow, robustly. With places p from
the centre of a frame, in pixels, and s = e^growth,

  p' = s R(turn) p + (x, y)

so that four numbers a pair say where the camera goes. They become speeds of the picture in shorter
sides a second: (x, y) divided by the shorter side, growth and turn times the mean distance of a
pixel from the centre. What counts in a shot is their mean; what is left of them when a second's
mean is taken away is shake.

A model of the plane separates a static from a handheld shot, and directions. It cannot separate a
camera that turns from one that moves. A pan and a truck to the right shift a picture in the same
way, and a zoom and a push enlarge it in the same way. Behind the subject of a tracking or an arc
shot the background moves in the same way. Those 14 of the 16 classes are therefore answered in
seven pairs, such as 'pan or truck right'. A camera that rolls has no class in the paper and is
called 'roll'; what is none of these is 'unknown'.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from mgjax.core.settings import Checked, Fraction, Magnitude, Positive, Range
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.optical_flow import flow_of_luma, opencv

STATIC = 'static shot'
HANDHELD = 'handheld shot'
FOLLOWING = 'tracking or arc shot'
ROLL = 'roll'
UNKNOWN = 'unknown'
# What a model of the plane answers -> the classes of the paper that it may be.
ANSWERS: dict[str, tuple[str, ...]] = {
  STATIC: ('static shot',),
  HANDHELD: ('handheld shot',),
  FOLLOWING: ('tracking shot', 'arc shot'),
  'pan or truck right': ('pan right', 'truck right'),
  'pan or truck left': ('pan left', 'truck left'),
  'tilt or pedestal up': ('tilt up', 'pedestal up'),
  'tilt or pedestal down': ('tilt down', 'pedestal down'),
  'zoom or push in': ('zoom in', 'push in'),
  'zoom or pull out': ('zoom out', 'pull out'),
}
# Of each direction: the answer where its number is positive, and where it is negative. What is seen
# goes left when the camera goes right.
_SIGNS = (
  ('pan or truck left', 'pan or truck right'),
  ('tilt or pedestal up', 'tilt or pedestal down'),
  ('zoom or push in', 'zoom or pull out'),
  (ROLL, ROLL),
)
_GRID = 6  # pixels between the places that a model is fitted to
_TEXTURE = 1e-4  # least eigenvalue of the structure tensor of 7 x 7 pixels: flatter places lie
_WINDOW = 7
_FEWEST = 16  # places that a model needs
_APART = 1.5  # pixels from the model at which a place moves on its own
_MIDDLE = 0.3  # shorter sides around the centre: there stands what is followed, if anything is
_SMOOTHED = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class CameraSettings(Checked):
  """What counts as a move; none of the numbers are in public sources."""

  # Pixels to which the shorter side is shrunk.
  side: Annotated[int, Range(least=32, most=1080)] = 144
  rate: Annotated[float, Range(above=0, most=60)] = 8.0  # frames a second that are measured
  still: Magnitude = 0.015  # shorter sides a second below which a camera stands
  # Shake, in shorter sides a second, below which a camera stands on something.
  tremble: Magnitude = 0.04
  followed: Fraction = 0.4  # share of the middle that stands while all else moves: it is followed
  least: Fraction = 0.35  # confidence below which the answer is 'unknown'
  prefix: Fraction = 0.6  # confidence from which the answer goes before the caption
  fewest: Positive = 4  # pairs of frames that an answer needs, and half of those of a shot


class PairMotion(NamedTuple):
  """How the picture moved from one frame to another; lengths are in shorter sides."""

  seconds: float
  x: float  # of the centre, to the right
  y: float  # down, likewise
  growth: float  # log of the scale
  turn: float  # clockwise, in radians
  # Share of the textured places, without those that stand, that move as the model says.
  support: float
  standing: float  # share of such places in the middle that stand while the rest moves
  reach: float  # mean distance of a pixel from the centre
  # Mean of what does not move as the model says, beyond that; 0 where there is none.
  own_x: float = 0.0
  own_y: float = 0.0  # down, likewise


def pair_motion(
  before: UInt8[np.ndarray, 'h w'], after: UInt8[np.ndarray, 'h w'], seconds: float
) -> PairMotion | None:
  """Fits the model of the head of this file to two frames; None where there is too little to see.

  Raises:
    ConfigError: OpenCV is not installed.
    DataError: the frames are too small.
  """
  cv2 = opencv()
  flow = flow_of_luma(before, after)
  height, width = before.shape
  grid = np.mgrid[_GRID // 2 : height : _GRID, _GRID // 2 : width : _GRID]
  ys, xs = (axis.ravel() for axis in grid)
  corners = cv2.cornerMinEigenVal(before, _WINDOW)[ys, xs]
  textured = corners > _TEXTURE
  ys, xs = ys[textured], xs[textured]
  moves = flow[ys, xs, ::-1]
  # From the middle of the frame, so that the shift is that of the centre.
  places = np.stack([xs - (width - 1) / 2, ys - (height - 1) / 2], -1).astype(np.float32)
  inside = (np.abs(places + moves) <= (width / 2, height / 2)).all(-1)
  places, moves = places[inside], moves[inside]
  if len(places) < _FEWEST:
    return None
  side = min(height, width)
  middle = np.linalg.norm(places, axis=-1) < _MIDDLE * side
  around = ~middle if (~middle).sum() >= _FEWEST else np.ones_like(middle)
  model, _ = cv2.estimateAffinePartial2D(
    places[around], (places + moves)[around], method=cv2.RANSAC, ransacReprojThreshold=_APART
  )
  if model is None:
    return None
  expected = places @ model[:, :2].T + model[:, 2] - places
  beyond = moves - expected
  own = np.linalg.norm(beyond, axis=-1) > _APART
  background = float(np.linalg.norm(expected, axis=-1).mean())
  stands = own & middle & (np.linalg.norm(moves, axis=-1) < background / 2)
  return PairMotion(
    seconds,
    float(model[0, 2]) / side,
    float(model[1, 2]) / side,
    math.log(math.hypot(model[0, 0], model[1, 0])),
    math.atan2(model[1, 0], model[0, 0]),
    1 - float(own[~stands].mean()) if not stands.all() else 0.0,
    float(stands[middle].mean()) if middle.any() else 0.0,
    _reach(height, width),
    *((beyond[own].mean(0) / side).tolist() if own.any() else ()),
  )


class CameraMotion(NamedTuple):
  """What a shot's camera does."""

  answer: str  # a key of `ANSWERS`, 'roll' or 'unknown'
  confidence: float  # 0 to 1, see `camera_motion`
  speed: float  # of the fastest direction, shorter sides a second
  shake: float  # shorter sides a second


def camera_motion(
  pairs: Sequence[PairMotion | None], settings: CameraSettings = CameraSettings()
) -> CameraMotion:
  """Says what the camera does over the pairs of a shot, in their order.

  With v the means over the pairs of the four speeds, a the largest of them, and shake the root of
  the mean square of what differs from a second's mean, of all four,

    confidence = a^2 / |v|^2  *  |a| / mean |its speeds|  *  a^2 / (a^2 + shake^2)  *  support

  of a direction, with the support doubled, to 1. A handheld shot has shake^2 / (a^2 + shake^2) of
  it, a static one falls from 1 to 1/2 as it comes to the limits of `settings`.
  """
  measured = [pair for pair in pairs if pair is not None and pair.seconds > 0]
  if len(measured) < settings.fewest or 2 * len(measured) < len(pairs):
    return CameraMotion(UNKNOWN, 0.0, 0.0, 0.0)
  moves = [[p.x, p.y, p.growth * p.reach, p.turn * p.reach] for p in measured]
  speeds = np.array(moves) / np.array([[p.seconds] for p in measured])
  width = max(1, round(_SMOOTHED / float(np.median([p.seconds for p in measured]))))
  smooth = _smoothed(speeds, width)
  shake = float(np.sqrt(np.square(speeds - smooth).sum(-1).mean()))
  net = speeds.mean(0)
  travelled = np.abs(smooth).mean(0)
  first = int(np.argmax(np.abs(net)))
  speed = float(abs(net[first]))
  support = min(1.0, 2 * float(np.median([p.support for p in measured])))
  activity = float(travelled.max())
  if activity < settings.still and shake < settings.tremble:
    nearness = max(activity / settings.still, shake / settings.tremble)
    return _answer(STATIC, support * (1 - nearness / 2), speed, shake, settings)
  calm = speed**2 / (speed**2 + shake**2)
  if shake >= max(settings.tremble, speed, activity):  # what goes slowly to and fro does not shake
    return _answer(HANDHELD, support * (1 - calm), speed, shake, settings)
  if speed < settings.still:  # to and fro
    return CameraMotion(UNKNOWN, 0.0, speed, shake)
  dominance = speed**2 / float(np.square(net).sum())
  confidence = dominance * min(1.0, speed / float(travelled[first])) * calm * support
  answer = _SIGNS[first][int(net[first] < 0)]
  if first < 2 and float(np.median([p.standing for p in measured])) >= settings.followed:
    answer = FOLLOWING
  return _answer(answer, confidence, speed, shake, settings)


def _answer(
  answer: str, confidence: float, speed: float, shake: float, settings: CameraSettings
) -> CameraMotion:
  confident = confidence >= settings.least
  return CameraMotion(answer if confident else UNKNOWN, confidence, speed, shake)


def _smoothed(speeds: Float[np.ndarray, 'n 4'], width: int) -> Float[np.ndarray, 'n 4']:
  """Returns means over `width` neighbours, fewer at the ends."""
  kernel = np.ones(width)
  size = len(speeds)
  # 'same' is as long as the longer of the two.
  sums = [np.convolve(column, kernel, 'same')[:size] for column in (*speeds.T, np.ones(size))]
  return np.stack(sums[:4], -1) / sums[4][:, None]


def _reach(height: int, width: int) -> float:
  ys, xs = np.ogrid[:height, :width]
  away = np.hypot(ys - (height - 1) / 2, xs - (width - 1) / 2)
  return float(away.mean()) / min(height, width)
