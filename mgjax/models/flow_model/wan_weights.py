"""Imports and exports Wan's transformer by the names of diffusers and of the original code."""

import functools
import math
import os
import pathlib
import re
from collections.abc import Mapping

import jax
import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.files import write_json
from mgjax.core.safetensors_files import AnyTensor, check_agrees, write_tensors
from mgjax.core.typing import Tree
from mgjax.models.conditioning.pictures.frame_channels import FrameChannels
from mgjax.models.flow_model.build import FLOW_MODEL_FORMAT
from mgjax.models.foreign_weights.files import WeightFile
from mgjax.models.foreign_weights.format import ImportedWeights, parameter_shapes
from mgjax.models.foreign_weights.names import export_tensors
from mgjax.models.foreign_weights.single_files import fill_parameters, open_weights, shape_of
from mgjax.models.tae.wan_files.statistics import published_statistics
from mgjax.models.tae.wan_files.weights import LAYOUTS, check_sizes
from mgjax.models.wan import names

HEAD_SIZE = 128  # of every published model
BACKBONE = 'backbone'
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
  'cross_attn_norm': True,
  'freq_dim': 256,
  'qk_norm': 'rms_norm_across_heads',
  'rope_max_seq_len': 1024,
}
_ORIGINAL = {'_class_name': 'WanModel', 'freq_dim': 256, 'text_len': 512}


def transformer_fields(tensors: Mapping[str, AnyTensor], config: Fields | None = None) -> JSON:
  """Reads fields of `WanTransformer` from its tensors, and from config.json if there is one.

  Heads have `HEAD_SIZE` numbers unless config.json says otherwise. `beside` are the channels that
  it reads beside those of X_t, `tower` is the width of the states of pictures, 0 if it reads none;
  conditionings have both. Raises ConfigError if a tensor
  that shows a size is missing, or if config.json is of another model.
  """
  dim, channels_in, *patch = shape_of(tensors, names.ROWS, 'patch_in/kernel', 5)
  mlp_dim, _ = shape_of(tensors, names.ROWS, 'layers/feed_forward/up/kernel', 2)
  _, text_dim = shape_of(tensors, names.ROWS, 'text_in/kernel', 2)
  numbers, _ = shape_of(tensors, names.ROWS, 'patch_out/kernel', 2)
  channels_out = numbers // math.prod(patch)
  fields = {
    'beside': channels_in - channels_out,
    'tower': _first_axis(tensors, 'image_norm_in/scale'),
    'picture_positions': _first_axis(tensors, 'image_positions'),
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


def _first_axis(tensors: Mapping[str, AnyTensor], ours: str) -> int:
  """Returns the length of a parameter of pictures, 0 if there is none."""
  (row,) = (row for row in names.ROWS if row.ours == ours)
  shapes = [tensors[name].shape[len(row.fold) :] for name in row.names if name in tensors]
  return shapes[0][0] if shapes and shapes[0] else 0


def open_transformer(
  source: str | os.PathLike[str], fields: Fields, *, keep_type: bool = False
) -> WeightFile:
  """Opens a transformer as `open_weights`. Raises ConfigError unless `config.model` fits it."""
  weights = open_weights(source, keep_type=keep_type)
  found = transformer_fields(weights.tensors, weights.config)
  check_sizes(source, {**fields, **_read_beside(fields)}, found)
  return weights


def _read_beside(fields: Fields) -> JSON:
  """Returns the fields `beside` and `tower` of `transformer_fields`, of `config.model`."""
  kinds = {described.get('kind'): described for described in fields['conditionings'].values()}
  frames, picture = kinds.get('frame_channels'), kinds.get('picture_tokens')
  stride = FrameChannels.stride if frames is None else frames.get('stride', FrameChannels.stride)
  return {
    'beside': 0 if frames is None else stride + fields['channels_out'],
    'tower': 0 if picture is None else picture['vision']['dim'],
  }


def _read_transformer(
  fields: Fields, source: str | os.PathLike[str], *, seed: int, keep_type: bool
) -> ImportedWeights:
  """Reads a transformer; parameters of conditionings are zeros, which its files do not have."""
  del seed
  weights = open_transformer(source, fields, keep_type=keep_type)
  statistics = published_statistics(fields['channels_out'])
  notes = {'latents': statistics.as_dict()}
  shapes = parameter_shapes(TRANSFORMER_FORMAT, fields, notes)
  backbone, origin = fill_parameters(
    weights, names.ROWS, shapes[BACKBONE], names.EXPECTED, keep_type
  )
  rest = {name: subtree for name, subtree in shapes.items() if name != BACKBONE}
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), rest)
  return ImportedWeights({**fields}, {BACKBONE: backbone, **zeros}, notes | origin)


def _model_type(fields: Fields) -> str:
  """Returns what the original calls a model with these fields."""
  kinds = {described.get('kind') for described in fields['conditionings'].values()}
  if fields['picture_positions']:
    return 'flf2v'
  return 'ti2v' if 'first_latent' in kinds else 'i2v' if 'frame_channels' in kinds else 't2v'


def _write_transformer(
  layout: str, params: Tree, fields: Fields, notes: Fields, out: pathlib.Path
) -> str:
  is_original = layout == 'original'
  sizes = {theirs[is_original]: fields[ours] for ours, theirs in _CONFIG_NAMES.items()}
  beside, tower = _read_beside(fields).values()
  channels_in = fields['channels_out'] + beside
  if is_original:
    config = _ORIGINAL | {'dim': fields['dim'], 'in_dim': channels_in}
    config['model_type'] = _model_type(fields)
  else:
    config = _DIFFUSERS | {
      'added_kv_proj_dim': fields['dim'] if tower else None,
      'attention_head_dim': fields['dim'] // fields['heads'],
      'image_dim': tower or None,
      'in_channels': channels_in,
      'patch_size': list(fields['patch']),
      'pos_embed_seq_len': fields['picture_positions'] or None,
      'text_dim': fields['text_dim'],
    }
  types = notes.get('source', {}).get('types')
  tensors = export_tensors(names.ROWS, params[BACKBONE], types, LAYOUTS[layout])
  write_json(out / 'config.json', config | sizes)
  write_tensors(out / 'diffusion_pytorch_model.safetensors', tensors, {'format': 'pt'})
  return f"Wan's transformer by the names of {layout}"


TRANSFORMER_FORMAT = FLOW_MODEL_FORMAT._replace(
  read=_read_transformer,
  writers={layout: functools.partial(_write_transformer, layout) for layout in LAYOUTS},
  folder=True,
  frozen=True,
)
