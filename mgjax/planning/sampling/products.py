"""Operations of convolutions and matrix products of a function, from its trace alone."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend

from mgjax.core.typing import Tree


def count_products(function: Callable[..., Any], *arguments: Tree) -> int:
  """Counts the operations of a function's convolutions and matrix products; a multiply-add is two.

    2 |y| |k| / o    of a convolution with kernel k of o output channels and result y
    2 |y| m          of a product that sums over m numbers

  Loops count as often as they run, but `while`, of which nobody knows, once; of branches the
  largest counts.

  Args:
    function: is traced, not run; outside of `jax.set_mesh`, or its pieces would be counted.
    arguments: arrays or shapes.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    params, shapes = equation.params, [variable.aval.shape for variable in equation.invars]
    results = sum(math.prod(variable.aval.shape) for variable in equation.outvars)
    match equation.primitive.name:
      case 'conv_general_dilated':
        outputs = shapes[1][params['dimension_numbers'].rhs_spec[0]]
        total += 2 * results * math.prod(shapes[1]) // outputs
      case 'dot_general':
        (summed, _), _ = params['dimension_numbers']
        total += 2 * results * math.prod(shapes[0][axis] for axis in summed)
      case 'cond':
        total += max(_count(branch.jaxpr) for branch in params['branches'])
      case _:
        inner = sum(map(_count, jax.extend.core.jaxprs_in_params(params)))
        total += params.get('length', 1) * inner
  return total
