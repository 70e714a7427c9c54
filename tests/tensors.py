"""Arrays by name, as files of weights and samples hold them."""

import numpy as np


def assert_same(found, expected):
  """Compares every name, type, shape and number."""
  assert found.keys() == expected.keys()
  for name, array in found.items():
    np.testing.assert_array_equal(array, expected[name], strict=True, err_msg=name)


def same_each(found, expected):
  """Compares as many samples or batches, in their order."""
  assert len(found) == len(expected)
  for index in range(len(found)):
    assert_same(found[index], expected[index])


def changed(tensors, shapes):
  """The tensors with ones of other shapes in place of some, and without those of the shape None."""
  ones = {name: np.ones(shape, np.float32) for name, shape in shapes.items() if shape is not None}
  return {name: tensor for name, tensor in tensors.items() if name not in shapes} | ones
