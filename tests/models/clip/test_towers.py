"""CLIP's towers: the answers of transformers' model, what padding may change, which errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.clip.towers import clip_inputs
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import parameter_shardings
from tests.models.clip.vectors import imported, vectors
from tests.oracles import clip as oracle

TOLERANCE = 3e-6  # what is asked for, of numbers up to 6 and three layers in float32


def run(model, params, *inputs):
  return jax.jit(lambda params, *inputs: model.apply({'params': params}, *inputs))(params, *inputs)


def close(one, other, tolerance=TOLERANCE):
  np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize('case', ['right', 'left', 'one', 'full'])
@pytest.mark.parametrize('name', oracle.TEXTS)
def test_prompts_come_out_as_from_transformers(name, case):
  found = vectors('text', name)
  tokens, mask = oracle.draw_prompts(name)[case]
  states, pooled = run(*imported('text', name), tokens, mask)
  read = oracle.shown(mask)
  close(oracle.shown(states)[read], found[f'{case}/states'][read])
  close(pooled, found[f'{case}/pooled'])
  assert np.isfinite(states).all()  # of padding on the left, too, which may read nothing


@pytest.mark.parametrize('name', oracle.IMAGES)
def test_images_come_out_as_from_transformers(name):
  found = vectors('vision', name)
  states, pooled = run(*imported('vision', name), oracle.draw_images(name))
  close(states, found['states'])
  close(pooled, found['pooled'])


def test_the_convention_of_the_end_matters():
  """Either, taken for the other, is seen: the vectors come from other tokens."""
  for name in ('openai', 'metaclip'):
    model, params = imported('text', name)
    other = {'largest': 'first_eos', 'first_eos': 'largest'}[model.pooling]
    tokens, mask = oracle.draw_prompts(name)['right']
    _, pooled = run(model.clone(pooling=other), params, tokens, mask)
    expected = vectors('text', name)['right/pooled']
    assert np.abs(np.asarray(pooled) - expected).max(axis=1).min() > 0.1


@pytest.mark.parametrize('name', ['openai', 'metaclip'])
def test_padding_is_never_read(name):
  model, params = imported('text', name)
  tokens, mask = oracle.draw_prompts(name)['left']
  other = np.where(mask, tokens, oracle.end(name)).astype(np.int32)
  found = [run(model, params, each, mask) for each in (tokens, other)]
  for one, two in zip(*found, strict=True):
    rows = mask if one.ndim == 3 else slice(None)
    np.testing.assert_array_equal(np.asarray(one)[rows], np.asarray(two)[rows])


def test_a_token_reads_none_that_follow():
  model, params = imported('text', 'metaclip')
  tokens, mask = (each[:1] for each in oracle.draw_prompts('metaclip')['full'])
  changed = tokens.copy()
  changed[:, 100:-1] = 5
  first, second = (run(model, params, each, mask)[0] for each in (tokens, changed))
  np.testing.assert_array_equal(first[:, :100], second[:, :100])
  assert (np.abs(first - second)[:, 100:] > 0.01).any(axis=2).mean() > 0.9


def test_bfloat16_is_near_float32():
  """Activations of 8 bits, rounded some ten times a layer, three layers: errors add as a walk."""
  for tower, name in (('text', 'metaclip'), ('vision', 'metaclip')):
    model, params = imported(tower, name)
    inputs = oracle.draw_prompts(name)['right'] if tower == 'text' else (oracle.draw_images(name),)
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    exact, near = run(model, params, *inputs), run(model.clone(dtype=jnp.bfloat16), half, *inputs)
    for one, two in zip(exact, near, strict=True):
      assert two.dtype == jnp.bfloat16
      error = np.asarray(two, np.float32) - one
      scale = np.std(one)
      assert 2**-9 * scale / 8 < np.std(error) < 2**-9 * scale * 30**0.5 * 2


@pytest.mark.parametrize(
  ('tower', 'sizes'),
  [
    ('text', {'fsdp': 2, 'tensor': 4}),
    ('text', {'fsdp': 4, 'context': 2}),
    ('vision', {'fsdp': 8}),
  ],
)
def test_a_mesh_changes_nothing(tower, sizes):
  model, params = imported(tower, 'metaclip')
  text = tower == 'text'
  inputs = oracle.draw_prompts('metaclip')['right'] if text else (oracle.draw_images('metaclip'),)
  inputs = [np.tile(each, (3, *[1] * (each.ndim - 1)))[:8] for each in inputs]
  alone = run(model, params, *inputs)
  mesh = make_mesh(sizes, 'fsdp_tp_cp')
  boxed = jax.eval_shape(model.init, jax.random.key(0), *clip_inputs(model))['params']
  placed = jax.device_put(params, parameter_shardings(boxed, mesh))
  kernel = placed['layers']['feed_forward']['up']['kernel']
  assert kernel.addressable_shards[0].data.size * 8 == kernel.size
  with jax.set_mesh(mesh):
    for one, other in zip(alone, run(model, placed, *inputs), strict=True):
      close(one, other)
