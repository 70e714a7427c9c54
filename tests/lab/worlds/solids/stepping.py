"""An independent simulation of solids by small steps in float64, the oracle of the closed form.

Many scenes advance at once. Where solids touch is found by signed distances in three dimensions and
their slopes by differences, when by the secant within a step; no formula of a contact is shared.
"""

import numpy as np

from mgjax.lab.worlds.solids.kinds import GRAVITY, LANDING, MATERIALS, SHAPES
from mgjax.lab.worlds.solids.physics import ON_FLOOR, SLOWEST

STEP = 5e-4
KINDS = ('ball', 'cube', 'cylinder', 'cone')
NUMBERS = ('density', 'bounce', 'rolling', 'sliding')


class Crowd:
  """The solids of several scenes, (scene, solid) arrays; `there` where a scene has so many."""

  def __init__(self, scenes):
    count = max(map(len, scenes))
    self.shape = (len(scenes), count)

    def table(read, missing=0.0):
      rows = [[read(solid) for solid in each] + [missing] * (count - len(each)) for each in scenes]
      return np.array(rows)

    self.there = table(lambda solid: True, False)
    self.kind = table(lambda solid: KINDS.index(solid.shape), -1)
    self.size = table(lambda solid: solid.size, 1.0)
    self.yaw = table(lambda solid: solid.yaw)
    numbers = {
      name: table(lambda s, n=name: getattr(MATERIALS[s.material], n), 1.0) for name in NUMBERS
    }
    ball = self.kind == 0
    volume = table(lambda solid: SHAPES[solid.shape].volume, 1.0)
    self.mass = numbers['density'] * volume * self.size**3
    self.bounce = numbers['bounce']
    self.landing = np.where(ball, self.bounce, LANDING * self.bounce)
    self.braking = np.where(ball, numbers['rolling'], numbers['sliding'])
    self.half = self.size * np.choose(self.kind.clip(0), [1.0, 0.8, 0.95, 1.0])
    height = table(lambda solid: solid.height)
    place = table(lambda solid: solid.place, (1e3, 1e3))
    velocity = table(lambda solid: solid.velocity, (0.0, 0.0))
    self.place = np.concatenate([place, (self.half + height)[..., None]], -1)
    self.velocity = np.concatenate([velocity, np.zeros((*self.shape, 1))], -1)
    self.flies = height > 0

  def energy(self):
    """Kinetic and potential energy of each scene."""
    moving = (self.velocity**2).sum(-1) / 2 + GRAVITY * self.place[..., 2]
    return (self.mass * moving * self.there).sum(1)

  def acceleration(self):
    flat = self.velocity * [1, 1, 0]
    speed = np.linalg.norm(flat, axis=-1, keepdims=True)
    friction = -self.braking[..., None] * flat / np.maximum(speed, 1e-12)
    return np.where(self.flies[..., None], [0, 0, -GRAVITY], friction)

  def gap(self, ball, other, place):
    """How far a ball at `place` (s 3) is from another solid, by signed distance."""
    rows = np.arange(self.shape[0])
    size, kind, half = (each[rows, other] for each in (self.size, self.kind, self.half))
    away = place - self.place[rows, other]
    c, s = np.cos(self.yaw[rows, other]), np.sin(self.yaw[rows, other])
    turned = np.stack([c * away[:, 0] + s * away[:, 1], c * away[:, 1] - s * away[:, 0]], -1)
    flat, up = np.hypot(away[:, 0], away[:, 1]), away[:, 2]
    box = np.abs(np.concatenate([turned, up[:, None]], 1)) - 0.8 * size[:, None]
    drum = np.stack([flat - 0.8 * size, np.abs(up) - half], 1)

    def outside(extent):
      return np.linalg.norm(np.maximum(extent, 0), axis=1) + np.minimum(extent.max(1), 0)

    # A cone from the side: the nearest point of the line from its base's rim to its tip.
    along = np.stack([-size, 2 * half], 1)
    from_rim = np.stack([flat - size, up + half], 1)
    share = ((from_rim * along).sum(1) / (along**2).sum(1)).clip(0, 1)
    slant = np.linalg.norm(from_rim - share[:, None] * along, axis=1)
    distances = [np.linalg.norm(away, axis=1) - size, outside(box), outside(drum), slant]
    return np.choose(kind.clip(0), distances) - self.size[rows, ball]

  def slope(self, ball, other, place, reach=1e-6):
    """The direction in which the gap grows, by central differences."""
    ends = [
      [self.gap(ball, other, place + sign * reach * axis) for sign in (1, -1)] for axis in np.eye(3)
    ]
    return np.stack([(high - low) / (2 * reach) for high, low in ends], 1)


