"""Named views of parameters, and the types they are computed in."""

import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core import tree
from mgjax.core.errors import ConfigError
from mgjax.core.precision import compute_type
from mgjax.core.settings import checked

PARAMS = {
  'backbone': {
    'layers': {
      'up': {'kernel': np.ones((2, 3))},
      'down': {'kernel': np.ones((3, 2)), 'bias': np.ones(2)},
    }
  },
  'text': {'table': np.ones((10, 4))},
}


@flax.struct.dataclass
class Pair:
  first: int
  rest: list


def test_leaves_have_names_in_lists_and_dataclasses_too():
  assert tree.named_leaves(Pair(1, [2, {'a': 3}])) == {'first': 1, 'rest/0': 2, 'rest/1/a': 3}
  names = ['backbone/layers/down/bias', 'backbone/layers/down/kernel', 'backbone/layers/up/kernel']
  assert list(tree.named_leaves(PARAMS)) == [*names, 'text/table']


def test_numbers_are_counted():
  assert tree.count_parameters(PARAMS) == 6 + 6 + 2 + 40
  table = tree.parameter_table(PARAMS).splitlines()
  assert [line.split() for line in table] == [
    ['backbone/layers/down', '8', '14.8%'],
    ['backbone/layers/up', '6', '11.1%'],
    ['text/table', '40', '74.1%'],
    ['total', '54', '100.0%'],
  ]


def test_compute_types_go_by_name():
  assert compute_type('bfloat16') == jnp.bfloat16
  with pytest.raises(ConfigError, match="unknown compute type 'float8'; expected one of"):
    compute_type('float8')
  with pytest.raises(ConfigError, match="unknown compute type '8'; expected one of"):
    checked(np.dtype, 8, 'model.dtype')
