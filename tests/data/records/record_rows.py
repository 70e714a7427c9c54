"""Rows for tests of records."""

import ml_dtypes
import numpy as np


def make_rows(count=10):
  generator = np.random.default_rng(0)
  return [
    {
      'latents': generator.normal(size=(2, 3, 3, 4)).astype(ml_dtypes.bfloat16),
      'caption': f'the green digit {index} moves left ✓',
      'index': index,
    }
    for index in range(count)
  ]


def assert_same_row(actual, expected):
  assert list(actual) == list(expected)
  for name, value in expected.items():
    if isinstance(value, np.ndarray | np.generic):
      assert (actual[name].dtype, actual[name].shape) == (value.dtype, value.shape)
      assert actual[name].tobytes() == value.tobytes()
    else:
      assert actual[name] == value
      assert type(actual[name]) is type(value)