def simulate(scenes, seconds, every):
  """Steps through scenes (tuples of solids); returns contacts, positions and the energy.

  Contacts are (time, place, impulse, first, second) of each scene; positions (k scene solid 3) and
  energies (k scene) are after each `every` seconds.
  """
  crowd = Crowd(scenes)
  rows = np.arange(crowd.shape[0])
  pairs = [(i, j) for j in range(crowd.shape[1]) for i in range(j)]
  contacts = [[] for _ in scenes]
  places, energies = [], []

  def gaps(pair):
    first, second = pair
    swap = crowd.kind[:, first] != 0
    ball, other = np.where(swap, second, first), np.where(swap, first, second)
    valid = (crowd.kind[rows, ball] == 0) & crowd.there[:, first] & crowd.there[:, second]
    gap = crowd.gap(ball, other, crowd.place[rows, ball])
    return np.where(valid, gap, np.inf), ball, other

  before = {pair: gaps(pair)[0] for pair in pairs}
  for step in range(round(seconds / STEP)):
    old = crowd.place[..., 2] - crowd.half
    acceleration = crowd.acceleration()
    crowd.place += crowd.velocity * STEP + acceleration * STEP**2 / 2
    speed = np.linalg.norm(crowd.velocity, axis=-1)
    crowd.velocity += acceleration * STEP
    stops = ~crowd.flies & (speed <= crowd.braking * STEP)
    crowd.velocity[stops] = 0
    # Landings.
    new = crowd.place[..., 2] - crowd.half
    for scene, solid in zip(*np.nonzero(crowd.flies & (new <= 0)), strict=True):
      left = STEP * new[scene, solid] / (new[scene, solid] - old[scene, solid])
      fall = -crowd.velocity[scene, solid, 2] - GRAVITY * left
      rise = crowd.landing[scene, solid] * fall
      at = crowd.place[scene, solid] - left * crowd.velocity[scene, solid]
      crowd.flies[scene, solid] = rise >= SLOWEST
      rise *= crowd.flies[scene, solid]
      impulse = crowd.mass[scene, solid] * (fall + rise)
      contacts[scene].append(((step + 1) * STEP - left, (*at[:2], 0.0), impulse, solid, ON_FLOOR))
      crowd.velocity[scene, solid, 2] = rise - GRAVITY * left * crowd.flies[scene, solid]
      crowd.place[scene, solid, 2] = crowd.half[scene, solid] + rise * left
    # Meetings.
    for pair in pairs:
      gap, ball, other = gaps(pair)
      touching = np.nonzero((gap < 0) & (before[pair] > 0))[0]
      if len(touching):
        slope = crowd.slope(ball, other, crowd.place[rows, ball])
      for scene in touching:
        one, two = ball[scene], other[scene]
        left = STEP * gap[scene] / (gap[scene] - before[pair][scene])
        flat = slope[scene] * [1, 1, 0]
        flat /= np.linalg.norm(flat)
        mass = crowd.mass[scene]
        approach = -(crowd.velocity[scene, one] - crowd.velocity[scene, two]) @ flat
        bounce = (crowd.bounce[scene, one] + crowd.bounce[scene, two]) / 2
        impulse = (1 + bounce) * approach / (1 / mass[one] + 1 / mass[two])
        at = crowd.place[scene, one] - left * crowd.velocity[scene, one]
        at = at - crowd.size[scene, one] * slope[scene]
        contacts[scene].append(((step + 1) * STEP - left, tuple(at), impulse, *pair))
        for each, sign in ((one, 1), (two, -1)):
          kick = sign * impulse / mass[each] * flat
          crowd.velocity[scene, each] += kick
          crowd.place[scene, each] += left * kick
        gap[scene] = 1e-9  # they part
      before[pair] = gap
    if (step + 1) % round(every / STEP) == 0:
      places.append(crowd.place.copy())
      energies.append(crowd.energy())
  return contacts, np.array(places), np.array(energies)
