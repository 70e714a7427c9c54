"""LPIPS against its formula in numpy, the lpips package's numbers and the package itself."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mgjax.core.axes import LOGICAL_AXES
from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.models.tae.perceptual import COMMAND, Perceptual, read_perceptual, widths_of
from tests.oracles.perceptual import (
  FRAMES,
  SIZE,
  VECTORS,
  WIDTHS,
  draw_frames,
  draw_vgg,
  import_lpips,
)

EPS = float(np.finfo(np.float32).eps)
SMALL = (4, 5, 6, 7, 8)
STAGES = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}


def tensors(widths=SMALL, seed=0):
  """The contents of a file: VGG16 under torchvision's names, and weights of LPIPS."""
  rng = np.random.default_rng(seed)
  linear = [rng.uniform(0, 2, (1, width, 1, 1)).astype(np.float32) for width in widths]
  return draw_vgg(widths, seed) | {f'lin{k}.model.1.weight': w for k, w in enumerate(linear)}


def by_lpips(tensors):
  """The same under the package's names: weights twice, and the scaling of its inputs."""
  renamed = {}
  for name, tensor in tensors.items():
    first, rest = name.split('.', 1)
    if first == 'features':
      renamed[f'net.slice{STAGES[int(rest.split(".")[0])]}.{rest}'] = tensor
    else:
      renamed |= {name: tensor, f'lins.{first[3:]}.{rest}': tensor}
  scaling = {'shift': [-0.030, -0.088, -0.188], 'scale': [0.458, 0.448, 0.450]}
  for name, values in scaling.items():
    renamed[f'scaling_layer.{name}'] = np.float32(values).reshape(1, 3, 1, 1)
  return renamed


def write(folder, tensors):
  path = folder / 'lpips.safetensors'
  safetensors.numpy.save_file(tensors, path)
  return path


@pytest.fixture(scope='module')
def params(tmp_path_factory):
  return read_perceptual(write(tmp_path_factory.mktemp('weights'), tensors()))


@functools.cache
def compiled(dtype=jnp.float32, widths=SMALL):
  """(params, x, y) -> distances, and the gradient of their sum by y; (params, x) -> features."""
  model = Perceptual(widths=widths, dtype=dtype)

  def total(params, x, y):
    distances = model.apply({'params': params}, x, y)
    return jnp.sum(distances), distances

  features = jax.jit(lambda params, x: model.apply({'params': params}, x, method='features'))
  return jax.jit(jax.value_and_grad(total, argnums=2, has_aux=True)), features


def distance_and_gradient(params, x, y, dtype=jnp.float32):
  (_, distances), gradient = compiled(dtype)[0](params, x, y)
  return np.asarray(distances), np.asarray(gradient)


def scaled(image):
  return (np.float64(image) - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]


