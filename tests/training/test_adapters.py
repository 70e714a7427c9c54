"""Adapters: what they compute, what they leave alone, and that every section can train them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.api import load, train
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.data.loader import validation_batches
from mgjax.nn import lora
from mgjax.nn.lora import Lora
from mgjax.registry import make_section, make_spec
from mgjax.training.checkpoints.load_params import load_params
from tests import tiny, tiny_sound
from tests.random_parameters import random_parameters

pytestmark = pytest.mark.usefixtures('on_one_device')

EPS = float(np.finfo(np.float32).eps)
LORA = {'lora__rank': 4, 'lora__alpha': 8.0, 'lora__targets': ('backbone/layers/*',)}


def adapted(runs, **changes):
  return tiny.video(runs, **({'start_from': str(runs / 'video')} | LORA | changes))


def random_like(adapters, seed=5):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * leaf.shape[-1] ** -0.5, jnp.float32),
    nn.unbox(adapters),
  )


@functools.cache
def of_section(name):
  """A tiny model of a section with inputs that are not zero, and random adapters of all kernels."""
  config = {'autoencoder': tiny.autoencoder, 'codec': tiny_sound.codec}[name]()
  outline = make_section(config).outline()
  params = random_parameters(outline.model.init, *outline.inputs)
  rng = np.random.default_rng(1)
  inputs = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype) if x.dtype == jnp.float32 else x,
    tuple(outline.inputs),
  )
  boxed = jax.eval_shape(outline.model.init, jax.random.key(0), *outline.inputs)['params']
  settings = Lora(rank=3, alpha=6.0)
  adapters = random_like(lora.init(jax.random.key(0), settings, boxed))
  apply = jax.jit(lambda params: outline.model.apply({'params': params}, *inputs))
  return params, adapters, settings, apply


@pytest.mark.parametrize('name', ['autoencoder', 'codec'])
def test_merged_is_applied_and_nothing_at_the_start(name):
  params, adapters, settings, apply = of_section(name)
  start = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.zeros_like(leaf) if path[-1].key == 'lora_b' else leaf, adapters
  )
  plain = apply(params)
  same = apply(lora.attach(start, params, settings.scale))
  assert jax.tree.all(jax.tree.map(np.array_equal, plain, same))
  one = apply(lora.attach(adapters, params, settings.scale))
  two = apply(lora.merge(adapters, params, settings.scale))
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(x, y, atol=300 * EPS * max(1, np.abs(y).max()))
  changed = jax.tree.map(lambda x, y: np.abs(x - y).max(), one, plain)
  assert max(jax.tree.leaves(changed)) > 1e-3


def test_gradients_are_those_of_a_dense_twin_in_the_subspace(tiny_runs):
  spec = make_spec(adapted(tiny_runs), tiny_runs / 'none')
  base = spec.frozen['base']
  adapters = random_like(spec.adapters.init(jax.random.key(0)))
  batch = spec.prepare(next(iter(validation_batches(spec.validation[-1], 1))))
  key = jax.random.key(3)

  def loss(params):
    predict = functools.partial(spec.model.apply, {'params': params})
    return spec.objective(predict, batch, key)[0]

  ours = jax.jit(jax.grad(lambda adapters: loss(spec.adapt(adapters, base))))(adapters)
  dense = jax.jit(jax.grad(loss))(lora.merge(adapters, base, 2.0))
  ours, dense = named_leaves(ours), named_leaves(dense)
  pairs, largest = named_leaves(adapters), 0.0
  for name, found in ours.items():
    kernel, which = name.rsplit('/', 1)
    a, b = (np.asarray(pairs[f'{kernel}/lora_{each}'], np.float64) for each in 'ab')
    full = np.asarray(dense[kernel], np.float64)
    a, b = np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2)
    wanted = 2.0 * (full @ b if which == 'lora_a' else a @ full)
    np.testing.assert_allclose(found, wanted, atol=2000 * EPS * np.abs(wanted).max(), err_msg=name)
    largest = max(largest, np.abs(wanted).max())
  assert largest > 1e-4


def test_a_run_trains_adapters_alone_resumes_exactly_and_samples_merged(tiny_runs, tmp_path):
  before = {n: np.array(x) for n, x in named_leaves(load_params(tiny_runs / 'video')[0]).items()}
  config = adapted(tiny_runs, train__steps=5, train__evaluate_every=0, lora__dropout=0.2)
  whole = tiny.resumed(config, tmp_path, 2, end=4)
  names = named_leaves(whole.params)
  assert all(name.endswith(('lora_a', 'lora_b')) for name in names)
  moments = [leaf for leaf in jax.tree.leaves(whole.opt_state) if leaf.ndim]
  assert len(moments) == 2 * len(names)
  after = {n: np.array(x) for n, x in named_leaves(load_params(tiny_runs / 'video')[0]).items()}
  assert all(np.array_equal(before[name], after[name]) for name in before)
  found = named_leaves(load_params(tmp_path / 'whole')[0])
  assert found.keys() == before.keys()
  for name, leaf in found.items():
    if f'{name}/lora_a' in names:
      pair = named_leaves(whole.average)
      a, b = (np.asarray(pair[f'{name}/lora_{each}'], np.float64) for each in 'ab')
      np.testing.assert_allclose(leaf, before[name] + 2.0 * (a @ b), atol=4 * EPS)
      assert np.abs(a @ b).max() > 0
    else:
      np.testing.assert_array_equal(leaf, before[name])
  clips = load(tmp_path / 'whole').generate(['a red 3'], seed=0)
  assert clips.shape == load(tiny_runs / 'video').generate(['a red 3'], seed=0).shape


@pytest.mark.parametrize('weights', ['', pytest.param('int8', marks=pytest.mark.slow)])
def test_a_step_with_kernels_in_pieces_is_that_with_whole_ones(tiny_runs, tmp_path, weights):
  config = adapted(tiny_runs, train__steps=4, lora__weights=weights, lora__targets=('*',))
  alone = train(config, tmp_path / 'rows', stop_at=3)
  config.rules = 'fsdp_tp_cp'
  config.mesh.update(data=1, fsdp=2, context=2, tensor=2)
  shared = train(config, tmp_path / 'pieces', stop_at=3)
  ours, theirs = named_leaves(shared.params), named_leaves(alone.params)
  for name, leaf in theirs.items():
    # Adam's first steps are signs of gradients: where these are nothing but rounding, it is too.
    close = np.isclose(ours[name], leaf, atol=2e-5)
    assert close.mean() > 0.999, name


def test_what_patterns_reach_is_said_and_none_is_an_error(tiny_runs, tmp_path, caplog):
  caplog.set_level('INFO')
  make_spec(adapted(tiny_runs, lora__targets=('*attention*', 'text/*')), tmp_path)
  assert 'adapters of rank 4 for 17 of 25 kernels: ' in caplog.text
  with pytest.raises(ConfigError, match=r"'\*atention\*' matches none of the \d+ kernels"):
    make_spec(adapted(tiny_runs, lora__targets=('*atention*',)), tmp_path)
  with pytest.raises(
    ConfigError, match=r"'\*cross_attention/query\*' matches none of the \d+ kernels left"
  ):
    make_spec(
      adapted(tiny_runs, lora__targets=('*attention*', '*cross_attention/query*')), tmp_path
    )


def test_adapters_want_their_model(tiny_runs, tmp_path):
  with pytest.raises(ConfigError, match=r"config.start_from = ''; expected the work directory"):
    make_spec(adapted(tiny_runs, start_from=''), tmp_path)
  with pytest.raises(ConfigError, match='this is another model than that of'):
    make_spec(adapted(tiny_runs, model__mlp_dim=64), tmp_path)
  base = tmp_path / 'base'
  train(tiny.video(tiny_runs), base, stop_at=1)
  config = adapted(tiny_runs, start_from=str(base))
  train(config, tmp_path / 'mine', stop_at=1)
  train(tiny.video(tiny_runs), base, stop_at=2)
  with pytest.raises(ConfigError, match='is not the model that these adapters were begun on'):
    train(config, tmp_path / 'mine')
  with pytest.raises(ConfigError, match=r'the model, of the fingerprint .* is not there'):
    load(tmp_path / 'mine')
