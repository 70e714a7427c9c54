"""Inflates image autoencoders into video autoencoders and extracts them (Movie Gen §3.1.1).

The image model is diffusers' `AutoencoderKL`, the network of Rombach et al. (2022), as Stable
Diffusion 1, 2, 3, XL and FLUX publish it. Its layers become the spatial layers of `Autoencoder`;
the temporal ones keep what they start with, the identity or zero. So the video model answers every
frame as the image model does, as long as no stride compresses time, and always an image.
"""

import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json
from mgjax.core.safetensors_files import Tensors, listed, read_tensors
from mgjax.core.settings import Positive, Range
from mgjax.core.tree import named_leaves, nest
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.format import config_number
from mgjax.models.foreign_weights.names import arrange
from mgjax.models.tae.latents import Statistics
from mgjax.nn.conv import centred

# What config.json must say; where it is silent, diffusers means the same.
FIXED = {
  '_class_name': 'AutoencoderKL',
  'in_channels': 3,
  'out_channels': 3,
  'act_fn': 'silu',
  'mid_block_add_attention': True,
}
# What diffusers means where it is silent on these.
GROUPS = 32
_SCALING = 0.18215
_MOST = 8  # levels, and blocks of one; twice as many as any published model has
_KINDS = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
_OLD_NAMES = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}


def image_layers(levels: int, blocks: int) -> dict[str, str]:
  """Maps every spatial layer of `Autoencoder` to the layer of `AutoencoderKL` that it is.

  We count levels from the finest, diffusers those of its decoder from the coarsest. `blocks` are of
  an encoder level; a decoder level has one more.
  """
  layers = {name: name for name in ('quant_conv', 'post_quant_conv')}
  for side in ('encoder', 'decoder'):
    ours, theirs = f'{side}/middle_attention', f'{side}.mid_block.attentions.0'
    layers |= {
      f'{side}/conv_in/spatial': f'{side}.conv_in',
      **_residual(f'{side}/middle_block_0', f'{side}.mid_block.resnets.0'),
      f'{ours}/spatial_norm': f'{theirs}.group_norm',
      f'{ours}/spatial_query': f'{theirs}.to_q',
      f'{ours}/spatial_key': f'{theirs}.to_k',
      f'{ours}/spatial_value': f'{theirs}.to_v',
      f'{ours}/spatial_out': f'{theirs}.to_out.0',
      **_residual(f'{side}/middle_block_1', f'{side}.mid_block.resnets.1'),
      f'{side}/norm_out': f'{side}.conv_norm_out',
    }
  layers |= {'encoder/conv_out/spatial': 'encoder.conv_out', 'decoder/conv_out': 'decoder.conv_out'}
  for level in range(levels):
    down = f'encoder.down_blocks.{level}'
    up = f'decoder.up_blocks.{levels - 1 - level}'
    for block in range(blocks):
      layers |= _residual(f'encoder/level_{level}_block_{block}', f'{down}.resnets.{block}')
    for block in range(blocks + 1):
      layers |= _residual(f'decoder/level_{level}_block_{block}', f'{up}.resnets.{block}')
    if level < levels - 1:
      layers[f'encoder/level_{level}_down/spatial'] = f'{down}.downsamplers.0.conv'
    if level > 0:  # where their level ends with it, our finer one begins with it
      layers[f'decoder/level_{level - 1}_up/conv/spatial'] = f'{up}.upsamplers.0.conv'
  return layers


def _residual(ours: str, theirs: str) -> dict[str, str]:
  return {
    f'{ours}/norm_1': f'{theirs}.norm1',
    f'{ours}/conv_1/spatial': f'{theirs}.conv1',
    f'{ours}/norm_2': f'{theirs}.norm2',
    f'{ours}/conv_2/spatial': f'{theirs}.conv2',
    f'{ours}/shortcut': f'{theirs}.conv_shortcut',
  }


def inflate(tensors: Mapping[str, np.ndarray], params: Tree) -> Tree:
  """Replaces the spatial parameters by the tensors of an image autoencoder, in float32.

  Args:
    tensors: by diffusers' names, those of attention in their old or their new form; its matrices
      as linear maps (o i) or 1 x 1 convolutions (o i 1 1).
    params: of an `Autoencoder` as initialised, with or without temporal layers; of spatial
      parameters the shapes are enough.

  Raises:
    ConfigError: a tensor is missing, left over, or of another shape.
  """
  leaves = named_leaves(params)
  names, _ = _image_names(leaves)
  tensors = _with_new_names(tensors)
  arrays = {
    ours: _as_ours(tensors[theirs], len(leaves[ours].shape))
    for ours, theirs in names.items()
    if theirs in tensors
  }
  expected = "those of diffusers' AutoencoderKL, of this model's widths, blocks and channels"
  return arrange(params, names, arrays, tensors, expected + _hint(tensors))


