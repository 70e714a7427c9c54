"""Imports and exports codec weights by the names of DAC-VAE and transformers (Movie Gen §6).

DAC-VAE's checkpoints keep g and v of every weight apart, as `weight_g` and `weight_v`, and name
layers by their places; those of transformers (PeAudioDacEncoder, the decoder of DacModel) are
folded. Either form is read by either name. Convolutions of PyTorch are (o i k), transposed ones
(i o k).
"""

import functools
import logging
import os
import pathlib
import re
from collections.abc import Collection, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import Tensors, read_tensors, write_tensors
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Tree
from mgjax.models.codec.layers import DILATIONS
from mgjax.models.codec.model import Codec, make_codec
from mgjax.models.foreign_weights.format import ImportedWeights, WeightFormat, understanding
from mgjax.models.foreign_weights.names import arrange
from mgjax.models.foreign_weights.torch_pickle import TORCH_SUFFIXES, read_pickle
from mgjax.models.tae.latents import Statistics

_log = logging.getLogger(__name__)

WATERMARK = re.compile(
  r'decoder\.(model\.\d+\.block\.(2|3|6|7|10|11)\.'
  r'|wm_model\.(encoder_block\.(pre\.[23]|post)|msg_processor|decoder_block)\.)'
)
SIDES = ('encoder', 'decoder')
_KINDS = {'kernel': 'weight_v', 'scale': 'weight_g', 'bias': 'bias', 'alpha': 'alpha'}
_FOLDED = '.weight'
# (o i k) to (k i o) and back; (i o k) to (k i o), and back.
_FLIPPED, _FROM_UP, _TO_UP = (2, 1, 0), (2, 0, 1), (1, 2, 0)


def published_layers(levels: int) -> dict[str, str]:
  """Maps every layer of `Codec` to that of the published DAC-VAE; we count levels finest first."""
  layers = {
    'encoder/conv_in': 'encoder.block.0',
    'encoder/snake_out': f'encoder.block.{levels + 1}',
    'encoder/conv_out': f'encoder.block.{levels + 2}',
    'moments': 'quantizer.in_proj',
    'latents_in': 'quantizer.out_proj',
    'decoder/conv_in': 'decoder.model.0',
    'decoder/snake_out': 'decoder.wm_model.encoder_block.pre.0',
    'decoder/conv_out': 'decoder.wm_model.encoder_block.pre.1',
  }
  unit = {'snake_1': 'block.0', 'conv_1': 'block.1', 'snake_2': 'block.2', 'conv_2': 'block.3'}
  for level in range(levels):
    down = f'encoder.block.{level + 1}.block'
    up = f'decoder.model.{levels - level}.block'
    layers |= _level('encoder', level, f'{down}.3', f'{down}.4', _places(down, (0, 1, 2)), unit)
    layers |= _level('decoder', level, f'{up}.0', f'{up}.1', _places(up, (4, 5, 8)), unit)
  return layers


def transformers_layers(levels: int, side: str) -> dict[str, str]:
  """Maps the layers of one side of `Codec` to those of transformers, the side's name left out."""
  layers = {f'{side}/conv_in': 'conv1', f'{side}/snake_out': 'snake1', f'{side}/conv_out': 'conv2'}
  unit = {name: name.replace('_', '') for name in ('snake_1', 'conv_1', 'snake_2', 'conv_2')}
  for level in range(levels):
    block = f'block.{level if side == "encoder" else levels - 1 - level}'
    change = f'{block}.conv1' if side == 'encoder' else f'{block}.conv_t1'
    units = _places(f'{block}.res_unit', (1, 2, 3), between='')
    layers |= _level(side, level, f'{block}.snake1', change, units, unit)
  return layers


def _level(
  side: str, level: int, snake: str, change: str, units: Collection[str], unit: Mapping[str, str]
) -> dict[str, str]:
  """Maps the layers of a level: its snake, its change of the rate, and its residual units."""
  ours = f'{side}/level_{level}'
  layers = {f'{ours}_snake': snake, f'{ours}_{"down" if side == "encoder" else "up"}': change}
  for index, theirs in zip(range(len(DILATIONS)), units, strict=True):
    layers |= {f'{ours}_unit_{index}/{name}': f'{theirs}.{there}' for name, there in unit.items()}
  return layers


def _places(prefix: str, places: Collection[int], between: str = '.') -> list[str]:
  return [f'{prefix}{between}{arrange}' for arrange in places]


