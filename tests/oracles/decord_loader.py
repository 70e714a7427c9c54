"""decord's readers in the workers of PyTorch's DataLoader, to be timed against ours (launch.bench).

The package decord2 3.4.0 keeps the abandoned decord alive; it is no dependency of this project.
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import torch_loader

WHAT = ('data',)


def read_with_decord(path, start, frames, fps, size):
  import decord

  height, width = size
  reader = decord.VideoReader(path, num_threads=1)
  rate = reader.get_avg_fps()
  indices = ((start + np.arange(frames) / fps) * rate + 1e-3).astype(int)
  images = reader.get_batch(indices.tolist()).asnumpy()
  top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
  return np.ascontiguousarray(images[:, top : top + height, left : left + width])


def make_programs(task):
  import decord  # noqa: F401

  return torch_loader.make_programs(task, read_with_decord, 'torch DataLoader + decord2')
