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
  """Numbers the object that a solid is; the same whatever its size, place and motion."""
  place = 0
  for name, known in (
    ('shape', SHAPES),
    ('colour', COLOURS),
    ('material', MATERIALS),
    ('pattern', PATTERNS),
    ('second', ('', *COLOURS)),
  ):
    place = place * len(known) + list(known).index(getattr(solid, name))
  return place


def portrait(scene: Scene, generator: np.random.Generator, near: bool) -> Scene:
  """Returns a scene of the first solid alone, so `near` that it fills the picture, or as in clips.

  From near all are of one size, which a picture without anything else cannot tell.
  """

  def one(names: Iterable[str]) -> str:
    return (choices := tuple(names))[generator.integers(len(choices))]

  side = 0.15 if near else 0.8
  middle = sum(SIZES['large'][0]) / 2
  solid = dataclasses.replace(
    scene.solids[0],
    motion='stands still',
    velocity=(0.0, 0.0),
    height=0.0,
    spin=0.0,
    size=middle if near else scene.solids[0].size,
    place=tuple(generator.uniform(-side, side, 2).tolist()),
    yaw=float(generator.uniform(-math.pi, math.pi)),
  )
  camera = Camera(
    azimuth=float(generator.uniform(-0.6, 0.6)),
    elevation=float(generator.uniform(0.3, 0.7)),
    distance=float(generator.uniform(*(_NEAR if near else _FAR))),
  )
  light = (float(generator.uniform(-1.5, 1.5)), float(generator.uniform(0.6, 1.2)))
  return Scene((solid,), camera, light=light, floor=one(FLOORS), sky=one(SKIES), moment=0.0)
