"""Synthetic audio of moving digits: a click and the tone of the digit at every impact.

Nothing else is heard: a clip without an event is digital silence. So what a model of audio has to
learn can be read back without error: when (the clicks), what (the tone) and nothing (silence).
"""

import functools

import numpy as np

from mgjax.core.typing import Float
from mgjax.data.synthetic_datasets import RATE

TONES = tuple(300 * (2500 / 300) ** (digit / 9) for digit in range(10))  # Hz, 4 semitones apart
DECAY = 0.08  # seconds in which a tone falls to 1/e
PEAK = 0.89  # the loudest sample, at most
_LASTING = 10 * DECAY  # seconds; what is cut off is below half a step of 16 bits
_CLICK = 0.004  # seconds
_CLICK_DECAY = 0.001
_CLICK_VOLUME, _TONE_VOLUME = 0.22, 0.2


@functools.cache
def impact(digit: int) -> Float[np.ndarray, 's']:
  """The sound of one event: a click of 4 ms, the same for all, and A sin(2 pi f t) exp(-t / tau).

  f is `TONES[digit]`, tau `DECAY`. The click is a burst of noise that begins at its loudest, so
  that its onset is sharp in every band of the spectrum.
  """
  time = np.arange(round(_LASTING * RATE)) / RATE
  sound = _TONE_VOLUME * np.sin(2 * np.pi * TONES[digit] * time) * np.exp(-time / DECAY)
  noise = np.random.default_rng(0).uniform(-1, 1, round(_CLICK * RATE))
  noise[0] = 1
  sound[: len(noise)] += _CLICK_VOLUME * noise * np.exp(-time[: len(noise)] / _CLICK_DECAY)
  sound = sound.astype(np.float32)
  sound.flags.writeable = False  # it is cached
  return sound


def digit_sound(
  digit: int, events: Float[np.ndarray, '_'], samples: int
) -> Float[np.ndarray, 's 1']:
  """Adds up the impacts of a digit at `events` (seconds, each put on the nearest sample).

  The first sample of a impact is the event. Sums beyond `PEAK` are lowered as a whole.
  """
  sound = np.zeros(samples, np.float32)
  for event in events:
    first = round(event * RATE)
    heard = impact(digit)[: max(0, samples - first)]
    sound[first : first + len(heard)] += heard
  loudest = float(np.abs(sound).max(initial=0))
  if loudest > PEAK:
    sound *= np.float32(PEAK / loudest)
  return sound[:, None]
