"""Depthwise convolutions and their gradients, against their definition in float64."""

import itertools

import jax
import numpy as np
import pytest

from mgjax.nn.depthwise import convolve

EPS = np.finfo(np.float32).eps


def drawn(shape, seed):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_definition(x, taps, y):
  """The convolution, and what y has for gradients of x and of the taps, place by place."""
  out, of_x, of_taps = np.zeros_like(y), np.zeros_like(x), np.zeros_like(taps)
  places = list(np.ndindex(x.shape[1:4]))
  for p, o in itertools.product(places, np.ndindex(3, 3, 3)):
    q = tuple(np.add(p, o) - 1)
    if q in places:
      there, here = (slice(None), *q), (slice(None), *p)
      out[here] += taps[o] * x[there]
      of_x[there] += taps[o] * y[here]
      of_taps[o] += (x[there] * y[here]).sum(0)
  return out, of_x, of_taps


@pytest.mark.parametrize('sizes', [(2, 3, 4), (1, 3, 2), (1, 1, 5)])
def test_a_convolution_and_its_gradients_are_those_of_the_definition(sizes):
  x, taps, y = drawn((2, *sizes, 5), 0), drawn((3, 3, 3, 5), 1), drawn((2, *sizes, 5), 2)
  made, pull = jax.vjp(jax.jit(convolve), x, taps)
  wanted = by_definition(*(np.float64(each) for each in (x, taps, y)))
  # Sums of at most 27 or 2 * 24 products below 16, each of which is rounded.
  for one, two in zip((made, *pull(y)), wanted, strict=True):
    np.testing.assert_allclose(one, two, rtol=0, atol=48 * 16 * EPS)
