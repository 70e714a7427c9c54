"""Draws scenes: first what happens, then where, until everything happens so and can be seen.

A story (which solids, which motions, which collisions, which camera) is drawn once. It is laid out
again and again, so that what is hard to lay out is as frequent as it was drawn, within `_LAYOUTS`.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.lab.worlds.solids.camera import poses
from mgjax.lab.worlds.solids.kinds import (
  CAMERAS,
  COLOURS,
  DIRECTIONS,
  FLOORS,
  HEIGHTS,
  MATERIALS,
  MOTIONS,
  SHAPES,
  SIZES,
  SKIES,
  SPEEDS,
  SPINS,
  Span,
  motions_of,
)
from mgjax.lab.worlds.solids.physics import (
  ON_FLOOR,
  CannotBeToldError,
  apart,
  paths_apart,
  simulate,
)
from mgjax.lab.worlds.solids.scene import SECONDS, Camera, Scene, Solid

_LAYOUTS, _PLACES = 40, 12
_NEW = 0.25  # of solids have values outside of the ranges of training, where anything may be
_STAGE = (1.45, 1.1)  # half of its width and depth, where solids are in the middle of a scene
_MEETING = Span(0.5, 1.15)  # seconds
_GAP = 0.06  # between any two at the beginning
_EDGE = 0.88  # of the picture; centres of solids lie within
_SEEN = 0.7  # of the time, at least
_COVER = 0.85  # of the radius of what is in front, within which a centre is hidden


@dataclasses.dataclass(frozen=True)
class Choices:
  """What scenes are drawn from.

  `novelty` is 'none' for what training shows. With 'combination' each solid has a triple that
  training never shows. With 'value' sizes and speeds are outside of its ranges. With 'any' there
  are all combinations, and a quarter of all solids have such sizes and speeds.
  """

  solids: tuple[int, int] = (1, 3)  # how many, at least and at most
  shapes: tuple[str, ...] = tuple(SHAPES)
  colours: tuple[str, ...] = tuple(COLOURS)
  materials: tuple[str, ...] = tuple(MATERIALS)
  motions: tuple[str, ...] = tuple(MOTIONS)
  cameras: tuple[str, ...] = tuple(CAMERAS)
  patterns: tuple[str, ...] = ('band',)
  seconds: tuple[str, ...] = ('',)  # colours of patterns; '' is a lighter shade of the solid's own
  styles: tuple[str, ...] = ('',)
  meetings: float = 0.5  # share of scenes of several in which two meet
  novelty: str = 'none'


def is_held_out(shape: str, colour: str, material: str, motion: str, camera: str) -> bool:
  """Whether training never shows a solid like this, though it shows every pair of its words.

  Two Latin rules: over shape, colour and material, (sum of their places) mod 5 = 0; over colour,
  motion and camera, mod 7 = 3. About a third of all are held out.
  """
  of_looks = list(SHAPES).index(shape) + list(MATERIALS).index(material)
  of_moves = list(MOTIONS).index(motion) + list(CAMERAS).index(camera)
  number = list(COLOURS).index(colour)
  return (of_looks + number) % 5 == 0 or (of_moves + number) % 7 == 3


def draw_scene(choices: Choices, generator: np.random.Generator) -> Scene:
  """Returns a scene, a function of the choices and of what the generator draws."""
  while True:
    story = _Story(choices, generator)
    for _ in range(_LAYOUTS):
      scene = story.lay_out()
      if scene and happens(scene) and _is_seen(scene):
        return scene


class _Story:
  """What happens, without places."""

  def __init__(self, choices: Choices, generator: np.random.Generator):
    self.choices, self.generator = choices, generator
    least, most = choices.solids
    count = int(generator.integers(least, most + 1))
    moving = tuple(name for name in choices.motions if MOTIONS[name].direction)
    self.camera = self.kind_of(choices.cameras)
    self.meets = ()
    rolling = tuple(name for name in moving if MOTIONS[name].verb == 'rolls')
    if count > 1 and 'ball' in choices.shapes and rolling:
      self.meets = (0, 1) if generator.uniform() < choices.meetings else ()
    free = list(generator.permutation(choices.colours))
    self.looks: list[JSON] = []
    for index in range(count):
      look = self.look(index, free, rolling)
      free.remove(look['colour'])
      self.looks.append(look)
    follows = [k for k, look in enumerate(self.looks) if MOTIONS[look['motion']].direction]
    self.follows = follows[0] if follows else 0
    if self.camera == 'follows' and not follows:
      self.__init__(choices, generator)

  def one(self, choices) -> Any:
    return choices[self.generator.integers(len(choices))]

  def within(self, span: Span) -> float:
    return float(self.generator.uniform(*span))

  def kind_of(self, names: tuple[str, ...], rare: tuple[str, ...] = ()) -> str:
    """One of several, each first word as likely as the others, but that rare ones are half so."""
    words = sorted({name.split()[0] for name in names})
    word = self.one(words + [word for word in words if word not in rare])
    return self.one([name for name in names if name.split()[0] == word])

  def look(self, index: int, colours: list[str], rolling: tuple[str, ...]) -> JSON:
    choices = self.choices
    held_out_by_novelty = {'none': False, 'value': False, 'combination': True}
    for _ in range(200):
      shape = 'ball' if self.meets and index == 0 else self.one(choices.shapes)
      motion = self.motion(index, shape, rolling)
      look = {
        'shape': shape,
        'colour': self.one(colours),
        'material': self.one(choices.materials),
        'motion': motion,
        'pattern': self.one(choices.patterns),
      }
      held_out = is_held_out(shape, str(look['colour']), look['material'], motion, self.camera)
      look['word'] = self.one(tuple(SIZES))
      if held_out_by_novelty.get(choices.novelty, held_out) == held_out and self.stops(index, look):
        break
    look['colour'] = str(look['colour'])
    second = [colour for colour in choices.seconds if colour != look['colour']]
    return look | {'second': self.one(second or [''])}

  def stops(self, index: int, look: JSON) -> bool:
    """Whether it stops a ball that is to hit it: a heavy one would push what is light and slides.

    Of solids in the middle of their ranges of sizes.
    """
    if not self.meets or index != 1 or look['shape'] == 'ball':
      return True
    return _weight(self.looks[0]) < 0.8 * _weight(look)

  def motion(self, index: int, shape: str, rolling: tuple[str, ...]) -> str:
    if self.meets and index == 0:  # along the line of sight one hides the other
      across = tuple(name for name in rolling if name.split()[1] in ('left', 'right'))
      return self.one(rolling + 2 * across)
    if self.meets and index == 1:
      back = _opposite(self.looks[0]['motion'])
      meet = shape == 'ball' and back in self.choices.motions and self.generator.uniform() < 0.5
      return back if meet else 'stands still'
    allowed = tuple(name for name in motions_of(shape) if name in self.choices.motions)
    return self.kind_of(allowed or ('stands still',), ('stands', 'spins'))

  def lay_out(self) -> Scene | None:
    """Draws positions; None if a solid has no room."""
    generator = self.generator
    solids = list(self.meeting(*self.looks[:2])) if self.meets else []
    for look in self.looks[len(solids) :]:
      placed = self.place(self.solid(look), [(_path(solid), solid.radius) for solid in solids])
      if placed is None:
        return None
      solids.append(placed)
    move = CAMERAS[self.camera]
    camera = Camera(
      self.camera,
      self.within(move.amounts),
      azimuth=self.within(Span(-0.15, 0.15)),
      elevation=self.within(Span(0.48, 0.58)),
      distance=self.within(Span(5.0, 5.4)),
    )
    return Scene(
      tuple(solids),
      camera,
      self.meets,
      self.follows,
      light=(self.one((-1, 1)) * self.within(Span(0.4, 1.2)), self.within(Span(0.75, 1.05))),
      floor=self.one(tuple(FLOORS)),
      sky=self.one(tuple(SKIES)),
      moment=self.within(Span(0.0, SECONDS)),
      wording=int(generator.integers(2**31)),
      style=self.one(self.choices.styles) if any(self.choices.styles) else '',
    )

  def solid(self, look: JSON) -> Solid:
    verb, direction = MOTIONS[look['motion']]
    new = self.choices.novelty == 'value'
    if self.choices.novelty == 'any':
      new = self.generator.uniform() < _NEW
    size = self.within(SIZES[look['word']][new])
    speed = self.within(SPEEDS[verb][new]) if direction else 0.0
    way = DIRECTIONS[direction] if direction else (0.0, 0.0)
    fields = {name: value for name, value in look.items() if name != 'word'}
    return Solid(
      **fields,
      size=size,
      velocity=(speed * way[0], speed * way[1]),
      height=self.within(HEIGHTS) if verb in ('falls', 'bounces') else 0.0,
      yaw=self.within(Span(-math.pi, math.pi)),
      spin=self.one((-1, 1)) * self.within(SPINS) if verb == 'spins' else 0.0,
    )

  def place(self, solid: Solid, paths: list[tuple[tuple[complex, complex], float]]) -> Solid | None:
    """Places a solid on the stage, in the middle of its way, away from the paths of others.

    `paths` are those of the others with their radii. Returns None if random search finds no room.
    """
    way = complex(*DIRECTIONS.get(MOTIONS[solid.motion].direction, (0.0, 0.0)))
    before = _gone(solid, SECONDS / 2)
    after = _gone(solid, 2 * SECONDS)
    for _ in range(_PLACES):
      home = complex(*(self.within(Span(-side, side)) for side in _STAGE))
      start = home - before * way
      path = start, start + after * way
      if all(paths_apart(path, other) > solid.radius + r + _GAP for other, r in paths):
        return dataclasses.replace(solid, place=(start.real, start.imag))
    return None

  def meeting(self, *looks: JSON) -> tuple[Solid, Solid]:
    """Two solids that meet near the middle, the first in its direction."""
    first, second = map(self.solid, looks)
    way = complex(*DIRECTIONS[MOTIONS[first.motion].direction])
    time = self.within(_MEETING)
    middle = complex(self.within(Span(-0.45, 0.45)), self.within(Span(-0.35, 0.35)))
    across = self.within(Span(-0.3, 0.3)) * first.size
    yaw = second.yaw
    if second.shape == 'cube':  # hit in the middle of a side, or it would have to turn
      across = 0.0
      yaw = math.atan2(way.imag, way.real)
      between = first.size + 0.8 * second.size
    else:
      between = math.sqrt(apart(first, second) ** 2 - across**2)
    start = middle + way * (1j * across - _gone(first, time))
    there = middle + way * (between + _gone(second, time))
    return (
      dataclasses.replace(first, place=(start.real, start.imag)),
      dataclasses.replace(second, place=(there.real, there.imag), yaw=yaw),
    )


def _weight(look: JSON) -> float:
  size = sum(SIZES[look['word']][0]) / 2
  return MATERIALS[look['material']].density * SHAPES[look['shape']].volume * size**3


def _opposite(motion: str) -> str:
  verb, direction = motion.split()
  back = {'left': 'right', 'right': 'left', 'away': 'closer', 'closer': 'away'}
  return f'{verb} {back[direction]}'


def _gone(solid: Solid, time: float) -> float:
  """How far a solid goes in some time, if nothing stops it but friction."""
  speed = math.hypot(*solid.velocity)
  material = MATERIALS[solid.material]
  if solid.height:
    return speed * time
  braking = material.rolling if solid.shape == 'ball' else material.sliding
  time = min(time, speed / braking)
  return speed * time - braking * time**2 / 2


def _path(solid: Solid) -> tuple[complex, complex]:
  """The line on which a solid is while a scene lasts, and beyond where it is hit."""
  start, velocity = complex(*solid.place), complex(*solid.velocity)
  if not velocity:
    return start, start
  return start, start + velocity / abs(velocity) * _gone(solid, 2 * SECONDS)


def happens(scene: Scene) -> bool:
  """Whether exactly the solids that should meet do, once and in time."""
  try:
    contacts = simulate(scene.solids).contacts
  except CannotBeToldError:
    return False
  met = [contact for contact in contacts if contact.second != ON_FLOOR]
  if not scene.meets:
    return not met
  once = [(contact.first, contact.second) for contact in met] == [scene.meets]
  return once and met[0].time < 0.8 * SECONDS


def _is_seen(scene: Scene) -> bool:
  """Whether every solid is in the picture and mostly not hidden by another."""
  tracks = simulate(scene.solids).tracks
  times = np.linspace(0, SECONDS, 9)
  places = np.stack([track.positions(times) for track in tracks], 1)
  view = poses(scene.camera, tracks[scene.follows], times, SECONDS)
  projected = view.project(places)
  u, v, depth = projected[..., 0], projected[..., 1], projected[..., 2]
  visible = (np.abs(u) < _EDGE) & (np.abs(v) < _EDGE) & (depth > 1)
  sizes = np.array([solid.size for solid in scene.solids])
  radius = view.focal[:, None] * sizes / depth
  for k in range(len(sizes)):
    for other in range(len(sizes)):
      if other != k:
        apart = np.hypot(u[:, k] - u[:, other], v[:, k] - v[:, other])
        hidden = (depth[:, other] < depth[:, k]) & (apart < _COVER * radius[:, other])
        visible[:, k] &= ~hidden
  return bool((visible.mean(0) >= _SEEN).all() and visible[0].mean() > 0.99)
