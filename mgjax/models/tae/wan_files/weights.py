"""Imports and exports Wan's autoencoders by the names of diffusers and of the original code."""

import functools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.configuration.keys import JSON, Fields, differences
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.core.safetensors_files import AnyTensor, write_tensors
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.format import ImportedWeights, WeightFormat, parameter_shapes
from mgjax.models.foreign_weights.names import TensorName, export_tensors
from mgjax.models.foreign_weights.single_files import fill_parameters, open_weights, shape_of
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.tae.latents import Statistics
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.models.tae.wan_files.statistics import published_statistics
from mgjax.models.tae.wan_names import EXPECTED, autoencoder_rows

LAYOUTS = {'diffusers': 0, 'original': -1}  # which name of a row each of them has


def autoencoder_fields(tensors: Mapping[str, AnyTensor], rows: Sequence[TensorName]) -> JSON:
  """Reads fields of `WanAutoencoder` from its tensors; `rows` are those of any such autoencoder.

  Raises ConfigError if a tensor that shows a size is missing.
  """
  encoder_width, numbers, *_ = shape_of(tensors, rows, 'encoder/conv_in/kernel', 5)
  decoder_width, *_ = shape_of(tensors, rows, 'decoder/norm_out/scale', 4)
  latent_channels, *_ = shape_of(tensors, rows, 'post_quant_conv/kernel', 5)
  nested = ('encoder.down_blocks.0.resnets.', 'encoder.downsamples.0.downsamples.')
  return {
    'encoder_width': encoder_width,
    'decoder_width': decoder_width,
    'latent_channels': latent_channels,
    'patch': math.isqrt(numbers // 3),
    'shortcuts': any(name.startswith(nested) for name in tensors),
  }


def check_sizes(source: str | os.PathLike[str], model: Fields, shown: Fields) -> None:
  """Raises ConfigError unless `config.model` has the sizes that the files show."""
  given = {name: model.get(name) for name in shown}
  given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
  if wrong := differences(given, dict(shown)):
    raise ConfigError(
      f'config.model is of another Wan than {os.fspath(source)!r}: {"; ".join(wrong)}; choose the '
      'configuration of that size, as configs/wan/text_to_video.py:14b or, of one that reads '
      'pictures, configs/wan/image_to_video.py:14b'
    )


def _read_autoencoder(
  fields: Fields, source: str | os.PathLike[str], *, seed: int, keep_type: bool
) -> ImportedWeights:
  del seed
  weights = open_weights(source, keep_type=keep_type)
  rows = _autoencoder_rows(fields)
  check_sizes(source, fields, autoencoder_fields(weights.tensors, rows))
  shapes = parameter_shapes(AUTOENCODER_FORMAT, fields, {})
  params, origin = fill_parameters(weights, rows, shapes, EXPECTED, keep_type)
  channels = fields['latent_channels']
  config = weights.config or {}
  moments = {'mean': config.get('latents_mean'), 'std': config.get('latents_std')}
  statistics = (
    published_statistics(channels)
    if moments['mean'] is None
    else Statistics.from_dict(moments, channels)
  )
  return ImportedWeights({**fields}, params, {'latents': statistics.as_dict()} | origin)


def _autoencoder_rows(fields: Fields) -> tuple[TensorName, ...]:
  model = make_autoencoder(fields)
  assert isinstance(model, WanAutoencoder)
  return autoencoder_rows(model)


def _write_autoencoder(
  layout: str, params: Tree, fields: Fields, notes: Fields, out: pathlib.Path
) -> str:
  file = 'diffusion_pytorch_model.safetensors'
  if layout == 'diffusers':
    write_json(out / 'config.json', autoencoder_config(fields, notes['latents']))
  else:
    file = f'Wan2.{2 if fields["shortcuts"] else 1}_VAE.safetensors'
  types = notes.get('source', {}).get('types')
  tensors = export_tensors(_autoencoder_rows(fields), params, types, LAYOUTS[layout])
  write_tensors(out / file, tensors, {'format': 'pt'})
  return f"Wan's autoencoder by the names of {layout}"


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


AUTOENCODER_FORMAT = WeightFormat(
  make_autoencoder,
  _init_autoencoder,
  _read_autoencoder,
  {layout: functools.partial(_write_autoencoder, layout) for layout in LAYOUTS},
  folder=True,
  frozen=True,
)
