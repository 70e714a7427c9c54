import contextlib
import functools
import itertools
import math

import numpy as np
import pytest

from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.kinds import GRAVITY, MATERIALS, SHAPES
from mgjax.lab.worlds.solids.physics import ON_FLOOR, CannotBeToldError, simulate
from mgjax.lab.worlds.solids.scene import Solid
from tests.lab.worlds.solids import stepping

SECONDS, EVERY = 2.4, 0.05


def _hits():
  """A ball that rolls into every shape, straight and aside, of sizes that touch its rim or side."""
  cases = itertools.product(SHAPES, (0.3, 0.7), (0.35, 0.75), (0.0, 0.15, -0.3))
  kinds = itertools.cycle(itertools.product(MATERIALS, MATERIALS))
  for (shape, size, other, aside), (first, second) in zip(cases, kinds, strict=False):
    ball = Solid('ball', 'red', first, size, place=(-2.0, aside), velocity=(1.5, 0.05))
    still = Solid(shape, 'blue', second, other, place=(0.3, 0.0), yaw=0.4 if aside else 0.0)
    pair = (ball, still) if aside >= 0 else (still, ball)
    with contextlib.suppress(CannotBeToldError):  # a heavy ball that pushes on
      simulate(pair)
      yield pair


def _crossing():
  """Two balls whose paths cross at an angle, and a ball that catches up with a cube that slides."""
  for angle in (0.5, 1.2, 2.0):
    way = (1.1 * math.cos(angle), 1.1 * math.sin(angle))
    first = Solid('ball', 'red', 'metal', 0.5, place=(-1.2, 0.0), velocity=(1.2, 0.0))
    other = Solid('ball', 'blue', 'wood', 0.4, place=(-1.1 * way[0], -1.1 * way[1]), velocity=way)
    yield first, other
  cube = Solid('cube', 'green', 'rubber', 0.5, place=(0.0, 0.1), velocity=(0.0, 1.4), yaw=0.3)
  yield Solid('ball', 'red', 'glass', 0.5, place=(-1.8, 0.3), velocity=(1.6, 0.3)), cube


@functools.cache
def _scenes():
  source = Solids(seed=5, solids=(1, 3))
  return tuple([source.scene(index).solids for index in range(48)] + [*_hits(), *_crossing()])


@functools.cache
def _stepped():
  return stepping.simulate(_scenes(), SECONDS, EVERY)


def test_contacts_are_those_of_a_simulation_by_small_steps():
  compared = {ON_FLOOR: 0, 1: 0}
  for solids, stepped in zip(_scenes(), _stepped()[0], strict=True):
    exact = [each for each in simulate(solids).contacts if each.time < SECONDS - 0.01]
    stepped = sorted(each for each in stepped if each[0] < SECONDS - 0.005)
    assert len(stepped) >= len(exact)
    for contact, (time, place, impulse, *pair) in zip(exact, stepped, strict=False):
      assert [contact.first, contact.second] == pair
      assert abs(contact.time - time) < 1e-3
      assert math.dist(contact.place, place) < 1e-3
      assert contact.strength == pytest.approx(impulse, rel=5e-3, abs=1e-3)
      compared[min(contact.second, 1)] = compared.get(min(contact.second, 1), 0) + 1
  assert compared[ON_FLOOR] > 50 and compared[1] > 50


def test_positions_are_those_of_a_simulation_by_small_steps():
  _, places, _ = _stepped()
  times = EVERY * (1 + np.arange(len(places)))
  for number, solids in enumerate(_scenes()):
    for index, track in enumerate(simulate(solids).tracks):
      assert np.abs(track.positions(times) - places[:, number, index]).max() < 1e-3


def test_energy_never_grows():
  times = np.linspace(0, 6, 601)
  for solids in _scenes():
    total = 0
    for solid, track in zip(solids, simulate(solids).tracks, strict=True):
      kinetic = (track.velocities(times) ** 2).sum(1) / 2
      total = total + solid.mass * (kinetic + GRAVITY * track.positions(times)[:, 2])
    assert (np.diff(total) <= 1e-9).all()


def test_momentum_stays_where_two_meet():
  for solids in _hits():
    (contact, *_) = simulate(solids).contacts
    change = np.zeros(2)
    for solid, track in zip(solids, simulate(solids).tracks, strict=True):
      before, after = track.velocities(contact.time + np.array([-1e-9, 0]))[:, :2]
      change += solid.mass * (after - before)
      assert np.hypot(*(solid.mass * (after - before))) == pytest.approx(contact.strength, rel=1e-6)
    assert np.abs(change).max() < 1e-7


def test_balls_roll_without_slipping():
  ball = Solid('ball', 'red', 'rubber', 0.5, place=(0.0, 0.0), velocity=(0.0, 1.0))
  (track,) = simulate((ball,)).tracks
  times = np.linspace(0, 3, 7)
  top = track.turns(times)[:, :, 2]  # of the ball at the beginning
  angle = np.arctan2(top[:, 1], top[:, 2])
  gone = track.positions(times)[:, 1] / ball.size
  assert np.allclose(np.unwrap(angle), gone, atol=1e-9)
  assert np.allclose(top[:, 0], 0, atol=1e-12)


def test_what_bounces_comes_to_rest_and_then_rolls_until_friction_stops_it():
  ball = Solid('ball', 'red', 'rubber', 0.4, height=1.2, velocity=(0.5, 0.0))
  history = simulate((ball,))
  (track,) = history.tracks
  assert len(history.contacts) > 5
  assert all(
    later.strength < first.strength for first, later in itertools.pairwise(history.contacts)
  )
  assert np.abs(track.velocities(np.array([60.0]))).max() == 0
  assert track.positions(np.array([60.0]))[0, 2] == pytest.approx(ball.rest)
