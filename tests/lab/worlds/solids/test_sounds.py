import dataclasses
import itertools

import numpy as np
import pytest

from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.kinds import MATERIALS
from mgjax.lab.worlds.solids.physics import simulate
from mgjax.lab.worlds.solids.scene import Scene, Solid
from mgjax.lab.worlds.solids.sounds import PEAK, RATE, impact, loudness

SOURCE = Solids(sound=True)
DROP = Solid('cube', 'red', 'wood', 0.5, 'falls', height=1.0)


def _heard(*solids, source=SOURCE, **fields):
  scene = Scene(solids, **fields)
  return source._sample(scene, source.labels(scene))['audio']


def test_an_impact_begins_at_its_very_sample_after_silence():
  for height in (0.8, 1.0, 1.3):
    solid = dataclasses.replace(DROP, height=height)
    sound = _heard(solid)
    assert sound.shape == (2 * RATE, 2) and sound.dtype == np.float32
    first = round(simulate((solid,)).contacts[0].time * RATE)
    assert not sound[:first].any() and (np.abs(sound[first]) > 0.01).all()
    assert SOURCE.labels(Scene((solid,))).contacts[0].time == pytest.approx(first / RATE, abs=1e-5)


def test_what_does_not_move_on_the_floor_is_silent():
  still = dataclasses.replace(DROP, motion='spins', height=0.0, spin=2.0)
  assert not _heard(still).any()


def test_the_sum_of_modes_is_that_of_the_formula():
  for material in MATERIALS:
    solid = dataclasses.replace(DROP, material=material)
    sound = impact(solid, 4000)
    from mgjax.lab.worlds.solids.sounds import modes

    frequency, damping, strength = modes('cube', material).T
    heard = frequency / 0.5 < 0.45 * RATE
    time = np.arange(len(sound)) / RATE
    wave = np.exp(-np.outer(time, damping)) * np.cos(2 * np.pi * np.outer(time, frequency / 0.5))
    expected = wave[:, heard] @ strength[heard] / strength[heard].sum()
    assert sound[0] == pytest.approx(1) and np.abs(sound - expected).max() < 1e-4


def _centre(sound):
  power = np.abs(np.fft.rfft(sound)) ** 2
  return (power * np.fft.rfftfreq(len(sound), 1 / RATE)).sum() / power.sum()


def _decay(sound):
  left = np.cumsum(sound[::-1] ** 2)[::-1]
  return np.argmax(left < 1e-3 * left[0]) / RATE


def test_pitch_tells_size_and_material_and_decay_tells_material():
  sounds = {
    (name, size): impact(dataclasses.replace(DROP, material=name, size=size), 2 * RATE)
    for name in MATERIALS
    for size in (0.4, 0.6)
  }
  for name in MATERIALS:
    assert _centre(sounds[name, 0.4]) > 1.15 * _centre(sounds[name, 0.6])
  decays = [_decay(sounds[name, 0.6]) for name in ('metal', 'glass', 'wood', 'rubber')]
  assert all(longer > 1.5 * shorter for longer, shorter in itertools.pairwise(decays))
  centres = [_centre(sounds[name, 0.6]) for name in ('glass', 'metal', 'wood', 'rubber')]
  assert all(higher > 1.2 * lower for higher, lower in itertools.pairwise(centres))


def test_stronger_impacts_are_louder():
  contacts = [simulate((dataclasses.replace(DROP, height=h),)).contacts[0] for h in (0.3, 0.8, 1.5)]
  levels = [loudness(contact) for contact in contacts]
  peaks = [np.abs(_heard(dataclasses.replace(DROP, height=h))).max() for h in (0.3, 0.8, 1.5)]
  assert levels == sorted(levels) and peaks == sorted(peaks) and peaks[2] < PEAK


def test_a_sound_comes_from_where_it_is_seen():
  for x, louder in ((-1.2, 0), (1.2, 1)):
    power = (_heard(dataclasses.replace(DROP, place=(x, 0.0))) ** 2).sum(0)
    assert power[louder] > 2 * power[1 - louder]
  left, right = (_heard(DROP) ** 2).sum(0)
  assert left == pytest.approx(right)


def test_rolling_is_louder_and_brighter_when_faster_and_ends_with_the_motion():
  def roll(speed):
    return _heard(Solid('ball', 'red', 'rubber', 0.5, 'rolls right', (-0.5, 0.0), (speed, 0.0)))

  slow, fast = (roll(speed)[: RATE // 2, 0] for speed in (0.4, 1.2))
  assert (fast**2).mean() > 4 * (slow**2).mean()
  assert _centre(fast) > 1.2 * _centre(slow)
  stops = round(0.2 / MATERIALS['rubber'].rolling * RATE)
  assert not roll(0.2)[stops + 200 :].any()


def test_a_longer_clip_begins_with_the_sound_of_a_shorter_one():
  longer = Solids(sound=True, frames=24)
  ball = Solid('ball', 'red', 'glass', 0.5, 'bounces left', (0.5, 0.0), (-0.5, 0.0), 1.2)
  short, long = _heard(ball, DROP), _heard(ball, DROP, source=longer)
  np.testing.assert_allclose(short, long[: 2 * RATE], atol=1e-6)  # sums of other blocks


def test_events_are_the_contacts_of_the_clip():
  for index in range(10):
    sample = SOURCE.listen(index)
    scene = SOURCE.scene(index)
    expected = [each.time for each in simulate(scene.solids).contacts if each.time < 2]
    assert sample['events'].tolist() == expected
    assert np.abs(sample['audio']).max() < PEAK
