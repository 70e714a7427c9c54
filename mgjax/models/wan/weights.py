"""Imports and exports Wan by the names of diffusers and by those of the original code.

Files for ComfyUI have the names of the original, behind one of `PREFIXES`. Their float8 weights q
with a scale s are read as q s.
"""

import functools
import logging
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON, Fields, differences
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes, write_json
from mgjax.core.safetensors_files import AnyTensor, StoredTensor, check_agrees, in_file, listed
from mgjax.core.typing import Tree
from mgjax.models.flow_model.build import FLOW_MODEL_FORMAT
from mgjax.models.foreign_weights.files import WeightFile, read_weights
from mgjax.models.foreign_weights.format import ImportedWeights, WeightFormat, parameter_shapes
from mgjax.models.foreign_weights.names import LAYER, TensorName, export_tensors, import_tensors
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.tae.latents import Statistics
from mgjax.models.wan import autoencoder_names, names
from mgjax.models.wan.autoencoder import WanAutoencoder
from mgjax.models.wan.published import LATENTS

LAYOUTS = {'diffusers': 0, 'original': -1}  # which name of a row each of them has
PREFIXES = ('model.diffusion_model.', 'diffusion_model.')
HEAD_SIZE = 128  # of every published model
BACKBONE = 'backbone'
_WEIGHT, _SCALE = '.weight', '.scale_weight'
_FLOAT8 = ('float8_e4m3fn', 'float8_e5m2')
# Of float8 files: a marker, and scales of what is multiplied with the weights.
_LEFT_OUT = (TensorName(None, 'scaled_fp8'), TensorName(None, '*.scale_input'))
# Fields of `WanTransformer` by the names in config.json: diffusers', the original's.
_CONFIG_NAMES = {
  'depth': ('num_layers', 'num_layers'),
  'heads': ('num_attention_heads', 'num_heads'),
  'mlp_dim': ('ffn_dim', 'ffn_dim'),
  'channels_out': ('out_channels', 'out_dim'),
  'epsilon': ('eps', 'eps'),
}
# What config.json also says, for those who read what is exported.
_DIFFUSERS = {
  '_class_name': 'WanTransformer3DModel',
  'added_kv_proj_dim': None,
  'cross_attn_norm': True,
  'freq_dim': 256,
  'image_dim': None,
  'pos_embed_seq_len': None,
  'qk_norm': 'rms_norm_across_heads',
  'rope_max_seq_len': 1024,
}
_ORIGINAL = {'_class_name': 'WanModel', 'freq_dim': 256, 'model_type': 't2v', 'text_len': 512}

_log = logging.getLogger(__name__)


def open_wan(path: str | os.PathLike[str], *, keep_type: bool = False) -> WeightFile:
  """Opens files of Wan; names come without prefixes, and float8 weights as products.

  These are float32, or bfloat16 with `keep_type`. Raises ConfigError as `read_weights`.
  """
  weights = read_weights(path)
  tensors = {_without_prefix(name): tensor for name, tensor in weights.tensors.items()}
  dtype = np.dtype(jnp.bfloat16 if keep_type else np.float32)
  for name, tensor in tensors.items():
    if tensor.dtype.name in _FLOAT8 and name.endswith(_WEIGHT):
      scale = tensors.get(name.removesuffix(_WEIGHT) + _SCALE)
      load = functools.partial(_product, name, tensor, scale, dtype)
      tensors[name] = StoredTensor(tensor.shape, dtype, load)
  scales = {name.removesuffix(_WEIGHT) + _SCALE for name in tensors if name.endswith(_WEIGHT)}
  tensors = {name: tensor for name, tensor in tensors.items() if name not in scales}
  return weights._replace(tensors=tensors)


def _without_prefix(name: str) -> str:
  for prefix in PREFIXES:
    if name.startswith(prefix):
      return name.removeprefix(prefix)
  return name


def _product(
  name: str, tensor: StoredTensor, scale: StoredTensor | None, dtype: np.dtype
) -> np.ndarray:
  product = np.asarray(tensor).astype(np.float32)
  if scale is not None:
    if scale.size != 1:
      raise ConfigError(f'the scale of {name} has the shape {scale.shape}; expected one number')
    product *= np.asarray(scale).astype(np.float32).reshape(())
  return product.astype(dtype)


