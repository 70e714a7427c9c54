"""How solids move and meet, in closed form from event to event.

Between two events every solid has a constant acceleration: gravity in flight, friction against its
motion on the floor. An event is a landing, a stop, or two solids that meet; its time is the root of
a polynomial, so that contacts are exact, whatever the frames that are drawn.

Some physics is simple on purpose. Balls on the floor roll without slipping. What stands keeps
upright and does not turn when it is hit. The floor takes up the vertical part of an impact between
two solids, so that J = (1 + e) m (v . n). Here m is the reduced mass, n the direction between them
as seen from above, and e the mean of the restitutions of both. A solid that is no ball meets balls
alone.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

from mgjax.core.typing import Float
from mgjax.lab.worlds.solids.kinds import FLOOR, GRAVITY, LANDING, MATERIALS
from mgjax.lab.worlds.solids.scene import Solid

ON_FLOOR = -1  # the second partner of a contact with the floor
SLOWEST = 0.3  # units/s: what lands more slowly stays on the floor
_MOST_EVENTS, _MOST_MEETINGS = 100, 3
_SOON = 1e-9  # seconds; roots before are the contact that just was


class CannotBeToldError(ValueError):
  """Something that these rules do not cover would happen, such as two cubes that meet."""


class Contact(NamedTuple):
  """Two solids, or one and the floor, that touch."""

  time: float  # seconds
  place: tuple[float, float, float]
  strength: float  # the impulse J, mass unit x units/s
  first: int
  second: int  # `ON_FLOOR` for the floor
  materials: tuple[str, str]  # of the two, in their order


class _Segment(NamedTuple):
  """Motion from `start` to the next event; the turn is by rate t + slowing t²/2 about the axis."""

  start: float
  position: tuple[float, float, float]
  velocity: tuple[float, float, float]
  acceleration: tuple[float, float, float]
  turned: Float[np.ndarray, '3 3']
  axis: tuple[float, float, float]
  rate: float
  slowing: float


@dataclasses.dataclass
class _Body:
  """A solid between two events. On the floor, x + iy stands for (x, y)."""

  solid: Solid
  place: complex
  velocity: complex
  height: float  # above where it rests
  rising: float  # units/s
  flies: bool
  turned: Float[np.ndarray, '3 3']
  start: float = 0.0
  segments: list[_Segment] = dataclasses.field(default_factory=list)
  axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
  rate: float = 0.0

  @classmethod
  def of(cls, solid: Solid) -> '_Body':
    flies = solid.height > 0
    body = cls(
      solid,
      complex(*solid.place),
      complex(*solid.velocity),
      solid.height,
      0.0,
      flies,
      _rotation((0.0, 0.0, 1.0), solid.yaw),
      rate=solid.spin,
    )
    body.begin()
    return body

  @property
  def braking(self) -> float:
    """Deceleration by friction, units/s²."""
    material = MATERIALS[self.solid.material]
    return material.rolling if self.solid.shape == 'ball' else material.sliding

  @property
  def acceleration(self) -> complex:
    if self.flies or not self.velocity:
      return 0j
    return -self.braking * self.velocity / abs(self.velocity)

  def begin(self) -> None:
    """Begins a segment with the state as it is."""
    speed = abs(self.velocity)
    slowing = 0.0
    if self.solid.shape == 'ball' and not self.solid.spin:
      if speed:
        self.axis = (-self.velocity.imag / speed, self.velocity.real / speed, 0.0)
      if speed or not self.flies:
        self.rate = speed / self.solid.size
        slowing = 0.0 if self.flies else -self.braking * bool(speed) / self.solid.size
    acceleration = self.acceleration
    fall = -GRAVITY if self.flies else 0.0
    self.segments.append(
      _Segment(
        self.start,
        (self.place.real, self.place.imag, self.solid.rest + self.height),
        (self.velocity.real, self.velocity.imag, self.rising),
        (acceleration.real, acceleration.imag, fall),
        self.turned,
        self.axis,
        self.rate,
        slowing,
      )
    )

  def advance(self, time: float) -> None:
    """Goes on to a time at which something happens to it."""
    past = time - self.start
    last = self.segments[-1]
    self.place += self.velocity * past + self.acceleration * past**2 / 2
    self.velocity += self.acceleration * past
    if self.flies:
      self.height += self.rising * past - GRAVITY * past**2 / 2
      self.rising -= GRAVITY * past
    angle = last.rate * past + last.slowing * past**2 / 2
    self.turned = _rotation(last.axis, angle) @ last.turned if angle else last.turned
    self.start = time

  def next_event(self) -> float:
    """When it lands or stops by itself."""
    if self.flies:
      root = math.sqrt(self.rising**2 + 2 * GRAVITY * max(self.height, 0.0))
      return self.start + (self.rising + root) / GRAVITY
    return self.start + abs(self.velocity) / self.braking if self.velocity else math.inf

  def path(self, start: float) -> tuple[complex, complex]:
    """The line on the floor along which it goes from a time on, until something happens to it."""
    end = self.next_event()
    here = _at(self, start)[0]
    return here, here if end == math.inf else _at(self, end)[0]

  def land_or_stop(self, index: int) -> Contact | None:
    """Lands or stops at the time of the event; returns the contact of a landing."""
    if not self.flies:
      self.velocity = 0j
      return None
    material = MATERIALS[self.solid.material]
    bounce = material.bounce * (1.0 if self.solid.shape == 'ball' else LANDING)
    speed = -self.rising
    self.height = 0.0
    self.rising = bounce * speed
    if self.rising < SLOWEST:
      self.rising = 0.0
      self.flies = False
    strength = self.solid.mass * (speed + self.rising)
    position = (self.place.real, self.place.imag, 0.0)
    return Contact(self.start, position, strength, index, ON_FLOOR, (self.solid.material, FLOOR))


class Track(NamedTuple):
  """One solid's motion: its segments as arrays, the last of which has no end."""

  start: Float[np.ndarray, 'k']
  position: Float[np.ndarray, 'k 3']
  velocity: Float[np.ndarray, 'k 3']
  acceleration: Float[np.ndarray, 'k 3']
  turned: Float[np.ndarray, 'k 3 3']
  axis: Float[np.ndarray, 'k 3']
  rate: Float[np.ndarray, 'k']
  slowing: Float[np.ndarray, 'k']

  def positions(self, times: Float[np.ndarray, 't']) -> Float[np.ndarray, 't 3']:
    """Returns where the centre is."""
    now, past = self._at(times)
    past = past[:, None]
    moved = self.velocity[now] * past + self.acceleration[now] * past**2 / 2
    return self.position[now] + moved

  def velocities(self, times: Float[np.ndarray, 't']) -> Float[np.ndarray, 't 3']:
    """Returns the velocity of the centre, that after a contact at its very time."""
    now, past = self._at(times)
    return self.velocity[now] + self.acceleration[now] * past[:, None]

  def turns(self, times: Float[np.ndarray, 't']) -> Float[np.ndarray, 't 3 3']:
    """Returns how it is turned: columns are the axes of the solid."""
    now, past = self._at(times)
    angles = self.rate[now] * past + self.slowing[now] * past**2 / 2
    turns = [_rotation(self.axis[k], angle) for k, angle in zip(now, angles, strict=True)]
    return np.stack(turns) @ self.turned[now]

  def _at(self, times):
    now = np.maximum(np.searchsorted(self.start, times, 'right') - 1, 0)
    return now, times - self.start[now]


