"""Imports and exports image autoencoders by the names of diffusers (§3.1.1).

A model with `temporal: false` is one, and has every bit of the file; any other is inflated.
"""

import functools
import logging
import os
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.core.safetensors_files import write_tensors
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.format import ImportedWeights, WeightFormat, understanding
from mgjax.models.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.models.tae.blocks import FULL
from mgjax.models.tae.inflate import deflate, inflate, read_image_autoencoder
from mgjax.models.tae.latents import Statistics

_log = logging.getLogger(__name__)


def _init(model: Autoencoder, _: Fields, key: jax.Array) -> Tree:
  video = jnp.zeros((1, *model.compression, 3))
  return nn.unbox(model.init(key, video, jax.random.key(0))['params'])


def _read_image(
  fields: Fields, source: str | os.PathLike[str], *, seed: int, keep_type: bool
) -> ImportedWeights:
  del keep_type  # trained, so float32
  if fields.get('temporal') == FULL:
    raise ConfigError(f'temporal = {FULL!r}: image weights are of 2.5D models; give true or false')
  file_fields, tensors, statistics = read_image_autoencoder(source)
  strides = [tuple(stride) for stride in fields['strides']]
  if [stride[1:] for stride in strides] == [stride[1:] for stride in file_fields['strides']]:
    file_fields['strides'] = tuple(strides)
  elif not fields.get('temporal', True):
    file_fields['strides'] = tuple((1, *stride[1:]) for stride in file_fields['strides'])
  fields = {**fields, **file_fields}
  with understanding(repr(os.fspath(source))):
    model = make_autoencoder(fields)
    key = jax.random.key(seed)
    shapes = jax.eval_shape(functools.partial(_init, model, {}), key)
  params = inflate(tensors, shapes)  # all sizes are those of the file before anything is made
  params = _with_temporal(model, params, key)
  if statistics is None:
    statistics = Statistics.neutral(fields['latent_channels'])
    _log.warning('no config.json tells the scale of the latents: taken as mean 0, deviation 1')
  else:
    _log.info('latents, from config.json: %s', statistics.as_dict())
  return ImportedWeights(fields, params, {'latents': statistics.as_dict()})


def _with_temporal(model: Autoencoder, params: Tree, key: jax.Array) -> Tree:
  """Initialises temporal parameters; spatial ones, which the file brings, stay."""

  @jax.jit
  def temporal(key: jax.Array) -> dict[str, jax.Array]:
    leaves = named_leaves(_init(model, {}, key))
    return {name: leaf for name, leaf in leaves.items() if '/temporal' in name}

  values = named_leaves(params) | temporal(key)
  return jax.tree.unflatten(jax.tree.structure(params), values.values())


def _write_image(params: Tree, fields: Fields, notes: Fields, out: pathlib.Path) -> str:
  if fields.get('temporal') == FULL:
    raise ConfigError(f'temporal = {FULL!r}: a 3D autoencoder holds no image model to export')
  tensors, left_out = deflate(params)
  statistics = Statistics.from_dict(notes['latents'])
  write_json(out / 'config.json', _image_config(fields, statistics))
  write_tensors(out / 'diffusion_pytorch_model.safetensors', tensors, {'format': 'pt'})
  if not left_out:
    return 'the image model'
  learnt = [name for name, neutral in left_out.items() if not neutral]
  _log.log(
    logging.WARNING if learnt else logging.INFO,
    '%d temporal parameters are left out, %d of them no longer neutral%s',
    len(left_out),
    len(learnt),
    f' ({learnt[0]}, ...): images come out otherwise than from the video model' if learnt else '',
  )
  return 'the image model'


def _image_config(fields: Fields, statistics: Statistics) -> JSON:
  """Returns the config.json of the image model; one scale for all channels is written as that."""
  levels = len(fields['widths'])
  mean, std = list(statistics.mean), list(statistics.std)
  one = len(set(mean)) == len(set(std)) == 1
  return {
    '_class_name': 'AutoencoderKL',
    'act_fn': 'silu',
    'block_out_channels': list(fields['widths']),
    'down_block_types': ['DownEncoderBlock2D'] * levels,
    'in_channels': 3,
    'latent_channels': fields['latent_channels'],
    'latents_mean': None if one else mean,
    'latents_std': None if one else std,
    'layers_per_block': fields['blocks'],
    'norm_num_groups': fields['groups'],
    'out_channels': 3,
    'scaling_factor': 1 / std[0] if one else 1.0,
    'shift_factor': (mean[0] or None) if one else None,
    'up_block_types': ['UpDecoderBlock2D'] * levels,
    'use_post_quant_conv': fields.get('quant_convolutions', False),
    'use_quant_conv': fields.get('quant_convolutions', False),
  }


AUTOENCODER_FORMAT = WeightFormat(
  make_autoencoder, _init, _read_image, {'diffusers': _write_image}, folder=True
)
