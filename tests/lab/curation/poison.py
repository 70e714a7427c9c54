"""Videos that kill whoever looks at them: a score does what their brightness says."""

import ctypes
import os
import signal
import time

import numpy as np

from mgjax.data.media.video import write_video

HARMLESS = 'harmless'
KINDS = ('segfault', 'loop', 'memory', 'exit', 'sleep')
_STEP = 40  # of brightness between two kinds


def write(path, kind, seconds=1.0, side=32):
  """Writes a video of this kind; its pattern moves."""
  level = _STEP * ([HARMLESS, *KINDS].index(kind) + 0.5)
  count = round(seconds * 8)
  frames = np.full((count, side, side, 3), level, np.uint8)
  for number in range(count):
    frames[number, number % side, :, 1] += 9
  write_video(path, frames, 8)


def score(frames, weights):
  """The score of harmless videos; the others are the end of the process."""
  del weights
  kind = [HARMLESS, *KINDS][int(frames.mean() // _STEP)]
  if kind == 'segfault':
    ctypes.string_at(0)
  elif kind == 'loop':
    while True:
      pass
  elif kind == 'memory':
    held = []
    while True:
      held.append(np.ones(2**24))
  elif kind == 'exit':
    os._exit(0)
  elif kind == 'sleep':
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    time.sleep(1e6)
  return float(frames.mean())


def slow(frames, weights):
  """A score that takes its time."""
  del weights
  time.sleep(0.4)
  return float(frames.mean())