class History(NamedTuple):
  """All that happens in a scene until nothing changes any more."""

  tracks: tuple[Track, ...]
  contacts: tuple[Contact, ...]


@functools.lru_cache(maxsize=64)
def simulate(solids: tuple[Solid, ...]) -> History:
  """Returns how solids move and which contacts they have, in the order of time.

  Raises CannotBeToldError if two would meet of which none is a ball, or one is in flight or spins,
  and if meetings do not end, as where a heavy ball pushes what it hit.
  """
  bodies = [_Body.of(solid) for solid in solids]
  own = [body.next_event() for body in bodies]
  pairs = [(i, j) for j in range(len(bodies)) for i in range(j)]
  meetings = {pair: _next_meeting(*(bodies[index] for index in pair)) for pair in pairs}
  contacts = []
  met = 0
  for _ in range(_MOST_EVENTS):
    if met > _MOST_MEETINGS:
      break
    alone = min(range(len(bodies)), key=own.__getitem__)
    pair = min(pairs, key=lambda couple: meetings[couple][0], default=None)
    together = meetings[pair][0] if pair else math.inf
    time = min(own[alone], together)
    if time == math.inf:
      tracks = (Track(*map(np.array, zip(*body.segments, strict=True))) for body in bodies)
      return History(tuple(tracks), tuple(contacts))
    changed = (alone,) if own[alone] <= together else pair
    for index in changed:
      bodies[index].advance(time)
    if len(changed) == 1:
      contact = bodies[alone].land_or_stop(alone)
    else:
      contact = _impact(bodies, pair, meetings[pair][1])
      met += 1
    contacts += [contact] if contact else []
    for index in changed:
      bodies[index].begin()
      own[index] = bodies[index].next_event()
    for pair in pairs:
      if set(pair) & set(changed):
        meetings[pair] = _next_meeting(*(bodies[index] for index in pair))
  raise CannotBeToldError(f'{met} meetings in {len(contacts)} contacts and no end')


