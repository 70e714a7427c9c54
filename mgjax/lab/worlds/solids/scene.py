"""Scenes of solids: all that a clip shows, whatever its size, number of frames and rate.

A scene is plain data. With a field replaced it shows the same clip in another colour, of another
material or seen by another camera; `physics.py` moves it, `render.py` draws it.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Float
from mgjax.lab.worlds.solids.kinds import (
  CAMERAS,
  COLOURS,
  FLOORS,
  MATERIALS,
  MOTIONS,
  PATTERNS,
  SHAPES,
  SKIES,
)
from mgjax.lab.worlds.source import check_names

STYLES = {'': 'a film', 'outlines': 'a drawing', 'night': 'night'}  # how a clip is shown
SECONDS = 2.0  # of a scene in which what it tells happens; longer clips show what follows


@dataclasses.dataclass(frozen=True)
class Solid:
  """One solid and how it starts. Raises ConfigError for unknown names.

  `size` is the radius of a ball; the others have about its volume. A place is (x, y) on the floor,
  x to the right and y away from the camera.
  """

  shape: str
  colour: str
  material: str
  size: float
  motion: str = 'stands still'
  place: tuple[float, float] = (0.0, 0.0)
  velocity: tuple[float, float] = (0.0, 0.0)  # units/s
  height: float = 0.0  # above the place where it comes to rest
  yaw: float = 0.0  # radians, counter-clockwise from above
  spin: float = 0.0  # radians/s, the same way
  pattern: str = 'band'
  second: str = ''  # colour of the pattern; '' is a lighter shade of its own

  def __post_init__(self):
    check_names('shape', (self.shape,), SHAPES)
    check_names('colour', (self.colour,), COLOURS)
    check_names('material', (self.material,), MATERIALS)
    check_names('motion', (self.motion,), MOTIONS)
    check_names('pattern', (self.pattern,), PATTERNS)
    check_names('second', (self.second,), ('', *COLOURS))

  @property
  def mass(self) -> float:
    return MATERIALS[self.material].density * SHAPES[self.shape].volume * self.size**3

  @property
  def rest(self) -> float:
    """How high its centre lies where it stands."""
    return SHAPES[self.shape].rest * self.size

  @property
  def radius(self) -> float:
    """Of the circle around it, seen from above."""
    return SHAPES[self.shape].radius * self.size


@dataclasses.dataclass(frozen=True)
class Camera:
  """Where the camera is in the middle of a clip, and its move, centred there.

  It looks at a point above the middle of the floor. `amount` is how far the move goes from the
  first frame to the last, see `kinds.CAMERAS`.
  """

  move: str = 'stands still'
  amount: float = 0.0
  azimuth: float = 0.0  # radians; to the right of the middle
  elevation: float = 0.53  # radians
  distance: float = 5.2

  def __post_init__(self):
    check_names('move', (self.move,), CAMERAS)

  def on_floor(self, positions: Float[np.ndarray, '*n d']) -> tuple[Any, Any]:
    """Rotates (x, y) of positions to right and away, seen from the middle of the camera's move."""
    c = math.cos(self.azimuth)
    s = math.sin(self.azimuth)
    x = positions[..., 0]
    y = positions[..., 1]
    return c * x + s * y, c * y - s * x


@dataclasses.dataclass(frozen=True)
class Scene:
  """All that a clip shows.

  `meets` are the indices of the solid that hits and of the one that is hit, () of none. `follows`
  is the one that the camera goes with.
  """

  solids: tuple[Solid, ...]
  camera: Camera = Camera()
  meets: tuple[int, ...] = ()
  follows: int = 0
  light: tuple[float, float] = (-0.8, 0.9)  # azimuth as of the camera, elevation; radians
  floor: str = 'grey'
  sky: str = 'blue'
  style: str = ''  # of `STYLES`
  mark: str = ''  # colour of a layer over the solid at `marked`
  marked: int = 0
  moment: float = 1.0  # seconds at which a picture shows it
  wording: int = 0  # the seed of its words

  def __post_init__(self):
    check_names('floor', (self.floor,), FLOORS)
    check_names('sky', (self.sky,), SKIES)
    check_names('style', (self.style,), STYLES)
    check_names('mark', (self.mark,), ('', *COLOURS))
    if not self.solids:
      raise ConfigError('solids = (); expected a solid or more')

  @property
  def towards_light(self) -> tuple[float, float, float]:
    azimuth, elevation = self.light
    flat = math.cos(elevation)
    return (flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation))
