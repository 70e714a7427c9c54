"""Pictures of one solid in other surroundings: turned, lit and placed otherwise.

An object is what stays the same from one scene to another: its shape, colour, material, pattern and
the pattern's colour. A reference is a picture that it fills; a view shows it from where clips do.
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from mgjax.lab.worlds.solids.kinds import COLOURS, FLOORS, MATERIALS, PATTERNS, SHAPES, SIZES, SKIES
from mgjax.lab.worlds.solids.scene import Camera, Scene, Solid

_FAR, _NEAR = (5.0, 5.4), (2.9, 3.5)  # units from the camera, of a view and of a reference


def object_of(solid: Solid) -> int:
  """Returns a number for the object; it does not depend on size, position and motion."""
  number = 0
  for name, names in (
    ('shape', SHAPES),
    ('colour', COLOURS),
    ('material', MATERIALS),
    ('pattern', PATTERNS),
    ('second', ('', *COLOURS)),
  ):
    number = number * len(names) + list(names).index(getattr(solid, name))
  return number


def portrait(scene: Scene, generator: np.random.Generator, close_up: bool) -> Scene:
  """Returns a scene of the first solid alone: a `close_up` that fills the picture, or as in clips.

  In close-ups all solids have one size, because such a picture does not show the size.
  """

  def one(names: Iterable[str]) -> str:
    return (choices := tuple(names))[generator.integers(len(choices))]

  side = 0.15 if close_up else 0.8
  middle = sum(SIZES['large'][0]) / 2
  solid = dataclasses.replace(
    scene.solids[0],
    motion='stands still',
    velocity=(0.0, 0.0),
    height=0.0,
    spin=0.0,
    size=middle if close_up else scene.solids[0].size,
    place=tuple(generator.uniform(-side, side, 2).tolist()),
    yaw=float(generator.uniform(-math.pi, math.pi)),
  )
  camera = Camera(
    azimuth=float(generator.uniform(-0.6, 0.6)),
    elevation=float(generator.uniform(0.3, 0.7)),
    distance=float(generator.uniform(*(_NEAR if close_up else _FAR))),
  )
  light = (float(generator.uniform(-1.5, 1.5)), float(generator.uniform(0.6, 1.2)))
  return Scene((solid,), camera, light=light, floor=one(FLOORS), sky=one(SKIES), moment=0.0)
