"""Draws scenes of solids by ray casting, at any size and number of frames.

It is written by components: x, y and z of a vector are separate arrays (h w). Solids are unrolled
with a running minimum, and nothing is stacked or gathered, so that XLA makes one loop of a frame. A
solid is the part of a quadric in a box (`kinds.Shape`), so a ray enters it at the last of the
surfaces that it enters. Kinds of solids differ by numbers alone: one program draws all scenes of a
size.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float, UInt8
from mgjax.lab.worlds.solids.camera import Poses
from mgjax.lab.worlds.solids.kinds import COLOURS, FLOORS, MATERIALS, PATTERNS, SHAPES, SKIES
from mgjax.lab.worlds.solids.scene import Scene

_FAR = 1e9  # distance of what is not hit
_TILE = 0.8  # side of a tile of the floor
_TILES = 0.085  # their contrast, low: nobody shall spend capacity on them
_FOG = (7.0, 16.0)  # distance at which fog begins, and how much further it hides all
_AMBIENT, _SUN = 0.34, 0.80  # light from everywhere, light from the sun
# half a width; dots and checks along a unit of size
_BAND = 0.26
_DOTS = 1.875
_CHECKS = 1.1


Numbers = Array | np.ndarray


class Stage(NamedTuple):
  """All that is drawn, as numbers; the first three have a row for each frame."""

  eye: Float[Numbers, 't 3']
  axes: Float[Numbers, 't 3 3']
  focal: Float[Numbers, 't']
  places: Float[Numbers, 't n 3']
  turns: Float[Numbers, 't n 3 3']
  size: Float[Numbers, 'n']
  quadric: Float[Numbers, 'n 3']
  box: Float[Numbers, 'n 2']
  colour: Float[Numbers, 'n 3']
  second: Float[Numbers, 'n 3']
  pattern: Float[Numbers, 'n']
  look: Float[Numbers, 'n 5']  # mirror, glow, shine, gloss, grain
  light: Float[Numbers, '3']
  floor: Float[Numbers, '3']
  sky: Float[Numbers, '3']


def stage(
  scene: Scene,
  places: Float[np.ndarray, 't n 3'],
  turns: Float[np.ndarray, 't n 3 3'],
  poses: Poses,
  room: int,
) -> Stage:
  """Returns a scene as arrays, padded to `room` solids; padding has size 0."""
  frames = len(places)
  count = len(scene.solids)
  missing = room - len(scene.solids)

  def table(rows, *shape):
    rows = np.asarray(rows, np.float32).reshape(count, *shape)
    return np.concatenate([rows, np.zeros((missing, *shape), np.float32)])

  solids = scene.solids
  shapes = [SHAPES[solid.shape] for solid in solids]
  sizes = [solid.size for solid in solids]
  materials = [MATERIALS[solid.material] for solid in solids]
  away = np.full((frames, missing, 3), -1e3)
  still = np.broadcast_to(np.eye(3), (frames, missing, 3, 3))
  return Stage(
    *(np.asarray(pose, np.float32) for pose in poses),
    np.concatenate([places, away], 1).astype(np.float32),
    np.concatenate([turns, still], 1).astype(np.float32),
    table(sizes),
    table(
      [
        (b, c * s, d * s * s)
        for (b, c, d), s in zip((x.quadric for x in shapes), sizes, strict=True)
      ],
      3,
    ),
    table([(x.box[0] * s, x.box[1] * s) for x, s in zip(shapes, sizes, strict=True)], 2),
    table([_linear(COLOURS[solid.colour]) for solid in solids], 3),
    table([_second(solid) for solid in solids], 3),
    table([list(PATTERNS).index(solid.pattern) for solid in solids]),
    table([(x.mirror, x.glow, x.shine, x.gloss, x.grain) for x in materials], 5),
    np.array(scene.towards_light, np.float32),
    np.array(_linear(FLOORS[scene.floor]), np.float32),
    np.array(_linear(SKIES[scene.sky]), np.float32),
  )


def _linear(colour) -> list[float]:
  """Returns the linear light of a displayed colour; displays show the square root."""
  return [channel**2 for channel in colour]


def _second(solid) -> list[float]:
  if solid.second:
    return _linear(COLOURS[solid.second])
  own = _linear(COLOURS[solid.colour])
  return (
    [channel * 0.3 + 0.6 for channel in own]
    if min(own) < 0.5
    else [channel * 0.3 for channel in own]
  )


@functools.partial(jax.jit, static_argnames=('size',))
def draw(stage: Stage, rays: int | Array, size: tuple[int, int]) -> UInt8[jax.Array, 't h w 3']:
  """Draws frames of `size` (height, width) with `rays` x `rays` rays a pixel, 1 or 2.

  The number of rays is data: a loop whose length XLA knew to be 1 would be none, and slower.
  """

  def one(frame):
    def add(k, total):
      return total + _colours(seen, _rays(seen, size, (k // rays, k % rays), rays))

    seen = _at(stage, frame)
    total = jax.lax.fori_loop(0, rays * rays, add, jnp.zeros(size, jnp.uint32))
    channels = [total >> (10 * channel) & 1023 for channel in range(3)]
    count = rays * rays
    return ((jnp.stack(channels, -1) + count // 2) // count).astype(jnp.uint8)

  return jax.lax.map(one, stage[:5])


@functools.partial(jax.jit, static_argnames=('size',))
def measure(stage: Stage, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
  """Returns which solid is in the middle of each pixel and how far away along the camera's axis.

  (t h w) each, uint8 and float32: 1 is the first solid, 0 none; where nothing is, infinity.
  """

  def one(frame):
    seen = _at(stage, frame)
    ray = _rays(seen, size, (0, 0), 1)
    hit = _nearest(seen, ray)
    floor = jnp.where(ray[2] < 0, -seen.eye[2] / ray[2], _FAR)
    distance = jnp.minimum(hit.distance, floor)
    along = sum(seen.axes[2, k] * ray[k] for k in range(3))
    inside = hit.distance < floor
    which = jnp.where(inside, hit.which, 0).astype(jnp.uint8)
    return which, jnp.where(distance < _FAR / 2, distance * along, jnp.inf)

  return jax.lax.map(one, stage[:5])


def _at(stage: Stage, frame) -> Stage:
  """The stage of one frame, whose first fields have no time."""
  return stage._replace(**dict(zip(Stage._fields, frame, strict=False)))


def _rays(seen: Stage, size: tuple[int, int], which, rays: Any):
  """Returns unit directions through a picture, x, y and z each (h w): one ray of each pixel."""
  height, width = size
  row, column = ((2 * index + 1) / (2 * rays) for index in which)
  scale = 2 / min(height, width)
  v = (height / 2 - jnp.arange(height) - row)[:, None] * scale
  u = (jnp.arange(width) + column - width / 2)[None] * scale
  right, up, forward = seen.axes[0], seen.axes[1], seen.axes[2]
  ray = [seen.focal * forward[k] + u * right[k] + v * up[k] for k in range(3)]
  scale = jax.lax.rsqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
  return [component * scale for component in ray]


class _Hit(NamedTuple):
  """What rays meet first: how far, which solid, where in it, which way its surface looks."""

  distance: Array
  which: Array
  x: Array
  y: Array
  z: Array
  along_x: Array
  along_y: Array
  along_z: Array


def _enter(seen: Stage, k: int, origin, ray):
  """Returns where rays enter a solid: the distance or `_FAR`, and the numbers of its surface."""
  (x, y, z), (dx, dy, dz) = origin, ray
  b, c, d = seen.quadric[k, 0], seen.quadric[k, 1], seen.quadric[k, 2]
  # Along the ray the quadric is square t² + 2 half t + level; no ray is as steep as a cone.
  square = jnp.maximum(dx * dx + dy * dy + b * dz * dz, 1e-6)
  half = x * dx + y * dy + (b * z + c) * dz
  level = x * x + y * y + (b * z + 2 * c) * z + d
  inside = half * half - square * level
  root = jnp.sqrt(jnp.maximum(inside, 0))
  inverse = 1 / square
  enter = (-half - root) * inverse
  leave = (root - half) * inverse
  entries = [enter]
  for coordinate, way, side in ((x, dx, 0), (y, dy, 0), (z, dz, 1)):
    inverse = 1 / jnp.where(jnp.abs(way) < 1e-6, 1e-6, way)
    middle = -coordinate * inverse
    reach = jnp.abs(inverse) * seen.box[k, side]
    entries.append(middle - reach)
    leave = jnp.minimum(leave, middle + reach)
  first = functools.reduce(jnp.maximum, entries)
  met = (inside > 0) & (first < leave) & (first > 1e-3)
  return jnp.where(met, first, _FAR), first, entries


def _local(seen: Stage, k: int, vector):
  """A vector along the axes of a solid."""
  turn = seen.turns[k]
  return [sum(turn[i, j] * vector[i] for i in range(3)) for j in range(3)]


def _nearest(seen: Stage, ray) -> _Hit:
  """Follows rays from the camera to the first solid."""
  zero = jnp.zeros_like(ray[0])
  candidates = []
  for k in range(seen.size.shape[0]):
    start = _local(seen, k, [seen.eye[i] - seen.places[k, i] for i in range(3)])
    way = _local(seen, k, ray)
    distance, first, entries = _enter(seen, k, start, way)
    candidates.append((1 / distance, start, way, first, entries))
  # XLA computes divisions once and the rest of a chain anew for each of its uses, so what is needed
  # several times ends with one.
  nearness = functools.reduce(jnp.maximum, (candidate[0] for candidate in candidates))
  hit = _Hit(1 / nearness, *[zero] * 7)
  for k, (closeness, start, way, first, entries) in enumerate(candidates):
    x, y, z = (start[i] + first * way[i] for i in range(3))
    normal = [x, y, seen.quadric[k, 0] * z + seen.quadric[k, 1]]
    scale = jax.lax.rsqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2 + 1e-12)
    flat = [
      jnp.where(first == entry, -jnp.sign(component), 0.0)
      for entry, component in zip(entries[1:], way, strict=True)
    ]
    curved = first == entries[0]
    normal = [jnp.where(curved, n * scale, f) for n, f in zip(normal, flat, strict=True)]
    turn = seen.turns[k]
    normal = [sum(turn[i, j] * normal[j] for j in range(3)) for i in range(3)]
    scale = 1 / jnp.maximum(seen.size[k], 1e-3)
    new = (zero + (k + 1), x * scale, y * scale, z * scale, *normal)
    this = closeness == nearness
    hit = _Hit(hit.distance, *(jnp.where(this, a, b) for a, b in zip(new, hit[1:], strict=True)))
  return hit


def _shade(seen: Stage, point) -> Array:
  """How much of the sun reaches points, in [0, 1]: what glows lets a part of it through."""
  lit = jnp.ones_like(point[0])
  for k in range(seen.size.shape[0]):
    start = _local(seen, k, [point[i] - seen.places[k, i] for i in range(3)])
    way = _local(seen, k, [seen.light[i] for i in range(3)])
    distance, _, _ = _enter(seen, k, start, way)
    lit = jnp.where(distance < _FAR, jnp.minimum(lit, 0.6 * seen.look[k, 1]), lit)
  return lit


def _pick(seen: Stage, hit: _Hit, values) -> Any:
  """Returns the value of the solid that was hit."""
  value = jnp.zeros_like(hit.distance)
  for k in range(seen.size.shape[0]):
    value = jnp.where(hit.which == k + 1, values[k], value)
  return value


def _patterned(hit: _Hit, pattern) -> Any:
  """Returns whether a pattern shows its second colour where a ray hit."""
  a, b, c = (
    _DOTS * coordinate - jnp.floor(_DOTS * coordinate) - 0.5 for coordinate in (hit.x, hit.y, hit.z)
  )
  dots = a * a + b * b + c * c < 0.11
  a, b, c = (
    _CHECKS * coordinate - jnp.floor(_CHECKS * coordinate) - 0.5
    for coordinate in (hit.x, hit.y, hit.z)
  )
  checks = a * b * c > 0
  band = jnp.abs(hit.x) < _BAND
  half = hit.x > 0
  mask = jnp.where(pattern == 1, dots, band)
  return jnp.where(pattern == 3, half, jnp.where(pattern == 2, checks, mask))


def _colours(seen: Stage, ray) -> Any:
  """Returns the colour of each ray, packed into three times ten bits.

  Shared terms of the channels are computed once, and rays are summed per channel as integers.
  """
  hit = _nearest(seen, ray)
  # The floor z = 0.
  down = jnp.where(ray[2] < -1e-4, -seen.eye[2] / ray[2], _FAR)
  solid = hit.distance < down
  nothing = (hit.distance > _FAR / 2) & (down > 1e4)
  distance = jnp.minimum(jnp.minimum(hit.distance, down), 1e4)
  normal = [jnp.where(solid, hit[5 + k], float(k == 2)) for k in range(3)]
  point = [seen.eye[k] + (distance - 2e-3) * ray[k] for k in range(3)]
  light = seen.light
  facing = sum(normal[k] * light[k] for k in range(3))
  sun = _shade(seen, point)
  lit = jnp.maximum(facing, 0) * sun
  # Looks of the solid.
  mirror, glow, shine, gloss, grain = (_pick(seen, hit, seen.look[:, k]) for k in range(5))
  second = _patterned(hit, _pick(seen, hit, seen.pattern))
  ring = jnp.sqrt((hit.x - 0.3) ** 2 + (hit.y + 0.2) ** 2 * 1.5) * 2.2 + 0.3 * hit.z
  grain = 1 - grain * jnp.abs(2 * (ring - jnp.floor(ring)) - 1)
  # Reflections: of sky above and floor below, and the highlight.
  view = sum(normal[k] * ray[k] for k in range(3))
  above = jnp.clip((ray[2] - 2 * view * normal[2]) * 3 + 0.5, 0, 1)
  toward = [light[k] - ray[k] for k in range(3)]
  scale = jax.lax.rsqrt(sum(component * component for component in toward))
  glint = jnp.maximum(sum(normal[k] * toward[k] for k in range(3)) * scale, 0)
  glint = shine * sun * glint / (gloss - gloss * glint + glint)
  glint = jnp.where(solid, glint * glint * glint, 0)
  rim = jnp.where(solid, (1 + jnp.minimum(view, 0)) ** 3, 0) * (0.5 * glow + 0.5 * mirror)
  # Glass turns what is behind it upside down.
  below = jnp.clip((ray[2] - 1.1 * normal[2]) * 1.6 + 0.6, 0, 1)
  tiles = jnp.floor(point[0] / _TILE) + jnp.floor(point[1] / _TILE)
  tiles = tiles - 2 * jnp.floor(tiles / 2)
  fade = jnp.maximum(1 - distance / 14, 0)
  tiles = 1 + _TILES * (2 * tiles - 1) * fade
  fog = jnp.clip((distance - _FOG[0]) / _FOG[1], 0, 1)
  fog = jnp.where(nothing, 1.0, fog * (2 - fog))
  high = jnp.clip(ray[2] * 2.0, 0, 1)
  packed = jnp.zeros(hit.distance.shape, jnp.uint32)
  for channel in range(3):
    first = _pick(seen, hit, seen.colour[:, channel])
    other = _pick(seen, hit, seen.second[:, channel])
    own = jnp.where(second, other, first) * grain
    floor, sky = seen.floor[channel], seen.sky[channel]
    around = sky * above + 0.35 * floor * (1 - above)
    colour = own * (_AMBIENT + 0.06 * normal[2] + _SUN * lit)
    colour = colour * (1 - mirror) + mirror * around * (0.04 + 1.3 * own)
    behind = sky * below + 0.5 * floor * (1 - below)
    colour = colour * (1 - glow) + glow * behind * (0.1 + 2.2 * own)
    colour = colour * (1 - rim) + rim * sky + glint
    ground = floor * tiles * (_AMBIENT + _SUN * lit)
    colour = jnp.where(solid, colour, ground)
    colour = colour * (1 - fog) + sky * fog * (1 - 0.45 * high)
    colour = jnp.sqrt(jnp.clip(colour, 0, 1)) * 255 + 0.5
    packed |= colour.astype(jnp.uint32) << (10 * channel)
  return packed
