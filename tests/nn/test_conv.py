"""Convolutions of one frame and over time against their sums."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.nn.conv import SpatialConv, TemporalConv

EPS = np.finfo(np.float32).eps


def apply(model, x):
  """Applies a convolution with random parameters, and returns kernel and bias in float64."""
  params = nn.unbox(model.init_with_output(jax.random.key(0), x)[1])['params']
  rng = np.random.default_rng(1)
  params = {name: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for name, p in params.items()}
  exact = {name: np.asarray(p, np.float64) for name, p in params.items()}
  return np.asarray(model.apply({'params': params}, x)), exact['kernel'], exact['bias']


def close(y, exact, terms):
  np.testing.assert_allclose(y, exact, atol=terms * EPS * max(np.abs(exact).max(), 1))


@pytest.mark.parametrize('window', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('frames', [1, 2, 5, 8])
def test_temporal_convolution_repeats_the_first_and_last_frame(frames, stride, window):
  x = jax.random.normal(jax.random.key(2), (2, frames, 2, 3, 4))
  y, kernel, bias = apply(TemporalConv(5, window, stride), x)
  assert y.shape == (2, -(-frames // stride), 2, 3, 5)
  x = np.asarray(x, np.float64)
  for place in range(y.shape[1]):
    taps = [np.clip(place * stride + tap - window // 2, 0, frames - 1) for tap in range(window)]
    exact = sum(x[:, at] @ kernel[tap] for tap, at in enumerate(taps)) + bias
    close(y[:, place], exact, window * 4 + 1)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('frames', [1, 4, 7])
def test_temporal_convolution_starts_as_the_identity(frames, stride):
  x = jax.random.normal(jax.random.key(2), (2, frames, 2, 3, 4))
  model = TemporalConv(4, stride=stride)
  y, _ = model.init_with_output(jax.random.key(0), x)
  np.testing.assert_array_equal(y, x[:, ::stride])


@pytest.mark.parametrize(('window', 'stride'), [(3, 1), (1, 1), (3, 2)])
def test_spatial_convolution_is_its_sum_on_every_frame(window, stride):
  x = jax.random.normal(jax.random.key(2), (2, 3, 4, 6, 2))
  y, kernel, bias = apply(SpatialConv(5, window, stride), x)
  assert y.shape == (2, 3, 4 // stride, 6 // stride, 5)
  # Stride 1 pads with zeros on both sides, stride 2 at the far end alone.
  before, after = (0, 1) if stride == 2 else (window // 2, window // 2)
  edges = [(0, 0), (0, 0), (before, after), (before, after), (0, 0)]
  x = np.pad(np.asarray(x, np.float64), edges)
  for row in range(y.shape[2]):
    for column in range(y.shape[3]):
      patch = x[:, :, row * stride :, column * stride :][:, :, :window, :window]
      exact = np.einsum('btijc,ijco->bto', patch, kernel) + bias
      close(y[:, :, row, column], exact, window * window * 2 + 1)


@pytest.mark.parametrize(('layer', 'axes'), [(SpatialConv, (2, 3)), (TemporalConv, (1,))])
@pytest.mark.parametrize('frames', [1, 2, 5])
def test_upsampling_convolution_is_that_of_the_repeated_video(layer, axes, frames):
  x = jax.random.normal(jax.random.key(2), (2, frames, 3, 4, 2))
  repeated = x
  for axis in axes:
    repeated = jnp.repeat(repeated, 2, axis=axis)
  y, _, _ = apply(layer(5, upsample=True), x)
  exact, _, _ = apply(layer(5), repeated)
  # Either is at most 3 x 3 x 2 products, of numbers of which three sum two or four.
  close(y, exact, 2 * (3 * 3 * 2 + 4))