def activations(tensors, image):
  """VGG16 on one image (h w c) in float64, as sums over the nine taps of a window."""
  x, found = scaled(image), []
  for number in STAGES:
    kernel, bias = (np.float64(tensors[f'features.{number}.{part}']) for part in ('weight', 'bias'))
    height, width = x.shape[:2]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    y = sum(padded[i : i + height, j : j + width] @ kernel[:, :, i, j].T for i, j in taps)
    x = np.maximum(y + bias, 0)
    if number in (2, 7, 14, 21, 28):
      found.append(x)
      corners = [x[i : height // 2 * 2 : 2, j : width // 2 * 2 : 2] for i in (0, 1) for j in (0, 1)]
      x = np.max(corners, axis=0)
  return found


def distance(tensors, x, y):
  """LPIPS of two images in float64."""
  return compare(tensors, activations(tensors, x), activations(tensors, y))


def compare(tensors, *sides):
  """LPIPS of two images from their activations, in float64."""
  total = 0.0
  for k, pair in enumerate(zip(*sides, strict=True)):
    u, v = (a / (np.sqrt((a**2).sum(-1, keepdims=True)) + 1e-10) for a in pair)
    weights = np.float64(tensors[f'lin{k}.model.1.weight']).reshape(-1)
    total += ((u - v) ** 2 @ weights).mean()
  return total


def tolerance(weights, error):
  """Bounds the change of the root of a distance, of which activations have a relative error.

  The root is the length of the vector of all sqrt(w / places) (u - v), so it moves by no more than
  the lengths of the errors of u and v: sqrt(sum_l (2 error)^2 max w_l).
  """
  return 2 * error * np.sqrt(sum(float(np.max(w)) for w in weights))


def assert_near(found, exact, weights, error):
  bound = tolerance(weights, error)
  assert np.sqrt(exact).min() > 4 * bound, 'the bound says nothing about distances this small'
  np.testing.assert_allclose(np.sqrt(found), np.sqrt(exact), rtol=0, atol=bound)


def linear_weights(tensors):
  return [tensors[f'lin{k}.model.1.weight'] for k in range(5)]


def rounding(width):
  """The relative error of activations: 13 convolutions of 9 c terms, rounded independently."""
  return np.sqrt(13 * 9 * width) * EPS


def small_frames():
  return draw_frames((2, 2, 17, 22, 3), 1)  # odd sizes, of which pools leave something out


def test_distances_and_features_are_those_of_the_formulas(params):
  x, y = small_frames()
  found, _ = distance_and_gradient(params, x, y)
  assert found.shape == (2, 2) and found.dtype == np.float32
  places = [(b, t) for b in range(2) for t in range(2)]
  exact = np.reshape([distance(tensors(), x[p], y[p]) for p in places], (2, 2))
  assert_near(found, exact, linear_weights(tensors()), rounding(8))

  found = compiled()[1](params, x)
  exact = np.reshape([activations(tensors(), x[p])[-1].mean((0, 1)) for p in places], (2, 2, 8))
  np.testing.assert_allclose(found, exact, rtol=0, atol=rounding(8) * np.abs(exact).max())


def test_distances_and_features_are_the_packages_at_full_width(tmp_path):
  vectors = np.load(VECTORS)
  linear = {name: vectors[name] for name in vectors if name.startswith('lin')}
  params = read_perceptual(write(tmp_path, draw_vgg(WIDTHS, 0) | linear))
  assert widths_of(params) == WIDTHS
  x, y = map(jnp.asarray, draw_frames((1, FRAMES, *SIZE, 3), 1))
  model = Perceptual()

  @jax.jit
  def both(params):
    distances = model.apply({'params': params}, x, y)
    return distances, model.apply({'params': params}, x, method='features')

  distances, features = both(params)
  assert_near(distances[0], vectors['distances'], linear.values(), rounding(512))
  largest = vectors['features'].max()
  np.testing.assert_allclose(features[0], vectors['features'], atol=rounding(512) * largest)


def test_gradient_is_the_slope_of_the_formula(params):
  x, y = small_frames()
  _, gradient = distance_and_gradient(params, x, y)
  direction, step = np.random.default_rng(2).normal(size=y[0, 0].shape), 1e-6
  ends = [distance(tensors(), x[0, 0], y[0, 0] + s * step * direction) for s in (1, -1)]
  slope = (ends[0] - ends[1]) / (2 * step)
  # Forward, backward and the quotients by the lengths: three times the error of an activation.
  scale = np.linalg.norm(gradient[0, 0]) * np.linalg.norm(direction)
  assert np.sum(gradient[0, 0] * direction) == pytest.approx(slope, abs=3 * rounding(8) * scale)
  assert abs(slope) > 30 * rounding(8) * scale


@pytest.mark.parametrize('value', [0.0, 1e-30])  # whose square is 0 in float32
def test_gradient_is_finite_where_activations_have_no_length(params, value):
  x, y = small_frames()
  flat = jax.tree.map(np.copy, params)
  flat['vgg']['conv_4_3']['kernel'][:] = 0
  flat['vgg']['conv_4_3']['bias'][:] = value
  for other in (x, y):
    distances, gradient = distance_and_gradient(flat, x, other)
    assert np.isfinite(distances).all() and np.isfinite(gradient).all()


def test_bfloat16_is_close_to_float32(params):
  x, y = small_frames()
  exact, _ = distance_and_gradient(params, x, y)
  found, gradient = distance_and_gradient(params, x, y, jnp.bfloat16)
  assert found.dtype == np.float32 and np.isfinite(gradient).all()
  # In each of 13 layers the kernel, the product and its sum with the bias are rounded, each by at
  # most 2^-8 and in the mean square by a third of its square. These are independent, and a random
  # layer passes such errors on as it does signals.
  assert_near(found, exact, linear_weights(tensors()), np.sqrt(13 * 3 / 3) * 2**-8)


def test_lengths_and_sums_are_float32_whatever_the_compute_type(params):
  frames = [jnp.asarray(frame[:1, :1]) for frame in small_frames()]
  inputs = [jnp.asarray(scaled(frame), jnp.float32) for frame in frames]

  def run(params, frames, inputs):
    model = Perceptual(SMALL, jnp.bfloat16).bind({'params': params})
    return model(*frames)[0, 0], [model.vgg(x) for x in inputs]

  # Or the compiler might leave out a rounding on one of the two ways.
  run = jax.jit(run, compiler_options={'xla_allow_excess_precision': False})
  found, sides = run(params, frames, inputs)
  assert {a.dtype for side in sides for a in side} == {jnp.dtype(jnp.bfloat16)}
  exact = compare(tensors(), *([np.float64(a[0, 0]) for a in side] for side in sides))
  # A few roundings of a length and of the terms of sums over 8 channels.
  assert float(found) == pytest.approx(exact, rel=64 * EPS)


def test_both_ways_to_name_weights_give_the_same(params, tmp_path):
  classifier = {'classifier.0.weight': np.zeros((2, 3), np.float32)}
  only_lins = {name: x for name, x in by_lpips(tensors()).items() if name[:4] != 'lin0'}
  for given in (by_lpips(tensors()), tensors() | classifier, only_lins):
    again = read_perceptual(write(tmp_path, given))
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_what_is_read_fits_the_module(params):
  assert widths_of(params) == SMALL
  x, y = small_frames()
  shapes = nn.unbox(jax.eval_shape(Perceptual(SMALL).init, jax.random.key(0), x, y))['params']
  read = {name: (leaf.shape, leaf.dtype) for name, leaf in named_leaves(params).items()}
  assert read == {name: (leaf.shape, leaf.dtype) for name, leaf in named_leaves(shapes).items()}


def test_every_axis_has_a_name_and_the_network_is_vgg16():
  x = jnp.zeros((1, 1, 16, 16, 3))
  boxed = jax.eval_shape(Perceptual().init, jax.random.key(0), x, x)['params']
  for box in jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)):
    assert len(box.names) == len(box.value.shape)
    assert set(box.names) <= set(LOGICAL_AXES)
  assert count_parameters(nn.unbox(boxed)) == 14_714_688 + 1_472