def published_fields(tensors: Mapping[str, np.ndarray]) -> JSON:
  """Reads fields of `Codec` from a published DAC-VAE's tensors. Raises ConfigError if some lack."""
  # One figure: each level doubles the width, and is made before it is compared with its tensors.
  levels = sum(bool(re.fullmatch(r'encoder\.block\.\d\.block\.4\.bias', name)) for name in tensors)
  width, channels, _ = _shape(tensors, 'encoder.block.0')
  downs = [_shape(tensors, f'encoder.block.{level + 1}.block.4') for level in range(levels)]
  return {
    'channels': channels,
    'width': width,
    'strides': tuple(taps // 2 for *_, taps in downs),
    'latent_channels': _shape(tensors, 'quantizer.out_proj')[1],
    'decoder_width': _shape(tensors, 'decoder.model.0')[0],
    'patch': 1,
  }


def transformers_side(tensors: Collection[str]) -> str | None:
  """Returns which side of transformers' DAC tensors are of, None if of neither."""
  if 'conv1.bias' not in tensors:
    return None
  return SIDES['block.0.conv_t1.bias' in tensors]


def transformers_fields(tensors: Mapping[str, np.ndarray], side: str) -> JSON:
  """Reads fields of `Codec` from one side of transformers' DAC. Raises ConfigError if some lack."""
  levels = sum(bool(re.fullmatch(r'block\.\d\.snake1\.alpha', name)) for name in tensors)
  change = 'conv1' if side == 'encoder' else 'conv_t1'
  taps = [_shape(tensors, f'block.{level}.{change}')[2] for level in range(levels)]
  outputs, inputs, _ = _shape(tensors, 'conv1')
  if side == 'encoder':
    fields = {
      'channels': inputs,
      'width': outputs,
      'strides': tuple(kernel_size // 2 for kernel_size in taps),
    }
  else:
    fields = {
      'channels': _shape(tensors, 'conv2')[0],
      'width': inputs // 2**levels,
      'strides': tuple(kernel_size // 2 for kernel_size in reversed(taps)),
      'decoder_width': outputs,
    }
  return {**fields, 'patch': 1}


def _shape(tensors: Mapping[str, np.ndarray], layer: str) -> tuple[int, ...]:
  for name in (f'{layer}.weight_v', f'{layer}{_FOLDED}'):
    if name in tensors and tensors[name].ndim == 3:
      return tensors[name].shape
  raise ConfigError(
    f'there is no weight of {layer} among the tensors; expected those of the published DAC-VAE, or '
    "of transformers' encoder or decoder of DAC"
  )


def import_published(tensors: Mapping[str, np.ndarray], params: Tree) -> tuple[Tree, int]:
  """Returns the parameters that the tensors of a published DAC-VAE make, in float32.

  Beside them, how many tensors were left out, all of the branch that mixes a watermark into decoded
  audio: callers log that there will be none. Of `params` shapes are enough. Raises ConfigError if a
  tensor is missing, left over, there in two forms, or of another shape.
  """
  model_tensors = {name: tensor for name, tensor in tensors.items() if not WATERMARK.match(name)}
  params = _import(
    model_tensors, params, published_layers(_levels(params)), "the published DAC-VAE's"
  )
  return params, len(tensors) - len(model_tensors)


def import_transformers(tensors: Mapping[str, np.ndarray], params: Tree, side: str) -> Tree:
  """Replaces one side of a codec by the tensors of a PeAudioDacEncoder or of a DacModel's decoder.

  Those of `side` ('encoder' or 'decoder') become float32; the others stay. Of what is replaced in
  `params` shapes are enough. Raises ConfigError if there is no such side; a tensor is missing, left
  over or of another shape.
  """
  if side not in SIDES:
    raise ConfigError(f'a codec has no side {side!r}; expected one of {SIDES}')
  layers = transformers_layers(_levels(params), side)
  return _import(tensors, params, layers, f"those of transformers' {side} of DAC")


def export_published(params: Tree) -> Tensors:
  """Returns all parameters by the published names: `import_published` reversed, bit by bit.

  There is no watermark among them: the published code would have to leave its own out.
  """
  layers = published_layers(_levels(params))
  return {
    _theirs(name, layers): _as_theirs(name, np.asarray(leaf, np.float32))
    for name, leaf in named_leaves(params).items()
  }


def _import(
  tensors: Mapping[str, np.ndarray], params: Tree, layers: Mapping[str, str], whose: str
) -> Tree:
  leaves = named_leaves(params)
  names = {name: _theirs(name, layers) for name in leaves if name.rpartition('/')[0] in layers}
  unfolded, sources = _unfolded(tensors)
  arrays = {
    ours: _as_ours(ours, unfolded[theirs]) for ours, theirs in names.items() if theirs in unfolded
  }
  names = {ours: sources.get(theirs, theirs) for ours, theirs in names.items()}
  expected = f"{whose}, of this model's widths, strides and channels"
  return arrange(params, names, arrays, tensors, expected)


def _levels(params: Tree) -> int:
  return sum(name.endswith('_down/bias') for name in named_leaves(params))


def _theirs(name: str, layers: Mapping[str, str]) -> str:
  layer, _, kind = name.rpartition('/')
  return f'{layers[layer]}.{_KINDS[kind]}'


def _unfolded(tensors: Mapping[str, np.ndarray]) -> tuple[Tensors, dict[str, str]]:
  """Splits folded weights w into v = w and g = |w|; returns also whence each tensor comes.

  A row of zeros gets v = 1 and g = 0, for it has no direction.
  """
  unfolded = {}
  sources = {}
  for name, tensor in tensors.items():
    parts = {name: tensor}
    if name.endswith(_FOLDED) and tensor.ndim == 3:
      norm = np.sqrt(np.sum(np.square(tensor, dtype=np.float32), axis=(1, 2), keepdims=True))
      parts = {f'{name}_v': np.where(norm == 0, np.ones_like(tensor), tensor), f'{name}_g': norm}
    for part, array in parts.items():
      if part in unfolded:
        raise ConfigError(f'{part} is there twice, folded and apart; keep one form')
      unfolded[part], sources[part] = array, name
  return unfolded, sources


def _as_ours(name: str, tensor: np.ndarray) -> np.ndarray:
  """Turns (o i k) and, of a transposed convolution, (i o k) into (k i o); vectors lose ones."""
  if name.endswith('/kernel') and tensor.ndim == 3:
    tensor = tensor.transpose(_FROM_UP if name.endswith('_up/kernel') else _FLIPPED)
  elif tensor.ndim == 3 and tensor.size == max(tensor.shape):
    tensor = tensor.reshape(-1)
  return np.ascontiguousarray(tensor, np.float32)


def _as_theirs(name: str, array: np.ndarray) -> np.ndarray:
  if name.endswith('/kernel'):
    array = array.transpose(_TO_UP if name.endswith('_up/kernel') else _FLIPPED)
  elif name.endswith('/scale'):
    array = array[:, None, None]
  elif name.endswith('/alpha'):
    array = array[None, :, None]
  return np.ascontiguousarray(array)


def _init(codec: Codec, _: Fields, key: jax.Array) -> Tree:
  sound = jnp.zeros((1, codec.compression, codec.channels))
  return nn.unbox(codec.init(key, sound, jax.random.key(0))['params'])


def _read_dac(
  fields: Fields, source: str | os.PathLike[str], *, seed: int, keep_type: bool
) -> ImportedWeights:
  """Reads a published DAC-VAE, or one side of transformers' DAC beside a new other one."""
  del keep_type  # trained, so float32
  tensors = (
    read_pickle(source) if os.fspath(source).endswith(TORCH_SUFFIXES) else read_tensors(source)[0]
  )
  side = transformers_side(tensors)
  file_fields = transformers_fields(tensors, side) if side else published_fields(tensors)
  fields = {**fields, **file_fields}
  key = jax.random.key(seed)
  with understanding(repr(os.fspath(source))):
    init = functools.partial(_init, make_codec(fields), {})
    shapes = jax.eval_shape(init, key)
  if side:
    import_transformers(tensors, shapes, side)  # all sizes are the file's before anything is made
    params = import_transformers(tensors, jax.jit(init)(key), side)
    _log.warning("the file holds DAC's %s alone; the rest of the codec starts anew", side)
  else:
    params, skipped = import_published(tensors, shapes)
    if skipped:
      _log.warning('%d tensors of a watermark are left out: sound will bear none', skipped)
  _log.info('latents are taken as mean 0, deviation 1, as DAC-VAE publishes them')
  return ImportedWeights(
    fields, params, {'latents': Statistics.neutral(fields['latent_channels']).as_dict()}
  )


def _write_dac(params: Tree, fields: Fields, notes: Fields, out: pathlib.Path) -> str:
  if (patch := fields.get('patch', 1)) != 1:
    raise ConfigError(
      f'the published codec folds no samples, this one has model.patch = {patch}; export it '
      'with --format=mgjax'
    )
  write_tensors(out, export_published(params), {'format': 'pt'})
  if Statistics.from_dict(notes['latents']) != Statistics.neutral(fields['latent_channels']):
    _log.warning('the statistics of the latents are left out: the published codec has none')
  return "the codec by DAC-VAE's names"


CODEC_FORMAT = WeightFormat(make_codec, _init, _read_dac, {'dacvae': _write_dac})