def transformer_fields(tensors: Mapping[str, AnyTensor], config: Fields | None = None) -> JSON:
  """Reads fields of `WanTransformer` from its tensors, and from config.json if there is one.

  Heads have `HEAD_SIZE` numbers unless config.json says otherwise. Raises ConfigError if a tensor
  that shows a size is missing, if config.json is of another model, or if the model reads pictures.
  """
  dim, channels_in, *patch = _shape(tensors, names.ROWS, 'patch_in/kernel', 5)
  mlp_dim, _ = _shape(tensors, names.ROWS, 'layers/feed_forward/up/kernel', 2)
  _, text_dim = _shape(tensors, names.ROWS, 'text_in/kernel', 2)
  numbers, _ = _shape(tensors, names.ROWS, 'patch_out/kernel', 2)
  channels_out = numbers // math.prod(patch)
  if channels_in != channels_out:
    raise ConfigError(
      f'the model reads {channels_in} channels and answers {channels_out}: it makes videos from '
      'pictures, which mgjax does not read; give a text-to-video model'
    )
  fields = {
    'dim': dim,
    'depth': len({match[1] for name in tensors if (match := re.match(r'blocks\.(\d+)\.', name))}),
    'mlp_dim': mlp_dim,
    'channels_out': channels_out,
    'text_dim': text_dim,
    'patch': tuple(patch),
  }
  if dim % HEAD_SIZE == 0:
    fields['heads'] = dim // HEAD_SIZE
  said = {
    ours: next((config[name] for name in theirs if name in config), None)
    for ours, theirs in _CONFIG_NAMES.items()
    if config is not None
  }
  check_agrees({name: said[name] for name in said if name in fields and name != 'heads'}, fields)
  return fields | {name: said[name] for name in ('heads', 'epsilon') if said.get(name) is not None}


def open_transformer(
  source: str | os.PathLike[str], fields: Fields, *, keep_type: bool = False
) -> WeightFile:
  """Opens a transformer as `open_wan`. Raises ConfigError unless it is that of `config.model`."""
  weights = open_wan(source, keep_type=keep_type)
  _check_sizes(source, fields, transformer_fields(weights.tensors, weights.config))
  return weights


def autoencoder_fields(tensors: Mapping[str, AnyTensor], rows: Sequence[TensorName]) -> JSON:
  """Reads fields of `WanAutoencoder` from its tensors; `rows` are those of any such autoencoder.

  Raises ConfigError if a tensor that shows a size is missing.
  """
  encoder_width, numbers, *_ = _shape(tensors, rows, 'encoder/conv_in/kernel', 5)
  decoder_width, *_ = _shape(tensors, rows, 'decoder/norm_out/scale', 4)
  latent_channels, *_ = _shape(tensors, rows, 'post_quant_conv/kernel', 5)
  nested = ('encoder.down_blocks.0.resnets.', 'encoder.downsamples.0.downsamples.')
  return {
    'encoder_width': encoder_width,
    'decoder_width': decoder_width,
    'latent_channels': latent_channels,
    'patch': math.isqrt(numbers // 3),
    'shortcuts': any(name.startswith(nested) for name in tensors),
  }


def _shape(
  tensors: Mapping[str, AnyTensor], rows: Sequence[TensorName], ours: str, rank: int
) -> tuple[int, ...]:
  """Returns the shape of the tensor of a parameter, in the first layer."""
  (row,) = (row for row in rows if row.ours == ours)
  theirs = [name.replace(LAYER, '0') for name in row.names]
  for name in theirs:
    if name in tensors and tensors[name].ndim == rank:
      return tensors[name].shape
  raise ConfigError(
    f'there is no tensor {theirs[0]} of {rank} axes among {listed({"tensors": tensors})}; '
    f'expected {names.EXPECTED}'
  )


def _check_sizes(source: str | os.PathLike[str], model: Fields, shown: Fields) -> None:
  """Raises ConfigError unless `config.model` has the sizes that the files show."""
  given = {name: model.get(name) for name in shown}
  given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
  if wrong := differences(given, dict(shown)):
    raise ConfigError(
      f'config.model is of another Wan than {os.fspath(source)!r}: {"; ".join(wrong)}; choose the '
      'configuration of that size, as configs/wan/text_to_video.py:14b'
    )


def _read_transformer(
  fields: Fields, source: str | os.PathLike[str], *, seed: int, keep_type: bool
) -> ImportedWeights:
  """Reads a transformer; parameters of conditionings are zeros, which its files do not have."""
  del seed
  weights = open_transformer(source, fields, keep_type=keep_type)
  statistics = _published_statistics(fields['channels_out'])
  notes = {'latents': statistics.as_dict()}
  shapes = parameter_shapes(TRANSFORMER_FORMAT, fields, notes)
  rows = (*names.ROWS, *_LEFT_OUT)
  backbone, source_note = _filled(weights, rows, shapes[BACKBONE], names.EXPECTED, keep_type)
  rest = {name: subtree for name, subtree in shapes.items() if name != BACKBONE}
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), rest)
  return ImportedWeights({**fields}, {BACKBONE: backbone, **zeros}, notes | source_note)


def _read_autoencoder(
  fields: Fields, source: str | os.PathLike[str], *, seed: int, keep_type: bool
) -> ImportedWeights:
  del seed
  weights = open_wan(source, keep_type=keep_type)
  rows = _autoencoder_rows(fields)
  _check_sizes(source, fields, autoencoder_fields(weights.tensors, rows))
  shapes = parameter_shapes(AUTOENCODER_FORMAT, fields, {})
  expected = autoencoder_names.EXPECTED
  params, source_note = _filled(weights, rows, shapes, expected, keep_type)
  channels = fields['latent_channels']
  config = weights.config or {}
  moments = {'mean': config.get('latents_mean'), 'std': config.get('latents_std')}
  statistics = (
    _published_statistics(channels)
    if moments['mean'] is None
    else Statistics.from_dict(moments, channels)
  )
  return ImportedWeights({**fields}, params, {'latents': statistics.as_dict()} | source_note)


