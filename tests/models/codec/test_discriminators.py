"""The codec's discriminators: a twin's judgement, what they do not hear, sizes, a mesh."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.axes import LOGICAL_AXES
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.models.codec.discriminators import Discriminators, levelled
from mgjax.models.codec.losses import adversarial_loss
from mgjax.parallel.mesh import make_mesh
from tests.oracles import sound_opponents as oracle
from tests.random_parameters import random_parameters

EPS = float(np.finfo(np.float32).eps)
# Six layers of sums of up to 108 products each, and a transform: as of the codec's layers.
CLOSE = 1e-6
MODEL = Discriminators(oracle.PERIODS, oracle.WIDTHS, oracle.WINDOWS, oracle.WIDTH)


@functools.cache
def drawn():
  """The parameters that the twin had."""
  sound = jax.ShapeDtypeStruct((1, oracle.JUDGED, 1), jnp.float32)
  shapes = nn.unbox(jax.eval_shape(MODEL.init, jax.random.key(0), sound))['params']
  tensors, values = oracle.draw_tensors(), []
  for name, leaf in named_leaves(shapes).items():
    layer, _, kind = name.rpartition('/')
    tensor = tensors.pop(
      f'{layer.replace("/", ".")}.'
      + {'kernel': 'weight_v', 'scale': 'weight_g', 'bias': 'bias'}[kind]
    )
    tensor = tensor.transpose(2, 3, 1, 0) if kind == 'kernel' else tensor.reshape(-1)
    assert tensor.shape == leaf.shape
    values.append(jnp.asarray(tensor))
  assert not tensors
  return jax.tree.unflatten(jax.tree.structure(shapes), values)


@functools.cache
def sound():
  return jnp.asarray(oracle.draw_sounds()[1][:, : oracle.JUDGED])


judge = jax.jit(lambda params, sound: MODEL.apply({'params': params}, sound))


def test_every_layer_answers_as_the_twin_does():
  opinions = judge(drawn(), sound())
  names = [f'period_{period}' for period in oracle.PERIODS]
  names += [f'window_{window}' for window in oracle.WINDOWS]
  with np.load(oracle.VECTORS) as file:
    left = {name for name in file if name.startswith('judged/')}
    for name, (features, logits) in zip(names, opinions, strict=True):
      conv = [f'conv_{level}' for level in range(3)]
      if name.startswith('window'):
        conv = [f'band_{band}_conv_{level}' for band in range(5) for level in range(5)]
      for layer, found in zip((*conv, 'logits'), (*features, logits), strict=True):
        exact = file[f'judged/{name}.{layer}']
        left.remove(f'judged/{name}.{layer}')
        np.testing.assert_allclose(
          found, exact, rtol=0, atol=CLOSE * np.abs(exact).max(), err_msg=f'{name} {layer}'
        )
  assert not left


def test_level_and_mean_of_sound_are_not_judged():
  found = judge(drawn(), sound())
  for other in (2 * sound(), sound() + 0.5):
    for one, same in zip(
      jax.tree.leaves(found), jax.tree.leaves(judge(drawn(), other)), strict=True
    ):
      # The mean rounds to half an eps of 1; of sound a sixth as loud that is three.
      np.testing.assert_allclose(same, one, rtol=0, atol=100 * EPS * np.abs(one).max())


def test_peaks_are_level_and_silence_stays_silent():
  loud = jax.random.normal(jax.random.key(0), (2, 50, 2)) + 1
  peaks = jnp.abs(levelled(loud)).max((1, 2))
  np.testing.assert_allclose(peaks, 0.8, rtol=4 * EPS)
  assert not np.any(levelled(jnp.zeros((1, 50, 1))))


def test_the_published_opponents_have_the_published_sizes():
  sound = jax.ShapeDtypeStruct((1, 19_200, 1), jnp.float32)
  shapes = jax.eval_shape(Discriminators().init, jax.random.key(0), sound)['params']
  boxes = jax.tree.leaves(shapes, is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata))
  assert all(
    set(box.names) <= set(LOGICAL_AXES) and len(box.names) == box.value.ndim for box in boxes
  )

  def convs(*layers):
    return sum(taps * i * o + 2 * o for i, o, taps in layers)

  period = convs((1, 32, 5), (32, 128, 5), (128, 512, 5), (512, 1024, 5), (1024, 1024, 5))
  band = convs((2, 32, 27), *[(32, 32, 27)] * 3, (32, 32, 9))
  expected = 5 * (period + convs((1024, 1, 3))) + 3 * (5 * band + convs((32, 1, 9)))
  assert count_parameters(shapes) == expected


def test_opponents_on_a_mesh_judge_and_learn_as_on_one_device():
  model, rows = Discriminators((3,), (4, 4), ()), jnp.concatenate([sound()] * 2)
  params = random_parameters(model.init, rows)

  @jax.jit
  def learn(params):
    judged = lambda params: adversarial_loss(model.apply({'params': params}, rows))  # noqa: E731
    return jax.value_and_grad(judged)(params)

  expected = learn(params)
  with jax.set_mesh(make_mesh({'fsdp': 2, 'context': 2, 'tensor': 2})):
    found = learn(params)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  for one, exact in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, exact, rtol=0, atol=CLOSE * largest)
