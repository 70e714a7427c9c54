"""The backbone against its twin in PyTorch: values, gradients and one step of training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.ports import Ports

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')

from tests.oracles import torch_backbone as twin  # noqa: E402

pytestmark = pytest.mark.oracle


@pytest.fixture(scope='module')
def case():
  """Sizes, random data, and parameters of which none is zero, so that every path carries signal."""
  sizes = twin.Sizes(
    dim=64,
    depth=3,
    heads=4,
    mlp_dim=96,
    positions=(4, 8, 8),
    patch=(1, 2, 2),
    latents=(2, 3, 8, 12, 5),
    context=7,
  )
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
  data = {
    'x': draw(*sizes.latents),
    'time': rng.uniform(size=2).astype(np.float32),
    'context': draw(2, 7, 64),
    'mask': np.arange(7)[None] < np.array([[7], [4]]),
    'target': draw(*sizes.latents),
  }
  model = Transformer(
    dim=64, depth=3, heads=4, mlp_dim=96, positions=sizes.positions, patch=sizes.patch
  )
  x, time, context, mask = (jnp.asarray(data[name]) for name in ('x', 'time', 'context', 'mask'))
  ports = Ports(context=context, context_mask=mask)
  variables = nn.meta.unbox(model.init(jax.random.key(0), x, time, ports))
  params = jax.tree.map(lambda p: np.asarray(p) + 0.1 * draw(*p.shape), variables['params'])
  return sizes, data, model, ports, params


@pytest.mark.parametrize('impl', ['xla', 'blockwise'])
def test_values_and_gradients_agree_with_torch(case, impl):
  sizes, data, model, ports, params = case
  model = model.clone(attention=impl)
  params = jax.tree.map(jnp.asarray, params)

  def loss(params):
    x, time = jnp.asarray(data['x']), jnp.asarray(data['time'])
    y = model.apply({'params': params}, x, time, ports)
    return jnp.mean((y - data['target']) ** 2), y

  (_, ours), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

  network = twin.from_jax(params, sizes)
  x, time, context, mask, target = (
    torch.from_numpy(data[name]) for name in ('x', 'time', 'context', 'mask', 'target')
  )
  theirs = network(x, time, context, mask)
  torch.nn.functional.mse_loss(theirs, target).backward()
  expected = twin.to_jax({name: p.grad for name, p in network.named_parameters()})

  np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-4)
  assert jax.tree.structure(gradients) == jax.tree.structure(expected)
  jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, atol=1e-4), gradients, expected)


def test_parameters_go_both_ways(case):
  sizes, _, _, _, params = case
  back = twin.to_jax(dict(twin.from_jax(params, sizes).named_parameters()))
  jax.tree.map(np.testing.assert_array_equal, params, back)


def test_the_step_of_the_twin_learns(case):
  step = twin.make_step(case[0])
  assert step() > step()
