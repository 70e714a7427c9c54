"""Weights of area-average resampling along one axis."""

import functools

import numpy as np

from mgjax.core.typing import Float


@functools.cache
def averaging(length: int, wanted: int) -> Float[np.ndarray, 'i h']:
  """Returns rows that average the `length` input pixels under each of `wanted` output pixels."""
  edges = np.linspace(0, length, wanted + 1, dtype=np.float32)[:, None]
  pixels = np.arange(length, dtype=np.float32)
  overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
  return np.maximum(overlap, 0) * np.float32(wanted / length)
