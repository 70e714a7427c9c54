"""Counting operations from a trace."""

import jax
import jax.numpy as jnp

from mgjax.planning.sampling.products import count_products


def test_products_are_counted_in_strides_loops_and_branches():
  def function(x, kernel, matrix, flag):
    y = jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((0, 1), (0, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    z, _ = jax.lax.scan(lambda z, _: (jax.jit(jnp.dot)(z, matrix), None), matrix, length=3)
    return y, jax.lax.cond(flag, lambda: z @ matrix, lambda: z)

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 4, 6, 5), (3, 3, 5, 7))]
  matrix, flag = jax.ShapeDtypeStruct((2, 2), jnp.float32), jax.ShapeDtypeStruct((), bool)
  convolution, product = 2 * (2 * 3) * 9 * 5 * 7, 2 * 2**3
  assert count_products(function, *shapes, matrix, flag) == convolution + 4 * product
