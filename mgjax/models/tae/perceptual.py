"""LPIPS, the perceptual distance of two frames: the autoencoder's perceptual loss
(Movie Gen §3.1.1) and a measure of its reconstructions.

Zhang et al. (2018), 'The Unreasonable Effectiveness of Deep Features as a Perceptual Metric',
version 0.1 on the VGG16 of Simonyan and Zisserman (2015). Which network the paper uses is not in
public sources.
"""

import os
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import read_tensors, shown
from mgjax.core.typing import Array, Float, Tree
from mgjax.nn.conv import SpatialConv
from mgjax.nn.linear import ONES, parameter

# The convolutions of each slice by their numbers in torchvision's `features`; a slice ends with a
# ReLU (relu1_2, relu2_2, relu3_3, relu4_3, relu5_3), and every slice but the first starts with a
# pooling.
NUMBERS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10
_SMALLEST = 2 ** (len(NUMBERS) - 1)

COMMAND = (
  'python -c "import lpips, safetensors.torch as s; '
  "s.save_file({k: v.clone() for k, v in lpips.LPIPS(net='vgg').state_dict().items()}, "
  "'lpips.safetensors')\""
)


class VGG16(nn.Module):
  """The convolutions of VGG16 over every frame by itself: 3 x 3, ReLU, 2 x 2 max pools."""

  widths: tuple[int, ...] = (64, 128, 256, 512, 512)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w 3']) -> tuple[Float[Array, 'b t _h _w _c'], ...]:
    """Returns the activations relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
    Raises ConfigError if nothing would be left of the frames after four pools.
    """
    if min(x.shape[2:4]) < _SMALLEST:
      raise ConfigError(
        f'frames of {x.shape[2]} x {x.shape[3]} pixels are too small for VGG16, which halves them '
        f'four times; give at least {_SMALLEST} x {_SMALLEST}'
      )
    activations = []
    for stage, (width, numbers) in enumerate(zip(self.widths, NUMBERS, strict=True), start=1):
      if stage > 1:
        x = _pool(x)
      for index in range(1, len(numbers) + 1):
        x = jax.nn.relu(SpatialConv(width, dtype=self.dtype, name=f'conv_{stage}_{index}')(x))
      activations.append(x)
    return tuple(activations)


class Perceptual(nn.Module):
  """d(x, y) = sum_l mean_hw sum_c w_lc (u_lhwc - v_lhwc)^2, LPIPS.

  u_l and v_l are the activations of slice l of VGG16 on x and y, divided by their length over
  channels; w_l >= 0. At initialisation w = 1 and the network is random: `read_perceptual` reads
  trained ones.
  """

  widths: tuple[int, ...] = (64, 128, 256, 512, 512)
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.vgg = VGG16(self.widths, self.dtype)
    self.weights = tuple(
      parameter(self, f'weights_{stage}', ONES, ('channels',), (width,))
      for stage, width in enumerate(self.widths, start=1)
    )

  def __call__(
    self, x: Float[Array, 'b t h w 3'], y: Float[Array, 'b t h w 3']
  ) -> Float[Array, 'b t']:
    """Returns the distance of each frame of x to that of y, pixels in [-1, 1].
    Raises ConfigError if the frames are smaller than 16 x 16 pixels.
    """
    # One after the other: of data, that nothing is differentiated by, no activation is kept.
    distance = jnp.zeros(x.shape[:2], jnp.float32)
    for weights, u, v in zip(self.weights, self._activations(x), self._activations(y), strict=True):
      difference = _unit(u) - _unit(v)
      weighted = difference * difference * weights[None, None, None, None]
      distance += jnp.mean(jnp.sum(weighted, axis=-1), axis=(2, 3))
    return distance

  def features(self, x: Float[Array, 'b t h w 3']) -> Float[Array, 'b t c']:
    """Returns relu5_3 averaged over places, which a Frechet distance can be taken over.
    Raises ConfigError if the frames are smaller than 16 x 16 pixels.
    """
    return jnp.mean(self._activations(x)[-1].astype(jnp.float32), axis=(2, 3))

  def _activations(self, x: Array) -> tuple[Array, ...]:
    shift, scale = (jnp.array(values)[None, None, None, None] for values in (SHIFT, _SCALE))
    return self.vgg((x.astype(jnp.float32) - shift) / scale)


