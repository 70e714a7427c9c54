"""Time split over the context axis: the autoencoder of one device, in a part of its memory."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.lab.planning.programs.audit import audit
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.blocks import Downsample
from mgjax.models.tae.objective import prior_divergence
from mgjax.nn.conv import SpatialConv, TemporalConv
from mgjax.parallel.halo import halo
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import parameter_shardings, put_batch
from tests.models.backbone.test_transformer import draw as normal
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
TIME = PartitionSpec(None, 'context')
MODEL = Autoencoder(2, widths=(4,), strides=((2, 2, 2),), blocks=0, groups=2)
ROWS = 2
# Gradients are means over at most 2 x 16 x 8 x 8 places, each after two dozen convolutions forward
# and two dozen back of at most 9 x 4 terms, in another order: roundings of either sign add like
# their square root.
TOLERANCE = float(np.sqrt(ROWS * 16 * 8 * 8 * 2 * 24 * 36)) * EPS


def mesh_of(sizes):
  return make_mesh(sizes, devices=jax.devices()[: math.prod(sizes.values())])


def padded(x, edge):
  return np.pad(x, ((0, 0), (edge, edge), (0, 0), (0, 0), (0, 0)), mode='edge')


def pieces(x, edge, devices):
  """Returns every device's frames of a video that numpy has extended."""
  own = x.shape[1] // devices
  whole = padded(x, edge)
  return [whole[:, i * own : (i + 1) * own + 2 * edge] for i in range(devices)]


def extend(x, edge, axis_name=None):
  before, after = halo(x, edge, axis_name)
  return jnp.concatenate([before, x, after], axis=1)


@pytest.mark.parametrize(('frames', 'edge'), [(1, 1), (1, 2), (5, 2)])
def test_a_whole_video_is_extended_by_copies_of_its_first_and_last_frame(frames, edge):
  x = normal(2, frames, 2, 3, 4)
  np.testing.assert_array_equal(extend(x, edge), padded(x, edge))


@pytest.mark.parametrize(('devices', 'frames', 'edge'), [(2, 2, 1), (4, 8, 1), (4, 8, 2)])
def test_pieces_are_extended_by_their_neighbours_and_gradients_go_home(devices, frames, edge):
  x = normal(2, frames, 2, 3, 4)
  weights = normal(2, frames + 2 * edge * devices, 2, 3, 4, seed=1)

  def extended(x):
    return extend(x, edge, 'context')

  def pull(x, weights):
    return jax.vjp(extended, x)[1](weights)[0]

  def on_devices(function, inputs):
    mesh = mesh_of({'context': devices})
    return jax.shard_map(
      function, mesh=mesh, in_specs=(TIME,) * inputs, out_specs=TIME, check_vma=False
    )

  @jax.jit
  def run(x, weights):
    split = on_devices(extended, 1)
    return split(x), on_devices(pull, 2)(x, weights), jax.vjp(split, x)[1](weights)[0]

  found, inside, outside = run(x, weights)
  np.testing.assert_array_equal(found, np.concatenate(pieces(x, edge, devices), axis=1))
  # Each frame's gradient is the sum over all places that it was copied to.
  origins = np.arange(frames)[None, :, None, None, None]
  exact = np.zeros(x.shape)
  places = np.concatenate(pieces(origins, edge, devices), axis=1).ravel()
  np.add.at(exact, (slice(None), places), np.asarray(weights, np.float64))
  # At most three copies and `edge` beyond each end.
  atol = (3 + edge) * EPS * np.abs(exact).max()
  np.testing.assert_allclose(inside, exact, atol=atol)
  np.testing.assert_allclose(outside, exact, atol=atol)


def test_neighbours_with_too_few_frames_are_a_sentence():
  mesh = mesh_of({'context': 4})
  how = {'mesh': mesh, 'in_specs': TIME, 'out_specs': TIME, 'check_vma': False}
  split = jax.shard_map(lambda x: extend(x, 2, 'context'), **how)
  with pytest.raises((ConfigError, TypeError)) as caught:  # the checks of types hand the error on
    jax.eval_shape(split, normal(1, 4, 2, 2, 2))
  assert '1 frame(s) a device cannot give' in str(caught.value.__cause__ or caught.value)