def _impact(bodies: list[_Body], pair: tuple[int, int], normal: complex | None) -> Contact:
  """Lets two bodies push each other away along `normal`, from the second to the first."""
  if normal is None:
    raise CannotBeToldError(f'{bodies[pair[0]].solid} and {bodies[pair[1]].solid} meet')
  first, second = (bodies[index] for index in pair)
  approach = -_dot(first.velocity - second.velocity, normal)
  kinds = (first.solid.material, second.solid.material)
  bounce = sum(MATERIALS[kind].bounce for kind in kinds) / 2
  masses = first.solid.mass, second.solid.mass
  strength = (1 + bounce) * approach * masses[0] * masses[1] / sum(masses)
  first.velocity += strength / masses[0] * normal
  second.velocity -= strength / masses[1] * normal
  ball = first
  other = second
  way = -normal
  if first.solid.shape != 'ball':
    ball, other, way = second, first, normal
  out, up = touch(ball.solid.size, other.solid)
  position = ball.place + out * way
  at = (position.real, position.imag, up)
  return Contact(first.start, at, strength, *pair, kinds)


def touch(radius: float, other: Solid) -> tuple[float, float]:
  """Where a ball on the floor touches another solid: how far from its centre, how high."""
  if other.shape == 'ball':
    share = radius / (radius + other.size)
    return 2 * math.sqrt(radius * other.size) * share, radius + (other.size - radius) * share
  if other.shape == 'cone':  # base and height of the triangle that it is from the side
    base = other.radius
    height = 2 * other.rest
    slant = math.hypot(base, height)
    return radius * height / slant, radius - radius * base / slant
  top = 2 * other.rest
  if top >= radius:
    return radius, radius
  return math.sqrt(radius**2 - (radius - top) ** 2), top  # it touches the rim


def apart(ball: Solid, other: Solid) -> float:
  """How far the centres of a ball and another round solid are, seen from above, as they touch."""
  if other.shape == 'ball':  # sqrt((r + s)² - (r - s)²)
    return 2 * math.sqrt(ball.size * other.size)
  out, up = touch(ball.size, other)
  if other.shape == 'cone':
    return out + other.radius * (1 - up / (2 * other.rest))
  return out + other.radius


def _next_meeting(first: _Body, second: _Body) -> tuple[float, complex | None]:
  """Returns when two bodies meet and in which direction; None if no rule covers it."""
  if not (first.velocity or second.velocity):
    return math.inf, None
  if second.solid.shape == 'ball' and first.solid.shape != 'ball':
    time, normal = _next_meeting(second, first)
    return time, None if normal is None else -normal
  start = max(first.start, second.start)
  position, velocity = (a - b for a, b in zip(_at(first, start), _at(second, start), strict=True))
  motion = (position, velocity, first.acceleration - second.acceleration)
  ball, other = first.solid, second.solid
  if ball.radius + other.radius < paths_apart(first.path(start), second.path(start)):
    return math.inf, None
  turns = other.shape == 'cube' and other.spin
  if ball.shape != 'ball' or first.flies or second.flies or turns:
    time = _into_circle(motion, ball.radius + other.radius)
    return start + time, None
  if other.shape != 'cube':
    time = _into_circle(motion, apart(ball, other))
    if time == math.inf:
      return time, None
    between = _moved(motion, time)
    return start + time, between / abs(between)
  facing = complex(math.cos(other.yaw), math.sin(other.yaw))
  out, _ = touch(ball.size, other)
  local = tuple(term * facing.conjugate() for term in motion)
  time, normal = _into_square(local, 0.8 * other.size, out)
  return start + time, normal * facing