def _pool(x: Float[Array, 'b t h w c']) -> Float[Array, 'b t i j c']:
  """The largest of every 2 x 2 places; an odd last row or column is left out.

  As a reshape: on a CPU the gradient of XLA's own window takes ten times as long.
  """
  b, t, h, w, c = x.shape
  x = x[:, :, : h // 2 * 2, : w // 2 * 2]
  return jnp.max(x.reshape(b, t, h // 2, 2, w // 2, 2, c), axis=(3, 5))


def _unit(x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w c']:
  x = x.astype(jnp.float32)
  squares = jnp.sum(x * x, axis=-1, keepdims=True)
  # Where every channel is (nearly) 0 the root has no derivative; any length will do there.
  return x / (jnp.sqrt(jnp.where(squares > 0, squares, 1.0)) + EPSILON)


def widths_of(params: Tree) -> tuple[int, ...]:
  """Returns the `widths` of the `Perceptual` that these parameters belong to."""
  return tuple(params[f'weights_{stage}'].shape[0] for stage in range(1, len(NUMBERS) + 1))


def read_perceptual(path: str | os.PathLike[str]) -> Tree:
  """Reads the parameters of `Perceptual` from a .safetensors file.

  The file has VGG16 under torchvision's names, 'features.0.weight', or lpips' own,
  'net.slice1.0.weight'. LPIPS's weights are 'lin0.model.1.weight' or 'lins.0.model.1.weight'. A
  tensor under two names must be the same. The classifier of torchvision is left out. Where the
  lpips package is installed, this makes such a file:

    import lpips, safetensors.torch
    state = lpips.LPIPS(net='vgg').state_dict()
    safetensors.torch.save_file({k: v.clone() for k, v in state.items()}, 'lpips.safetensors')

  Returns:
    float32 arrays; kernels (height, width, in, out). `widths_of` gives the module's widths.

  Raises:
    ConfigError: there is no such file; a name is missing or unknown, a shape does not fit, one
      number has two values, a weight is negative, or inputs are scaled in another way.
  """
  path = pathlib.Path(path)
  if path.suffix != '.safetensors' or not path.is_file():
    raise ConfigError(
      f'{path} is no .safetensors file with the weights of VGG16 and LPIPS; where the lpips '
      f'package is installed, {COMMAND} makes one'
    )
  try:
    tensors = {
      name: np.asarray(tensor, np.float32)
      for name, tensor in read_tensors(path)[0].items()
      if not name.startswith('classifier.')
    }
  except ConfigError as error:
    raise ConfigError(f'{error}; make it again: {COMMAND}') from error
  try:
    _check_scaling(tensors)
    return _arrange(_match(tensors))
  except ConfigError as error:
    raise ConfigError(f'{path}: {error}') from error


def _check_scaling(tensors: dict[str, np.ndarray]) -> None:
  """Takes lpips' constants out of `tensors`: they are no parameters here."""
  for name, values in (('shift', SHIFT), ('scale', _SCALE)):
    values_in_file = tensors.pop(f'scaling_layer.{name}', None)
    if values_in_file is not None and not np.array_equal(
      values_in_file.ravel(), np.float32(values)
    ):
      raise ConfigError(
        f'scaling_layer.{name} is {values_in_file.ravel().tolist()!r:.100}, not the '
        f'{list(values)} of lpips 0.1; expected the weights of that version'
      )


def _match(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the tensors under torchvision's names, accounting for every one."""
  synonyms = {}
  for stage, numbers in enumerate(NUMBERS):
    for number in numbers:
      for part in ('weight', 'bias'):
        synonyms[f'features.{number}.{part}'] = f'net.slice{stage + 1}.{number}.{part}'
    synonyms[f'lin{stage}.model.1.weight'] = f'lins.{stage}.model.1.weight'
  unknown = sorted(set(tensors) - set(synonyms) - set(synonyms.values()))
  if unknown:
    raise ConfigError(f'unknown {_some(unknown)}; expected VGG16 and the weights of LPIPS alone')
  matched = {}
  for pair in synonyms.items():
    values = [tensors[name] for name in pair if name in tensors]
    if len(values) == 2 and not np.array_equal(*values):
      raise ConfigError(f'{" and ".join(pair)} differ; expected one value under both names')
    if values:
      matched[pair[0]] = values[0]
  missing = [f'{name} (or {synonyms[name]})' for name in synonyms if name not in matched]
  if missing:
    raise ConfigError(f'missing {_some(missing)}; to make a complete file: {COMMAND}')
  return matched


def _some(names: list[str]) -> str:
  more = [f'{len(names) - 3} more'] if len(names) > 3 else []
  return ', '.join([*map(shown, names[:3]), *more])


def _arrange(tensors: dict[str, np.ndarray]) -> Tree:
  """Returns the parameter tree, checking shapes: a slice is as wide as its first bias is long."""

  def take(name: str, *shape: int) -> np.ndarray:
    if tensors[name].shape != shape or not tensors[name].size:
      raise ConfigError(f'{name} has the shape {tensors[name].shape}; expected {shape}')
    return tensors[name]

  params = {'vgg': {}}
  inputs = 3
  for stage, numbers in enumerate(NUMBERS, start=1):
    width = tensors[f'features.{numbers[0]}.bias'].size
    for index, number in enumerate(numbers, start=1):
      kernel = take(f'features.{number}.weight', width, inputs, 3, 3).transpose(2, 3, 1, 0)
      bias = take(f'features.{number}.bias', width)
      params['vgg'][f'conv_{stage}_{index}'] = {'kernel': kernel, 'bias': bias}
      inputs = width
    name = f'lin{stage - 1}.model.1.weight'
    params[f'weights_{stage}'] = take(name, 1, width, 1, 1).ravel()
    if (params[f'weights_{stage}'] < 0).any():
      raise ConfigError(f'{name} has negative numbers; expected the trained weights of LPIPS')
  return params