@pytest.mark.parametrize(
  ('layer', 'frames'),
  [
    (TemporalConv(4), 4),  # one frame a device
    (TemporalConv(4), 6),  # does not divide: whole
    (TemporalConv(4, window=5), 4),  # wider than what a neighbour has: whole
    (TemporalConv(4, window=5), 8),
    (TemporalConv(4, stride=2), 8),
    (TemporalConv(4, upsample=True), 4),
    (TemporalConv(4, upsample=True), 8),
    (SpatialConv(4, upsample=True), 8),
    (Downsample((2, 2, 2)), 12),  # an odd number a device: whole where time is strided
  ],
)
def test_convolutions_over_split_time_are_those_of_one_device(layer, frames):
  x = normal(ROWS, frames, 4, 4, 4)
  params = random_parameters(layer.init, x)

  def run(params, x):
    y, pull = jax.vjp(lambda params, x: layer.apply({'params': params}, x), params, x)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

  expected = jax.jit(run)(params, x)
  with jax.set_mesh(mesh_of({'fsdp': 2, 'context': 4})):
    found = jax.jit(run)(params, x)
  for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
    # A weight's gradient is the longest sum, over all places.
    atol = x.size / 4 * EPS * np.abs(one).max()
    np.testing.assert_allclose(other, one, atol=atol)


def video(frames):
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (ROWS, frames, 8, 8, 3)).astype(np.float32)


def forward(params, video):
  """Returns a loss, and the latents and the reconstruction."""
  again, posterior = MODEL.apply({'params': params}, video, jax.random.key(0))
  loss = jnp.mean((again - video) ** 2) + prior_divergence(posterior)
  return loss, {'latents': posterior.mean, 'reconstruction': again}


backward = jax.value_and_grad(forward, has_aux=True)


def parameters():
  return random_parameters(MODEL.init, jnp.asarray(video(1)), jax.random.key(0))


# Half the time to compile; what travels and what lies in memory stays the same.
QUICK = {'xla_backend_optimization_level': 0}


@functools.cache
def alone(function, frames):
  params, batch = parameters(), jnp.asarray(video(frames))
  program = jax.jit(function).lower(params, batch).compile(QUICK)
  return program, program(params, batch)


@functools.cache
def split(function, frames, **sizes):
  mesh = mesh_of(sizes)
  boxed = jax.eval_shape(MODEL.init, jax.random.key(0), video(1), jax.random.key(0))['params']
  params = jax.tree.map(jax.device_put, parameters(), parameter_shardings(boxed, mesh))
  batch = put_batch({'video': video(frames)}, mesh)['video']
  with jax.set_mesh(mesh):
    program = jax.jit(function).lower(params, batch).compile(QUICK)
    return program, program(params, batch)


def close(expected, found, scale=None):
  for name, leaf in named_leaves(expected).items():
    atol = TOLERANCE * (scale or np.abs(leaf).max())
    np.testing.assert_allclose(named_leaves(found)[name], leaf, atol=atol, err_msg=name)


@pytest.mark.parametrize(
  ('frames', 'sizes'),
  [
    # Whole at first; 4 latent frames divide; 7 of 8 are kept.
    pytest.param(7, {'fsdp': 2, 'context': 4}, marks=pytest.mark.slow),
    (1, {'context': 4}),  # an image
  ],
  ids=str,
)
def test_lengths_that_do_not_divide_give_the_numbers_of_one_device(frames, sizes):
  close(alone(forward, frames)[1], split(forward, frames, **sizes)[1])


@pytest.mark.parametrize(
  ('frames', 'sizes'),
  [
    (16, {'context': 4}),  # the program of the seams, below
    pytest.param(8, {'fsdp': 2, 'context': 2}, marks=pytest.mark.slow),
  ],
  ids=str,
)
def test_latents_reconstruction_and_gradient_are_those_of_one_device(frames, sizes):
  expected, gradient = alone(backward, frames)[1]
  found, split_gradient = split(backward, frames, **sizes)[1]
  close(expected, found)
  largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
  close(gradient, split_gradient, largest)


def test_frames_at_the_seams_travel_and_nothing_but_weights_is_gathered():
  found = audit(split(backward, 16, context=4)[0].as_text())
  largest = max(leaf.nbytes for leaf in jax.tree.leaves(parameters()))
  gathered = [each.largest for each in found if each.kind == 'all-gather']
  assert gathered and max(gathered) <= largest
  halos = {
    (each.bytes, 'transpose' in each.source)
    for each in found
    if each.kind == 'collective-permute' and 'temporal/' in each.source
  }
  # One frame of both rows at the pixels' size and at the latents', 4 channels: there and back.
  frame = ROWS * 4 * 4 * 4 * 4
  assert {(size, back) for size in (4 * frame, frame) for back in (False, True)} <= halos


@pytest.mark.slow
def test_memory_a_device_falls_with_the_context_axis():
  whole = alone(backward, 16)[0].memory_analysis()
  part = split(backward, 16, context=4)[0].memory_analysis()
  assert part.temp_size_in_bytes < whole.temp_size_in_bytes / 2
