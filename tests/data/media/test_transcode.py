"""Encoding anew is repeatable; what becomes of a clip is tested beside its rows."""

import os
import subprocess
import sys

from tests.binaries import CHECKOUT

PERTURBED = """
import hashlib, numpy as np
from mgjax.data.media.video import encode_frames
for seed in (0, 2):
  generator = np.random.default_rng(seed)
  field = generator.integers(0, 256, (112, 128, 3)).astype(np.float32)
  for axis in (0, 1, 0, 1):
    field = sum(np.roll(field, i, axis) for i in range(4)) / 4
  field = np.uint8((field - field.min()) / np.ptp(field) * 255)
  places = np.cumsum(generator.integers(0, 4, (16, 2)), axis=0)
  frames = [(i / 30, (i + 1) / 30, field[y:y + 48, x:x + 64]) for i, (y, x) in enumerate(places)]
  data = encode_frames(frames, fps=30, clock=90_000, crf=20, gop=16)
  print(hashlib.sha256(data).hexdigest())
"""


def test_the_same_frames_are_encoded_as_the_same_bytes_whatever_was_in_memory():
  said = set()
  command = [sys.executable, '-c', PERTURBED]
  for byte in ('85', '170'):  # with which the C library of Linux fills what it gives out
    environment = {**os.environ, 'MALLOC_PERTURB_': byte}
    said.add(subprocess.check_output(command, env=environment, cwd=CHECKOUT))
  assert len(said) == 1