def without(*names):
  return {name: x for name, x in tensors().items() if name not in names}


@pytest.mark.parametrize(
  ('given', 'said'),
  [
    (without('features.5.bias'), r'missing features\.5\.bias \(or net\.slice2\.5\.bias\)'),
    (without('lin3.model.1.weight'), r'missing lin3\.model\.1\.weight'),
    (draw_vgg(SMALL, 0), r'missing lin0\.\S+ \S+ \S+ lin1.*, 2 more'),
    (tensors() | {'features.1.weight': np.zeros(3)}, r'unknown features\.1\.weight'),
    (
      tensors() | {'features.2.weight': np.zeros((4, 5, 3, 3))},
      r'features\.2\.weight has the shape \(4, 5, 3, 3\); expected \(4, 4, 3, 3\)',
    ),
    (tensors() | {'features.7.bias': np.zeros(())}, r'features\.7\.bias has the shape \(\)'),
    (tensors() | {'lin1.model.1.weight': np.ones((1, 6, 1, 1))}, r'lin1.*expected \(1, 5, 1, 1\)'),
    (tensors() | {'lin1.model.1.weight': -np.ones((1, 5, 1, 1))}, r'lin1.*negative'),
    (tensors() | {'lins.2.model.1.weight': np.ones((1, 6, 1, 1))}, r'lin2.* and lins\.2.* differ'),
    (by_lpips(tensors()) | {'scaling_layer.shift': np.zeros(3)}, r'scaling_layer\.shift is \[0'),
  ],
)
def test_a_file_that_does_not_fit_is_refused(given, said, tmp_path):
  path = write(tmp_path, given)
  with pytest.raises(ConfigError, match=f'lpips.safetensors: {said}'):
    read_perceptual(path)


@pytest.mark.parametrize('name', ['nowhere.safetensors', 'vgg16.pth'])
def test_without_a_file_the_error_says_how_to_make_one(name, tmp_path):
  (tmp_path / 'vgg16.pth').write_bytes(b'')
  with pytest.raises(ConfigError, match='where the lpips package is installed, python -c'):
    read_perceptual(tmp_path / name)


def test_frames_smaller_than_four_halvings_are_refused(params):
  x = jnp.zeros((1, 1, 16, 15, 3))
  with pytest.raises(ConfigError, match='16 x 15 pixels are too small'):
    Perceptual(SMALL).apply({'params': params}, x, x)


@pytest.mark.oracle
def test_values_and_gradients_are_the_packages(tmp_path, monkeypatch):
  torch = pytest.importorskip('torch')
  from safetensors.torch import load_file

  lpips = import_lpips()
  monkeypatch.chdir(tmp_path)
  torch.manual_seed(0)
  exec(COMMAND.split('"')[1], {})  # writes lpips.safetensors
  params = read_perceptual('lpips.safetensors')

  model = lpips.LPIPS(net='vgg', pretrained=True, pnet_rand=True, verbose=False)
  model.load_state_dict(load_file('lpips.safetensors'))
  frames = draw_frames((1, 2, 48, 64, 3), 3)
  x, y = (torch.from_numpy(frame[0]).permute(0, 3, 1, 2) for frame in frames)
  y.requires_grad_()
  exact = model(x, y).ravel()
  exact.sum().backward()
  slope = y.grad.permute(0, 2, 3, 1).numpy()
  with torch.no_grad():
    deepest = model.net(model.scaling_layer(x))[-1].mean((2, 3)).numpy()

  run, features = compiled(widths=WIDTHS)
  (_, distances), gradient = run(params, *frames)
  error = 2 * rounding(512)  # both sides round
  weights = [params[f'weights_{stage}'] for stage in range(1, 6)]
  assert_near(distances[0], exact.detach().numpy(), weights, error)
  difference = np.linalg.norm(gradient[0] - slope)
  assert difference < 3 * error * np.linalg.norm(slope)
  np.testing.assert_allclose(features(params, frames[0])[0], deepest, atol=error * deepest.max())
