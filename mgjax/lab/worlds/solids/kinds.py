"""What solids are made of and may do: shapes, materials, colours, sizes, motions, camera moves.

Lengths are units of about two metres (gravity is 9.81 m/s² there), so that falling things can be
followed at 8 frames a second. Colours are as displayed, red, green and blue in [0, 1].
"""

import dataclasses
import math
from typing import NamedTuple

GRAVITY = 5.0  # units/s²


class Shape(NamedTuple):
  """An upright convex solid: what of x² + y² + b z² + 2 c z + d <= 0 lies in a box around 0.

  All lengths are of a solid of size 1. What has no quadric or no box has one that is out of reach.
  """

  quadric: tuple[float, float, float]  # b, c, d
  box: tuple[float, float]  # half of the width, half of the height
  radius: float  # of the circle that it fills, or that surrounds it, seen from above
  rest: float  # how high its centre lies above the floor
  volume: float


_FAR = 1e3


def _cone(radius: float, half: float) -> Shape:
  slope = (radius / (2 * half)) ** 2  # x² + y² = slope (half - z)²
  quadric = (-slope, slope * half, -slope * half**2)
  return Shape(quadric, (_FAR, half), radius, half, math.pi * radius**2 * 2 * half / 3)


SHAPES = {
  'ball': Shape((1.0, 0.0, -1.0), (_FAR, _FAR), 1.0, 1.0, 4 / 3 * math.pi),
  'cube': Shape((0.0, 0.0, -(_FAR**2)), (0.8, 0.8), 0.8 * math.sqrt(2), 0.8, 1.6**3),
  'cylinder': Shape((0.0, 0.0, -(0.8**2)), (_FAR, 0.95), 0.8, 0.95, math.pi * 0.8**2 * 1.9),
  'cone': _cone(1.0, 1.0),
}


class Material(NamedTuple):
  """The weight, restitution, friction, shine and audio of a material."""

  word: str  # in captions
  density: float  # mass of a unit of volume; of hollow things, so that none moves all others
  bounce: float  # restitution: speed after an impact on the floor, of that before it
  rolling: float  # deceleration on the floor, units/s²
  sliding: float
  mirror: float  # share of what is reflected of floor and sky
  glow: float  # share of light that passes through
  shine: float  # strength of the highlight
  gloss: float  # how narrow it is
  grain: float  # contrast of growth rings
  pitch: float  # Hz of the lowest mode of a solid of size 1
  damping: float  # 1/s of that mode
  brightness: float  # what each mode has of the strength of the mode below it


MATERIALS = {
  'rubber': Material('rubber', 0.9, 0.82, 0.22, 1.3, 0.0, 0.0, 0.10, 6.0, 0.0, 55.0, 70.0, 0.55),
  'metal': Material('metal', 1.6, 0.74, 0.10, 0.7, 0.78, 0.0, 1.0, 60.0, 0.0, 380.0, 5.0, 0.9),
  'wood': Material('wooden', 1.0, 0.56, 0.16, 0.9, 0.0, 0.0, 0.04, 8.0, 0.62, 150.0, 38.0, 0.7),
  'glass': Material('glass', 1.3, 0.68, 0.12, 0.6, 0.0, 0.7, 1.3, 120.0, 0.0, 640.0, 12.0, 0.85),
}
FLOOR = 'floor'  # the other material of what lands
LANDING = 0.3  # of its bounce is left to what lands on a flat side

COLOURS = {
  'red': (0.87, 0.11, 0.10),
  'green': (0.10, 0.62, 0.18),
  'blue': (0.11, 0.25, 0.88),
  'yellow': (0.96, 0.82, 0.08),
  'purple': (0.55, 0.14, 0.70),
  'cyan': (0.10, 0.78, 0.82),
  'white': (0.94, 0.94, 0.94),
}
# Pattern -> its words in captions. Whatever turns has one, or nobody would see it turn.
PATTERNS = {
  'band': 'with a {} band',
  'dots': 'with {} dots',
  'checks': 'with {} checks',
  'halves': 'with one {} half',
}


class Span(NamedTuple):
  """Ends of a range of numbers, of which one is drawn."""

  least: float
  most: float


# Size -> in training, and outside of what training shows.
SIZES = {
  'small': (Span(0.41, 0.47), Span(0.29, 0.34)),
  'large': (Span(0.58, 0.66), Span(0.76, 0.84)),
}
# Verb -> speed at the beginning, units/s, the same way; in between lie no words.
SPEEDS = {
  'rolls': (Span(0.6, 1.2), Span(1.5, 1.9)),
  'slides': (Span(1.0, 1.6), Span(1.9, 2.3)),
  'bounces': (Span(0.35, 0.7), Span(0.85, 1.1)),
}
HEIGHTS = Span(0.8, 1.5)  # that things fall from, above where they come to rest
SPINS = Span(1.5, 3.0)  # radians/s
DIRECTIONS = {'left': (-1.0, 0.0), 'right': (1.0, 0.0), 'away': (0.0, 1.0), 'closer': (0.0, -1.0)}
_WAYS = {
  'stands still': ('', ''),
  **{f'{verb} {way}': (verb, way) for verb in ('rolls', 'slides') for way in DIRECTIONS},
  **{f'bounces {way}': ('bounces', way) for way in ('left', 'right')},
  'bounces': ('bounces', ''),
  'falls': ('falls', ''),
  'spins': ('spins', ''),
}


class Motion(NamedTuple):
  """What a solid does before it meets another: a verb, '' for none, and a direction or ''."""

  verb: str
  direction: str


MOTIONS = {name: Motion(*ways) for name, ways in _WAYS.items()}


def motions_of(shape: str) -> tuple[str, ...]:
  """Lists what a shape may do: balls roll and bounce, all others slide and fall."""
  others = ('slides', 'falls') if shape == 'ball' else ('rolls', 'bounces')
  return tuple(name for name, motion in MOTIONS.items() if motion.verb not in others)


@dataclasses.dataclass(frozen=True)
class Move:
  """A camera move: how far it goes in a clip, in which unit, and its sign."""

  amounts: Span
  unit: str  # 'degrees'; 'times', the focal length; 'units', what is drawn of none
  sign: int


CAMERAS = {
  'stands still': Move(Span(0.0, 0.0), 'degrees', 0),
  'pans left': Move(Span(10.0, 24.0), 'degrees', -1),
  'pans right': Move(Span(10.0, 24.0), 'degrees', 1),
  'tilts up': Move(Span(7.0, 12.0), 'degrees', 1),
  'tilts down': Move(Span(7.0, 12.0), 'degrees', -1),
  'zooms in': Move(Span(1.3, 1.8), 'times', 1),
  'zooms out': Move(Span(1.3, 1.8), 'times', -1),
  'circles left': Move(Span(25.0, 70.0), 'degrees', -1),
  'circles right': Move(Span(25.0, 70.0), 'degrees', 1),
  'follows': Move(Span(0.0, 0.0), 'units', 1),
}
FLOORS = {
  'grey': (0.56, 0.56, 0.57),
  'slate': (0.42, 0.46, 0.52),
  'sand': (0.63, 0.58, 0.49),
  'clay': (0.55, 0.45, 0.39),
  'moss': (0.44, 0.49, 0.41),
}
SKIES = {
  'blue': (0.66, 0.78, 0.92),
  'evening': (0.93, 0.78, 0.62),
  'grey': (0.72, 0.75, 0.79),
  'dusk': (0.56, 0.56, 0.70),
}