def _autoencoder_rows(fields: Fields) -> tuple[TensorName, ...]:
  model = make_autoencoder(fields)
  assert isinstance(model, WanAutoencoder)
  return autoencoder_names.autoencoder_rows(model)


def _published_statistics(channels: int) -> Statistics:
  if channels not in LATENTS:
    _log.warning('no statistics of %d latent channels are published: mean 0, deviation 1', channels)
  return LATENTS.get(channels, Statistics.neutral(channels))


def _filled(
  weights: WeightFile, rows: Sequence[TensorName], shapes: Tree, expected: str, keep_type: bool
) -> tuple[Tree, JSON]:
  """Returns parameters, and the note of where they are from."""
  params, left_out = import_tensors(
    rows, weights.tensors, shapes, expected=expected, keep_type=keep_type
  )
  digests = weights.digests()
  for name, digest in digests.items():
    _log.info('%s  %s', digest, name)
  types = {name: dtype for name, dtype in weights.types().items() if name not in left_out}
  return params, {'source': {'sha256': digests, 'types': types}}


def _write_transformer(
  layout: str, params: Tree, fields: Fields, notes: Fields, out: pathlib.Path
) -> str:
  is_original = layout == 'original'
  sizes = {theirs[is_original]: fields[ours] for ours, theirs in _CONFIG_NAMES.items()}
  if is_original:
    config = _ORIGINAL | {'dim': fields['dim'], 'in_dim': fields['channels_out']}
  else:
    config = _DIFFUSERS | {
      'attention_head_dim': fields['dim'] // fields['heads'],
      'in_channels': fields['channels_out'],
      'patch_size': list(fields['patch']),
      'text_dim': fields['text_dim'],
    }
  tensors = _tensors(layout, names.ROWS, params[BACKBONE], notes)
  write_json(out / 'config.json', config | sizes)
  write_bytes(out / 'diffusion_pytorch_model.safetensors', in_file(tensors, {'format': 'pt'}))
  return f"Wan's transformer by the names of {layout}"


def _write_autoencoder(
  layout: str, params: Tree, fields: Fields, notes: Fields, out: pathlib.Path
) -> str:
  file = 'diffusion_pytorch_model.safetensors'
  if layout == 'diffusers':
    write_json(out / 'config.json', autoencoder_config(fields, notes['latents']))
  else:
    file = f'Wan2.{2 if fields["shortcuts"] else 1}_VAE.safetensors'
  tensors = _tensors(layout, _autoencoder_rows(fields), params, notes)
  write_bytes(out / file, in_file(tensors, {'format': 'pt'}))
  return f"Wan's autoencoder by the names of {layout}"


def _tensors(layout: str, rows: Sequence[TensorName], params: Tree, notes: Fields):
  types = notes.get('source', {}).get('types')
  return export_tensors(rows, params, types, LAYOUTS[layout])


def autoencoder_config(fields: Fields, latents: Fields) -> JSON:
  """Returns the config.json of an autoencoder for diffusers; `latents` are the statistics."""
  patch = fields['patch']
  time, space = (2 ** sum(fields['halves_time']), patch * 2 ** (len(fields['widths']) - 1))
  return {
    '_class_name': 'AutoencoderKLWan',
    'attn_scales': [],
    'base_dim': fields['encoder_width'],
    'decoder_base_dim': fields['decoder_width'],
    'dim_mult': list(fields['widths']),
    'dropout': 0.0,
    'in_channels': 3 * patch**2,
    'is_residual': fields['shortcuts'],
    'latents_mean': latents['mean'],
    'latents_std': latents['std'],
    'num_res_blocks': fields['depth'],
    'out_channels': 3 * patch**2,
    'patch_size': patch if patch > 1 else None,
    'scale_factor_spatial': space,
    'scale_factor_temporal': time,
    'temperal_downsample': list(fields['halves_time']),
    'z_dim': fields['latent_channels'],
  }


def _init_autoencoder(model: WanAutoencoder, _: Fields, key: jax.Array) -> Tree:
  time, height, width = model.compression
  return nn.unbox(model.init(key, jnp.zeros((1, 1 + time, height, width, 3)))['params'])


TRANSFORMER_FORMAT = FLOW_MODEL_FORMAT._replace(
  read=_read_transformer,
  writers={layout: functools.partial(_write_transformer, layout) for layout in LAYOUTS},
  folder=True,
  frozen=True,
)
AUTOENCODER_FORMAT = WeightFormat(
  make_autoencoder,
  _init_autoencoder,
  _read_autoencoder,
  {layout: functools.partial(_write_autoencoder, layout) for layout in LAYOUTS},
  folder=True,
  frozen=True,
)