def paths_apart(first: tuple[complex, complex], second: tuple[complex, complex]) -> float:
  """Returns the distance of two line segments on the floor."""
  way, other = first[1] - first[0], second[1] - second[0]
  between = second[0] - first[0]
  crossing = _dot(1j * way, other)
  if crossing:
    along = _dot(1j * between, other) / crossing, _dot(1j * between, way) / crossing
    if 0 <= along[0] <= 1 and 0 <= along[1] <= 1:
      return 0.0
  ends = [(second, point) for point in first] + [(first, point) for point in second]
  return min(_from_path(*end) for end in ends)


def _from_path(path: tuple[complex, complex], point: complex) -> float:
  way = path[1] - path[0]
  away = point - path[0]
  share = _dot(way, away) / (abs(way) ** 2 or 1.0)
  return abs(away - min(max(share, 0.0), 1.0) * way)


def _at(body: _Body, time: float) -> tuple[complex, complex]:
  past = time - body.start
  acceleration = body.acceleration
  position = body.place + body.velocity * past + acceleration * past**2 / 2
  return position, body.velocity + acceleration * past


_Motion = tuple[complex, complex, complex]  # place, velocity, acceleration


def _moved(motion: _Motion, time: float) -> complex:
  position, velocity, acceleration = motion
  return position + velocity * time + acceleration * time**2 / 2


def _into_circle(motion: _Motion, radius: float) -> float:
  """When a point enters a circle around 0: |p + v t + a t²/2|² = r², getting smaller."""
  position, velocity, acceleration = motion
  speed = abs(velocity)
  if speed and abs(_dot(1j * velocity, acceleration)) < 1e-12 * speed:  # a straight line
    way = velocity / speed
    across = _dot(1j * way, position)
    along = _dot(way, position)
    if abs(across) >= radius or along > 0:
      return math.inf
    return _passing(-along - math.sqrt(radius**2 - across**2), speed, _dot(way, acceleration))
  return _falling_root(
    [
      abs(acceleration) ** 2 / 4,
      _dot(acceleration, velocity),
      abs(velocity) ** 2 + _dot(acceleration, position),
      2 * _dot(position, velocity),
      abs(position) ** 2 - radius**2,
    ]
  )


def _passing(distance: float, speed: float, acceleration: float) -> float:
  """When something has gone so far: s = v t + a t²/2, on its way there; or never."""
  root = speed**2 + 2 * acceleration * distance
  if root <= 0 or distance + speed * _SOON <= 0:
    return math.inf
  return max(2 * distance / (speed + math.sqrt(root)), 0.0)


def _into_square(motion: _Motion, half: float, margin: float) -> tuple[float, complex]:
  """Returns when a point comes within `margin` of a square around 0, and from which direction."""
  earliest = math.inf
  normal = 1 + 0j
  for side in (1, 1j, -1, -1j):
    position, velocity, acceleration = (term * complex(side).conjugate() for term in motion)
    time = _passing(position.real - half - margin, -velocity.real, -acceleration.real)
    if time < earliest and abs(_moved((position, velocity, acceleration), time).imag) <= half:
      earliest = time
      normal = complex(side)
    corner = complex(half, half)
    there = (position - corner, velocity, acceleration)
    time = _into_circle(there, margin)
    if time < earliest:
      between = _moved(there, time)
      if between.real >= 0 and between.imag >= 0:
        earliest = time
        normal = between / abs(between) * side
  return earliest, normal


def _falling_root(polynomial: list[float]) -> float:
  """The first time at which a polynomial, highest power first, comes to 0 from above; or never."""
  roots = np.roots(polynomial)
  real = np.sort(roots.real[np.abs(roots.imag) < 1e-7 * (1 + np.abs(roots))])
  slope = np.polyder(polynomial)
  for root in real[real > _SOON]:
    falls = np.polyval(slope, root)
    if falls < 0:
      nearer = np.polyval(polynomial, root) / falls  # Newton's step; large where it only grazes
      return float(root - nearer) if abs(nearer) < _SOON * 1e3 else float(root)
  return math.inf


def _dot(first: complex, second: complex) -> float:
  return (first.conjugate() * second).real


def _rotation(axis, angle: float) -> Float[np.ndarray, '3 3']:
  """The rotation by an angle about an axis (Rodrigues)."""
  x, y, z = axis
  c, s = math.cos(angle), math.sin(angle)
  t = 1 - c
  return np.array(
    [
      [t * x * x + c, t * x * y - s * z, t * x * z + s * y],
      [t * x * y + s * z, t * y * y + c, t * y * z - s * x],
      [t * x * z - s * y, t * y * z + s * x, t * z * z + c],
    ]
  )
