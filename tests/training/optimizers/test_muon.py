"""Muon's updates are a float64 twin's, on one device and on many; the rest is Adam's."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mgjax.api import train
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.parallel.mesh import make_mesh
from mgjax.training.optimizers.muon import BLOCK_STEPS, LAYER_STEPS, MOMENTUM, RMS, orthogonalised
from mgjax.training.optimizers.optimizer import make_optimizer
from mgjax.training.settings import OptimizerSettings
from tests import tiny

SETTINGS = {'learning_rate': 0.1, 'warmup': 0, 'weight_decay': 0.01, 'clip': float('inf')}
SHAPES = {
  'backbone/layers/attention/query/kernel': (3, 16, 16),
  'backbone/layers/feed_forward/up/kernel': (3, 16, 40),
  'backbone/layers/feed_forward/down/kernel': (3, 40, 16),
  'backbone/layers/norm/scale': (3, 16),
  'backbone/layers/depthwise/taps': (3, 3, 3, 3, 16),
  'backbone/patch_in/kernel': (8, 16),
  'text/layer_0/self/key/kernel': (16, 16),
}
CONVOLUTIONS = {
  'decoder/level_0_up/conv/spatial/kernel': (3, 3, 8, 16),
  'encoder/middle_block_0/conv_2/temporal/kernel': (3, 16, 16),
  'decoder/middle_attention/spatial_query/kernel': (16, 16),
  'decoder/conv_out/kernel': (3, 3, 16, 12),
}
SHAPES |= CONVOLUTIONS
MATRICES = [name for name in SHAPES if 'kernel' in name and not re.search('patch|conv_out', name)]


def twin(matrix, polynomials):
  """Newton-Schulz of one matrix (i, o)."""
  x = matrix.astype(np.float64)
  x = x / (1.01 * np.sum(np.linalg.svd(x, compute_uv=False) ** 8) ** 0.125)
  for a, b, c in polynomials:
    square = x @ x.T
    x = a * x + (b * square + c * square @ square) @ x
  return x


def random(seed):
  numbers = np.random.default_rng(seed)
  return {name: numbers.normal(size=s).astype(np.float32) for name, s in SHAPES.items()}


def test_singular_values_are_those_of_newton_and_schulz_in_float64():
  matrices = np.random.default_rng(0).normal(size=(4, 12, 30)).astype(np.float32)
  for rows, least, most in ((LAYER_STEPS, 0.9, 1.1), (BLOCK_STEPS, 0.68, 1.14)):
    made = functools.partial(orthogonalised, polynomials=rows, dtype=jnp.float32)
    # An iteration rounds sums of 12 to 30 terms; that grows by the slopes at 0 of later ones.
    rounded = functools.reduce(lambda b, row: b * row[0] + 1.0, rows, 1.0)
    expected = np.stack([twin(each, rows) for each in matrices])
    for x, y in ((matrices, expected), (matrices.swapaxes(1, 2), expected.swapaxes(1, 2))):
      np.testing.assert_allclose(made(jnp.asarray(x)), y, 0, 30 * np.finfo('f4').eps * rounded)
    values = jnp.diagonal(made(jnp.diag(jnp.geomspace(0.0205, 1.0, 9))[None])[0])  # over 1.013
    assert least < min(values) and max(values) < most


def test_in_bfloat16_directions_stay_and_no_singular_value_is_far_from_one():
  matrices = np.random.default_rng(1).normal(size=(3, 64, 256)).astype(np.float32)
  found = np.asarray(orthogonalised(jnp.asarray(matrices)))
  for made, matrix in zip(found, matrices, strict=True):
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    values = np.linalg.svd(made, compute_uv=False)
    assert values.min() > 0.65 and values.max() < 1.2  # .90 to 1.10 without rounding
    along = np.einsum('ik,io,ko->k', left, made, right)
    np.testing.assert_allclose(along, values.mean(), atol=0.35)
  assert not np.asarray(orthogonalised(jnp.zeros((1, 4, 4)))).any()


def test_two_updates_are_those_of_the_formula_and_all_else_is_adams():
  params, gradients = random(0), [random(1), random(2)]
  muon, adam = (make_optimizer(OptimizerSettings(name=n, **SETTINGS), 9) for n in ('muon', 'adamw'))
  state, other = muon.init(params), adam.init(params)
  momentum = {name: np.zeros(SHAPES[name]) for name in MATRICES}
  for gradient in gradients:
    updates, state = muon.update(gradient, state, params)
    expected, other = adam.update(gradient, other, params)
    for name in SHAPES:
      if name not in MATRICES:
        np.testing.assert_array_equal(updates[name], expected[name], name)
        continue
      momentum[name] = MOMENTUM * momentum[name] + gradient[name]
      ahead = gradient[name] + MOMENTUM * momentum[name]
      rows, columns = SHAPES[name][-2:]
      rows = math.prod(SHAPES[name][:-1]) if name in CONVOLUTIONS else rows
      stack = ahead.reshape(-1, rows, columns)
      how = BLOCK_STEPS if name in CONVOLUTIONS else LAYER_STEPS
      made = [twin(x, how) if rows <= columns else twin(x.T, how).T for x in stack]
      made = np.stack(made).reshape(SHAPES[name]) * RMS * np.sqrt(max(rows, columns))
      wanted = -0.1 * (made + 0.01 * params[name])
      # bfloat16 has 8 bits; what rounding does to weak directions, as square matrices have, grows.
      error = np.linalg.norm(updates[name] - wanted) / np.linalg.norm(wanted)
      assert error < 0.1, (name, error)


def test_on_a_mesh_updates_are_the_same_and_no_device_makes_all():
  params, gradient = random(0), random(1)
  optimizer = make_optimizer(OptimizerSettings(name='muon', **SETTINGS), 9)
  alone, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
  mesh = make_mesh({'data': 2, 'fsdp': 4}, 'fsdp')
  cut = {name: NamedSharding(mesh, PartitionSpec(None, 'fsdp')) for name in SHAPES}
  cut['backbone/patch_in/kernel'] = cut['text/layer_0/self/key/kernel'] = NamedSharding(
    mesh, PartitionSpec('fsdp')
  )
  whole = ('backbone/layers/depthwise/taps', *CONVOLUTIONS)
  cut |= dict.fromkeys(whole, NamedSharding(mesh, PartitionSpec()))
  with jax.set_mesh(mesh):
    placed = [jax.device_put(tree, cut) for tree in (params, gradient)]
    update = jax.jit(optimizer.update, out_shardings=(cut, None))
    state = optimizer.init(placed[0])
    together, _ = update(placed[1], state, placed[0])
    program = update.lower(placed[1], state, placed[0]).compile().as_text()
  for name in SHAPES:
    # The same products of the same matrices: only the order of a sum may differ.
    np.testing.assert_allclose(together[name], alone[name], rtol=0, atol=2e-2 * 0.1, err_msg=name)
  # 4 matrices of 16 x 16, 6 of 16 x 40, one each of the convolutions' 16 x 16, 16 x 48 and 16 x 72
  # are 8 of each with what fills up: one a device.
  products = re.findall(r'= \w+\[([\d,]+)\]\S* dot\(', program)
  assert products and all(math.prod(map(int, each.split(','))) <= 16 * 72 for each in products)


def test_a_network_without_layers_is_told_to_take_adam():
  params = {'encoder': {'conv_in': {'kernel': np.zeros((4, 4), np.float32)}}}
  optimizer = make_optimizer(OptimizerSettings(name='muon', **SETTINGS), 9)
  with pytest.raises(ConfigError, match=r"no kernel of a layer trains.*take 'adamw'"):
    optimizer.init(params)


@pytest.mark.slow
def test_a_run_goes_on_from_adams_weights_and_resumes_bit_by_bit(tiny_runs, tmp_path):
  config = tiny.video(
    tiny_runs,
    optimizer__name='muon',
    optimizer__warmup=1,
    train__steps=4,
    train__evaluate_every=0,
    optimizer__rates=(('backbone/layers/*/query/kernel', 0.0),),
    mesh__fsdp=2,
    rules='fsdp',
    start_from=str(tiny_runs / 'video'),
  )
  whole = tiny.resumed(config, tmp_path, 1, end=3)
  names = [name for name in named_leaves(whole.params) if 'layer' in name and 'kernel' in name]
  moments = ' '.join(named_leaves(whole.opt_state))
  trained = [name for name in names if 'query' not in name or 'text' in name]
  # One moment of each kernel of a layer that trains, and none of one that is frozen.
  assert [moments.count(name) for name in trained] == [1] * len(trained)
  assert not any(name in moments for name in set(names) - set(trained))


def test_an_autoencoder_has_it_for_its_blocks_and_adam_for_both_ends(tmp_path):
  changes = {'optimizer__name': 'muon', 'optimizer__warmup': 1, 'train__evaluate_every': 0}
  # Two of three steps: the last one would compile what validates and draws samples as well.
  whole = train(tiny.autoencoder(**changes, train__steps=3), tmp_path / 'run', stop_at=2)
  moments = ' '.join(named_leaves(whole.opt_state))
  for name in named_leaves(whole.params):
    ends = 'conv_in' in name or 'conv_out' in name
    assert moments.count(name) == (1 if name.endswith('kernel') and not ends else 2), name