def deflate(params: Tree) -> tuple[Tensors, dict[str, bool]]:
  """Extracts the image autoencoder from a video autoencoder, or from one: `inflate` reversed.

  Returns the spatial parameters by diffusers' names; and each temporal parameter, all of which are
  left out, with whether it is still neutral: then the image model is the video model on one frame.
  Raises ConfigError if the spatial layers are not those of an `AutoencoderKL`.
  """
  leaves = {name: np.asarray(leaf, np.float32) for name, leaf in named_leaves(params).items()}
  names, temporal = _image_names(leaves)
  layers = {name.rpartition('/')[0] for name in names}
  absent = [
    layer
    for layer in image_layers(*_size(leaves))
    if layer not in layers and not layer.endswith(('shortcut', 'quant_conv'))
  ]
  if absent or leaves['encoder/conv_in/spatial/kernel'].shape[2] != 3:
    raise ConfigError(
      "this autoencoder holds no image model of diffusers' kind: it folds pixels into patches or "
      'does not halve the frames between all its levels; expected patch (1, 1, 1) and strides of '
      f'(1 or 2, 2, 2), one fewer than widths{"; " * bool(absent)}{listed({"absent": absent})}'
    )
  tensors = {theirs: _as_theirs(leaves[ours]) for ours, theirs in names.items()}
  return tensors, {name: _is_neutral(name, leaves) for name in temporal}


def without_time(params: Tree) -> Tree:
  """Returns the parameters of a video autoencoder without its temporal layers."""
  return nest(
    {name: leaf for name, leaf in named_leaves(params).items() if '/temporal' not in name}
  )


def _image_names(names: Collection[str]) -> tuple[dict[str, str], list[str]]:
  """Splits our parameters: the spatial ones, each with the name of its tensor, and the temporal."""
  layers = image_layers(*_size(names))
  spatial = {}
  temporal = []
  other = []
  for name in names:
    layer, _, kind = name.rpartition('/')
    if '/temporal' in name:
      temporal.append(name)
    elif layer in layers:
      spatial[name] = f'{layers[layer]}.{_KINDS[kind]}'
    else:
      other.append(name)
  if other:
    raise ConfigError(
      f'an image autoencoder has no layers like these of the model: {listed({"spatial": other})}; '
      'take one stride fewer than widths'
    )
  return spatial, temporal


def _size(names: Collection[str]) -> tuple[int, int]:
  """Levels, and residual blocks of an encoder level."""
  matches = [re.match(r'decoder/level_(\d+)_block_(\d+)/', name) for name in names]
  levels, blocks = zip(*[map(int, match.groups()) for match in matches if match], strict=True)
  return 1 + max(levels), max(blocks)


def _with_new_names(tensors: Mapping[str, np.ndarray]) -> Tensors:
  old = re.compile(rf'(?<=\.attentions\.0\.)({"|".join(_OLD_NAMES)})(?=\.)')
  renewed = {old.sub(lambda m: _OLD_NAMES[m[1]], name): name for name in tensors}
  if len(renewed) < len(tensors):
    twice = sorted(tensors.keys() - set(renewed.values()))
    raise ConfigError(f'{twice[0]} is there twice, by its old and by its new name; keep one')
  return {name: tensors[before] for name, before in renewed.items()}


def _as_ours(tensor: np.ndarray, dimensions: int) -> np.ndarray:
  """Turns (o i h w) into (h w i o), (o i) and (o i 1 1) into (i o); vectors stay."""
  if dimensions == 2 and tensor.shape[2:] == (1, 1):
    tensor = tensor[:, :, 0, 0]
  tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
  return np.ascontiguousarray(tensor, np.float32)


