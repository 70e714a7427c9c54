"""Audio of solids: impacts by modes, rolling and sliding as filtered noise, heard from the camera.

An impact is a sum of damped cosines, sum_k a_k exp(-d_k t) cos(2 pi f_k t). Its pitch f goes with
1 / size and the material, its decay d and its brightness with the material. Its amplitude goes with
the root of the impulse (van den Doel and Pai 1998; Traer, Cusimano and McDermott 2019). Both solids
of a contact are heard. It begins at the sample nearest to the contact, with silence before it.
Without contact or motion on the floor there is digital silence.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

from mgjax.core.typing import Float, Int
from mgjax.data.synthetic_datasets import RATE
from mgjax.lab.worlds.solids.camera import poses
from mgjax.lab.worlds.solids.kinds import MATERIALS, SHAPES
from mgjax.lab.worlds.solids.physics import ON_FLOOR, Contact, Track, simulate
from mgjax.lab.worlds.solids.scene import Scene, Solid

PEAK = 0.89  # what loud sums approach and never reach
_LEVEL = 0.22  # of an impact of impulse 1 at `_NEAR`
_NEAR = 5.2  # units
_SIDE = math.pi / 4  # angle from straight ahead from where on one channel is silent
_MODES = 12
_CLICK, _CLICK_DECAY = 0.003, 0.0006  # seconds, the same for all
_CLICK_LEVEL = 0.3
_QUIETEST = 1e-3  # of an impact, where it ends
_BLOCK = 256  # samples that are made at a time
_NOISE = {'rolls': 0.012, 'slides': 0.017}  # at a speed of 1
_GRID = 96  # samples between speeds and places of what rolls


@functools.cache
def modes(shape: str, material: str) -> Float[np.ndarray, 'k 3']:
  """Frequency (Hz), damping (1/s) and amplitude of each mode of a solid of size 1.

  The ratios of frequencies belong to the shape, how they fade to the material.
  """
  kind = MATERIALS[material]
  generator = np.random.default_rng((0, list(SHAPES).index(shape)))
  ratio = np.concatenate([[1.0], 1 + np.cumsum(generator.gamma(4.0, 0.16, _MODES - 1))])
  strength = generator.uniform(0.5, 1.0, _MODES) * kind.brightness ** np.arange(_MODES)
  return np.stack(
    [kind.pitch * ratio, kind.damping * (0.75 + 0.25 * ratio), strength / strength.sum()], 1
  )


def impact(solid: Solid, samples: int) -> Float[np.ndarray, 's']:
  """The audio of a solid that is struck, at most so many samples; the first is 1."""
  frequency, damping, strength = modes(solid.shape, solid.material).T
  frequency = frequency / solid.size
  heard = frequency < 0.45 * RATE
  lasting = min(samples, math.ceil(-math.log(_QUIETEST) / damping[0] * RATE))
  step = (-damping[heard] + 2j * np.pi * frequency[heard]) / RATE
  blocks = np.exp(np.outer(np.arange(-(-lasting // _BLOCK)) * _BLOCK, step)).astype(np.complex64)
  within = np.exp(np.outer(step, np.arange(_BLOCK))) * strength[heard, None]
  return (blocks @ within.astype(np.complex64)).real.reshape(-1)[:lasting] / strength[heard].sum()


@functools.cache
def _click() -> Float[np.ndarray, 's']:
  time = np.arange(round(_CLICK * RATE)) / RATE
  noise = np.random.default_rng(0).uniform(-1, 1, len(time))
  noise[0] = 1
  return noise * np.exp(-time / _CLICK_DECAY)


def loudness(contact: Contact) -> float:
  """The amplitude of a contact, heard from `_NEAR` units away."""
  return _LEVEL * math.sqrt(contact.strength)


def sound(scene: Scene, seconds: float, last: float) -> Float[np.ndarray, 's 2']:
  """Returns the sound of a scene, left and right; its last frame is at `last` seconds.

  A longer clip starts like a shorter one, except that the camera's move takes longer.
  """
  samples = round(seconds * RATE)
  history = simulate(scene.solids)
  followed = history.tracks[scene.follows]
  total = np.zeros((samples, 2))
  for contact in history.contacts:
    first = round(contact.time * RATE)
    if first >= samples:
      break
    position = np.array(contact.place)[None]
    gains = _gains(scene, followed, np.array([contact.time]), position, last)[0]
    for index in (contact.first, contact.second):
      if index != ON_FLOOR:
        wave = impact(scene.solids[index], samples - first)
        total[first : first + len(wave)] += loudness(contact) * np.outer(wave, gains)
    wave = _CLICK_LEVEL * loudness(contact) * _click()[: samples - first]
    total[first : first + len(wave)] += np.outer(wave, gains)
  for index, track in enumerate(history.tracks):
    total += _friction(scene, index, track, followed, samples, last)
  return (PEAK * np.tanh(total / PEAK)).astype(np.float32)


def heard(
  scene: Scene, contacts: Sequence[Contact], last: float
) -> tuple[Float[np.ndarray, 'k'], Int[np.ndarray, 'k 2']]:
  """Returns the amplitudes of contacts at the camera, and their materials."""
  followed = simulate(scene.solids).tracks[scene.follows]
  names = list(MATERIALS)
  times = np.array([contact.time for contact in contacts])
  positions = np.array([contact.place for contact in contacts]).reshape(-1, 3)
  gains = np.sqrt(np.square(_gains(scene, followed, times, positions, last)).sum(1) / 2)
  materials = [
    [names.index(name) if name in names else -1 for name in contact.materials]
    for contact in contacts
  ]
  levels = np.array([loudness(contact) for contact in contacts])
  return levels * gains, np.array(materials, int).reshape(-1, 2)


def _friction(
  scene: Scene, index: int, track: Track, followed: Track, samples: int, last: float
) -> Float[np.ndarray, '_ 2']:
  """Returns the noise of a solid that moves on the floor: louder and brighter when it is faster."""
  solid = scene.solids[index]
  times = np.arange(0, samples + _GRID, _GRID) / RATE
  positions = track.positions(times)
  velocity = track.velocities(times)
  speed = np.hypot(velocity[:, 0], velocity[:, 1])
  speed = np.where(positions[:, 2] > solid.rest + 1e-6, 0.0, speed)
  if not speed.any():
    return np.zeros((1, 2))
  from scipy.signal import lfilter  # 100 ms, which those without sound need not wait for

  kind = 'rolls' if solid.shape == 'ball' else 'slides'
  generator = np.random.default_rng((scene.wording, index))
  noise = generator.standard_normal(samples)
  pitch = MATERIALS[solid.material].pitch / solid.size * (3 if kind == 'slides' else 1)
  dull, bright = (
    lfilter([1 - pole], [1, -pole], noise) / math.sqrt((1 - pole) / (1 + pole))
    for pole in (math.exp(-2 * math.pi * cut / RATE) for cut in (pitch / 2, 4 * pitch))
  )
  ears = _gains(scene, followed, times, positions, last)
  at = np.arange(samples) / RATE
  speed = np.interp(at, times, speed)
  share = np.minimum(speed / 2, 1)
  wave = _NOISE[kind] * math.sqrt(solid.mass) * speed * ((1 - share) * dull + share * bright)
  return np.stack([wave * np.interp(at, times, ear) for ear in ears.T], 1)


def _gains(scene: Scene, followed: Track, times, places, last: float) -> Float[np.ndarray, 't 2']:
  """Returns the gains of sources, left and right: 1 / distance, panned at constant power."""
  view = poses(scene.camera, followed, times, last)
  relative = np.einsum('tij,tj->ti', view.axes, places - view.eye)
  angle = np.clip(np.arctan2(relative[:, 0], relative[:, 2]) / _SIDE, -1, 1)
  pan = (angle + 1) * math.pi / 4
  attenuation = _NEAR / np.maximum(np.linalg.norm(relative, axis=1), 1.0)
  return attenuation[:, None] * np.stack([np.cos(pan), np.sin(pan)], 1)
