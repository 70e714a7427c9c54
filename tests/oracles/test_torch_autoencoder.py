"""The autoencoder against its twin in PyTorch, and against diffusers' on one frame."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.bench.tae_cpu import get_config
from mgjax.core.tree import named_leaves
from mgjax.lab.benchmarks.forward import measure_forward
from mgjax.lab.planning.forward import read_forward
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.nn.conv import centred
from mgjax.parallel.mesh import make_mesh
from tests.random_parameters import random_parameters

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')

from tests.oracles import torch_autoencoder as twin  # noqa: E402

pytestmark = pytest.mark.oracle

FOLDER = pathlib.Path(__file__).parent
# Strides 1 and 2 in time, a level that keeps its width and one that does not.
FIELDS = {
  'latent_channels': 3,
  'widths': (4, 8),
  'strides': ((2, 2, 2), (1, 2, 2)),
  'blocks': 1,
  'groups': 2,
}
# Both compute in float32: some 30 layers one after another, each a sum of at most 9 x 8 products,
# whose roundings of 6e-8 add like random steps: 6e-8 sqrt(30 x 72) = 3e-6 of the largest number.
# Seven times that; a layer left out changes the result by its own size.
CLOSE = 2e-5


@pytest.fixture(scope='module')
def params():
  return random_parameters(
    Autoencoder(**FIELDS).init, jnp.zeros((1, 2, 4, 4, 3)), jax.random.key(0)
  )


def assert_close(ours, theirs):
  theirs = np.asarray(theirs)
  assert ours.shape == theirs.shape
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE * np.abs(theirs).max())


@pytest.mark.parametrize('frames', [1, 7, 8, 17])
@pytest.mark.parametrize('method', ['encode', 'decode'])
def test_values_and_gradients_agree_with_torch(params, method, frames):
  model = Autoencoder(**FIELDS)
  rng = np.random.default_rng(frames)
  shape = (2, frames, 8, 12, 3) if method == 'encode' else (2, -(-frames // 2), 2, 3, 3)
  x = rng.standard_normal(shape).astype(np.float32)

  def ours(params, x):
    y = model.apply({'params': params}, x, method=method)
    return y.mean if method == 'encode' else y

  @jax.jit
  def run(params, x, weights):
    y, pull = jax.vjp(ours, params, x)
    return y, *pull(weights)

  weights = rng.standard_normal(jax.eval_shape(ours, params, x).shape).astype(np.float32)
  y, by_params, by_x = run(params, x, weights)

  network = twin.load(twin.Autoencoder(**FIELDS), named_leaves(params))
  video, seen = (torch.from_numpy(array).permute(0, 1, 4, 2, 3) for array in (x, weights))
  video.requires_grad_()
  result = getattr(network, method)(video)
  result.backward(seen)
  assert_close(y, result.detach().permute(0, 1, 3, 4, 2))
  assert_close(by_x, video.grad.permute(0, 1, 3, 4, 2))
  expected = twin.gradients(network)
  found = {name: leaf for name, leaf in named_leaves(by_params).items() if name in expected}
  assert {name.split('/')[0] for name in found} == {f'{method}r'}
  assert len(found) == sum(name.startswith(f'{method}r/') for name in named_leaves(params))
  largest = max(np.abs(array).max() for array in expected.values())
  for name, gradient in found.items():
    np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=CLOSE * largest, err_msg=name)


@pytest.mark.parametrize('what', ['encode', 'decode'])
def test_diffusers_answers_one_frame_as_ours_before_temporal_layers_are_trained(what):
  rival = pytest.importorskip('tests.oracles.diffusers_autoencoder')
  # diffusers' model does not halve frames after its last level.
  fields = FIELDS | {'strides': ((2, 2, 2),)}
  model = Autoencoder(**fields)
  params = random_parameters(model.init, jnp.zeros((1, 2, 4, 4, 3)), jax.random.key(0))
  named = named_leaves(params)
  for name, leaf in named.items():
    if name.endswith('temporal/kernel'):
      named[name] = np.asarray(centred(jax.random.key(0), leaf.shape, leaf.dtype))
    elif '/temporal' in name and not name.endswith('scale'):
      named[name] = np.zeros_like(leaf)
  neutral = jax.tree.unflatten(jax.tree.structure(params), list(named.values()))
  shape = (1, 1, 4, 6, 3) if what == 'encode' else (1, 1, 2, 3, 3)
  x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  run = jax.jit(lambda params, x: model.apply({'params': params}, x, method=what))
  y = run(neutral, x)
  task = {'what': what, 'x': x, 'frames': 1, 'params': named, 'threads': 1, **fields}
  for programs in rival.make_programs(task).values():
    assert_close((y.mean if what == 'encode' else y[:, :1])[0], programs[what]())


@pytest.mark.filterwarnings('ignore:.torch.jit.script_method. is deprecated')  # by its compiler
@pytest.mark.parametrize('what', ['encode', 'decode'])
def test_rivals_of_the_autoencoder_take_turns_with_it(what):
  pytest.importorskip('diffusers')
  config = get_config()
  config.model.update(widths=(4, 8), strides=((2, 2, 2),), blocks=1, groups=2, latent_channels=2)
  baselines = [str(FOLDER / f'{name}_autoencoder.py') for name in ('torch', 'diffusers')]
  report = measure_forward(
    read_forward(config, video=(1, 3, 8, 8)),
    what,
    make_mesh(devices=jax.devices()[:1]),
    baselines=baselines,
    rounds=1,
  )
  assert not report['failed']
  names = list(report['baseline_over_mgjax'])
  # Two memory formats, of PyTorch each as it is and compiled.
  assert [name.split()[0] for name in names] == ['PyTorch'] * 4 + ['diffusers'] * 2
  assert list(report['apart']) == names[:4]
  assert sum('other work: every frame by itself' in note for note in report['notes']) == 2