def _as_theirs(array: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def _is_neutral(name: str, leaves: Tensors) -> bool:
  layer, _, kind = name.rpartition('/')
  if layer.endswith('/temporal'):  # a convolution
    array = leaves[name]
    start = np.asarray(centred(None, array.shape, array.dtype)) if kind == 'kernel' else 0
    return bool(np.all(array == start))
  out = f'{layer.rpartition("/")[0]}/temporal_out'
  return not (leaves[f'{out}/kernel'].any() or leaves[f'{out}/bias'].any())


def _hint(tensors: Collection[str]) -> str:
  if any(re.search(r'encoder\.(down|mid)\.', name) for name in tensors):
    return '; these have the names of the original code, load and save the model with diffusers'
  if not any('.mid_block.attentions.' in name for name in tensors):
    return '; these have no attention in the middle, and models without it are not supported'
  return ''


class ImageAutoencoderFiles(NamedTuple):
  """An image autoencoder as its files give it.

  The fields are those of an `Autoencoder` with strides that compress time as well. Tensors go by
  the names in the file; statistics are None where no config.json tells them.
  """

  fields: JSON
  tensors: Tensors
  statistics: Statistics | None


def read_image_autoencoder(path: str | os.PathLike[str]) -> ImageAutoencoderFiles:
  """Reads a folder that diffusers wrote, or a .safetensors file of the same tensors alone.

  Sizes are those of the tensors; groups and statistics stand in config.json. diffusers scales
  latents as (z - shift_factor) scaling_factor or as (z - latents_mean) scaling_factor /
  latents_std: means and inverse standard deviations.
  Raises ConfigError if there are no such files, or they are damaged, pickled or of another model.
  """
  path = pathlib.Path(path)
  config = {}
  if folder := path.is_dir():
    config = _read_config(path / 'config.json')
    # A variant's name, as in diffusion_pytorch_model.fp16.safetensors, is longer.
    files = sorted(path.glob('diffusion_pytorch_model*.*'), key=lambda file: len(file.name))
    files = [file for file in files if file.suffix == '.safetensors'] or files
    path = files[0] if files else path / 'diffusion_pytorch_model.safetensors'
  tensors, _ = read_tensors(path)
  fields = _read_fields(tensors, config_number(config, 'norm_num_groups', GROUPS, Positive))
  sizes = {
    'latent_channels': fields['latent_channels'],
    'block_out_channels': list(fields['widths']),
    'layers_per_block': fields['blocks'],
  }
  _check_config(config, {name: sizes[name] for name in sizes.keys() & config.keys()})
  statistics = _read_statistics(config, fields['latent_channels']) if folder else None
  return ImageAutoencoderFiles(fields, tensors, statistics)


def _read_config(path: pathlib.Path) -> JSON:
  mend = 'give a folder that diffusers wrote, or a .safetensors file alone'
  config = read_json(path, mend=mend)
  _check_config(config, FIXED)
  for name, kind in (
    ('down_block_types', 'DownEncoderBlock2D'),
    ('up_block_types', 'UpDecoderBlock2D'),
  ):
    kinds = config.get(name, [kind])
    if not isinstance(kinds, list) or not kinds or any(block_type != kind for block_type in kinds):
      _check_config(config, {name: [kind]})
  return config


def _check_config(config: Fields, expected: Fields) -> None:
  for name, value in expected.items():
    if config.get(name, value) != value:
      raise ConfigError(
        f'config.json of the image autoencoder has {name} = {config[name]!r:.100}; expected '
        f'{value!r}'
      )


def _read_fields(tensors: Tensors, groups: int) -> JSON:
  def width(name: str) -> int:
    if f'{name}.weight' not in tensors:
      raise ConfigError(
        f"there is no tensor {name}.weight; expected those of diffusers' AutoencoderKL"
        + _hint(tensors)
      )
    return (*tensors[f'{name}.weight'].shape, 0)[0]

  def count(names: str) -> int:
    there = (number for number in range(_MOST) if f'{names.format(number)}.weight' not in tensors)
    return max(next(there, _MOST), 1)

  levels = count('encoder.down_blocks.{}.resnets.0.conv2')
  blocks = count('encoder.down_blocks.0.resnets.{}.conv2')
  widths = tuple(width(f'encoder.down_blocks.{i}.resnets.0.conv2') for i in range(levels))
  if wrong := [width for width in widths if not width or width % groups]:
    raise ConfigError(
      f'{wrong[0]} channels do not divide into {groups} groups; give the folder, whose config.json '
      'says norm_num_groups'
    )
  return {
    'latent_channels': width('encoder.conv_out') // 2,
    'widths': widths,
    'strides': ((2, 2, 2),) * (levels - 1),
    'blocks': blocks,
    'groups': groups,
    'patch': (1, 1, 1),
    'quant_convolutions': 'quant_conv.weight' in tensors,
  }


def _read_statistics(config: Mapping[str, Any], channels: int) -> Statistics:
  scaling = config_number(
    config, 'scaling_factor', _SCALING, Annotated[float, Range(least=1e-6, most=1e6)]
  )
  shift = config_number(config, 'shift_factor', 0.0, Annotated[float, Range(least=-1e6, most=1e6)])
  mean, std = config.get('latents_mean'), config.get('latents_std')
  statistics = Statistics.from_dict(
    {
      'mean': [shift] * channels if mean is None else mean,
      'std': [1.0] * channels if std is None else std,
    },
    channels,
  )
  return Statistics(statistics.mean, tuple(deviation / scaling for deviation in statistics.std))
