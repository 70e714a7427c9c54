"""Weights in and out: image autoencoders into work directories, work directories into files.

A file of the format 'mgjax' is one .safetensors: every averaged parameter by its name, and in the
metadata of its header the entry 'mgjax', a JSON object: `part`, `model` (as in the configuration),
`latents` (their statistics), `step` and `version`. Equal weights make equal files.
"""

import functools
import importlib.metadata
import json
import logging
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import save

import mgjax
from mgjax.core.config import differences
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes, write_json
from mgjax.core.tensors import Tensors, check_complete, read_tensors
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.core.typing import Tree
from mgjax.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.tae.inflate import deflate, inflate, read_image_autoencoder
from mgjax.tae.latents import Statistics
from mgjax.train.checkpoint import Checkpoints
from mgjax.train.restore import load_params, read_config
from mgjax.train.state import State

FORMATS = ('mgjax', 'diffusers')
RECORDED = ('jax', 'flax', 'orbax-checkpoint', 'safetensors', 'numpy')

_log = logging.getLogger(__name__)


def import_weights(
  config: ConfigDict, source: str | os.PathLike[str], workdir: str | os.PathLike[str]
) -> None:
  """Makes a work directory of an autoencoder from a file, as if a run had stopped at step 0.

  An image autoencoder is inflated; a file of the format 'mgjax' comes back as it was exported.
  What the file fixes of `config.model` replaces what stands there; the compute type stays, and so
  do strides that halve the frames as often as the image model does, however they treat time.

  Args:
    config: of the part 'autoencoder'.
    source: a folder that diffusers wrote, or a .safetensors file of its or of `export_weights`.
    workdir: new, or without checkpoints.

  Raises:
    ConfigError: the files cannot be used, or the work directory has checkpoints.
  """
  workdir = pathlib.Path(workdir)
  if config.part != 'autoencoder':
    raise ConfigError(
      f'the configuration is of the part {config.part!r}; weights are imported for autoencoders'
    )
  if any((workdir / 'checkpoints').glob('*')):
    raise ConfigError(f'{os.fspath(workdir)!r} already has checkpoints; take another --workdir')
  ours = None if os.path.isdir(source) else _read_ours(source)
  if ours is None:
    config, params, statistics = _from_image(config, source)
  else:
    config, params, statistics = _from_ours(config, *ours)
  _write_workdir(config, params, statistics, workdir)
  _log.info(
    '%d parameters in %s; train them with --config.start_from=%s and another --workdir',
    count_parameters(params), workdir, workdir,
  )  # fmt: skip


def _from_image(
  config: ConfigDict, source: str | os.PathLike[str]
) -> tuple[ConfigDict, Tree, Statistics]:
  fields, tensors, statistics = read_image_autoencoder(source)
  strides = [tuple(stride) for stride in config.model.strides]
  if [stride[1:] for stride in strides] == [stride[1:] for stride in fields['strides']]:
    fields['strides'] = tuple(strides)
  config = _with_model(config, config.model.to_dict() | fields)
  params = inflate(tensors, _initial(make_autoencoder(config.model.to_dict()), config.seed))
  if statistics is None:
    channels = fields['latent_channels']
    statistics = Statistics((0.0,) * channels, (1.0,) * channels)
    _log.warning('no config.json tells the scale of the latents: taken as mean 0, deviation 1')
  else:
    _log.info('latents, from config.json: %s', statistics.as_dict())
  return config, params, statistics


def _initial(model: Autoencoder, seed: int) -> Tree:
  """Initialises temporal parameters; spatial ones, which the file brings, are left as shapes."""

  @jax.jit
  def temporal(key: jax.Array) -> dict[str, jax.Array]:
    leaves = named_leaves(_init(model, key))
    return {name: leaf for name, leaf in leaves.items() if '/temporal' in name}

  key = jax.random.key(seed)
  shapes = jax.eval_shape(functools.partial(_init, model), key)
  values = named_leaves(shapes) | temporal(key)
  return jax.tree.unflatten(jax.tree.structure(shapes), values.values())


def _init(model: Autoencoder, key: jax.Array) -> Tree:
  video = jnp.zeros((1, *model.compression, 3))
  return nn.unbox(model.init(key, video, jax.random.key(0))['params'])


def _read_ours(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, Any]] | None:
  tensors, metadata = read_tensors(path)
  if 'mgjax' not in metadata:
    return None
  try:
    header = json.loads(metadata['mgjax'])
    part, _, _ = (header[name] for name in ('part', 'model', 'latents'))
  except (KeyError, ValueError, TypeError) as error:
    raise ConfigError(
      f'the header of {os.fspath(path)!r} is damaged ({error!r}); export the weights again'
    ) from error
  if part != 'autoencoder':
    raise ConfigError(f'{os.fspath(path)!r} holds the part {part!r}; expected an autoencoder')
  return tensors, header


def _from_ours(
  config: ConfigDict, tensors: Tensors, header: Mapping[str, Any]
) -> tuple[ConfigDict, Tree, Statistics]:
  config = _with_model(config, header['model'] | {'compute': config.model.compute})
  try:
    model = make_autoencoder(config.model.to_dict())
  except (TypeError, KeyError) as error:
    raise ConfigError(
      f'this version does not know the model that the header of the file describes: {error}'
    ) from error
  shapes = jax.eval_shape(functools.partial(_init, model), jax.random.key(0))
  wanted = named_leaves(shapes)
  check_complete(
    missing=[name for name in wanted if name not in tensors],
    unknown=[name for name in tensors if name not in wanted],
    misshapen=[
      f'{name} {tensors[name].shape}'
      for name, leaf in wanted.items()
      if name in tensors and tensors[name].shape != leaf.shape
    ],
    expected='those that the header of the file describes; export them again',
  )
  params = jax.tree.unflatten(jax.tree.structure(shapes), [tensors[name] for name in wanted])
  return config, params, Statistics.from_dict(header['latents'])


def _with_model(config: ConfigDict, model: Mapping[str, Any]) -> ConfigDict:
  for changed in differences(config.model.to_dict(), model):
    _log.info('model.%s, as the weights need it', changed)
  return ConfigDict(config.to_dict() | {'model': dict(model)})


def _write_workdir(
  config: ConfigDict, params: Tree, statistics: Statistics, workdir: pathlib.Path
) -> None:
  versions = {name: importlib.metadata.version(name) for name in RECORDED}
  about = {'mgjax': mgjax.__version__, 'python': sys.version.split()[0], **versions}
  leaves = named_leaves(params)
  write_json(workdir / 'config.json', config.to_dict())
  write_json(workdir / 'run.json', {'command': sys.argv, 'versions': about})
  write_json(workdir / 'parameters.json', {name: list(leaf.shape) for name, leaf in leaves.items()})
  params = jax.tree.map(jnp.asarray, params)
  meta = {
    'step': 0,
    'config': config.to_dict(),
    'order': 'imported',
    'notes': {'latents': statistics.as_dict()},
    'version': mgjax.__version__,
  }
  state = State(step=jnp.zeros((), jnp.int32), params=params, opt_state={}, average=params)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    checkpoints.save(state, meta)


def export_weights(
  workdir: str | os.PathLike[str], out: str | os.PathLike[str], form: str = 'mgjax'
) -> None:
  """Writes the averaged parameters of an autoencoder's newest checkpoint.

  Args:
    workdir: of `launch.train` or `import_weights`.
    out: a .safetensors file; for 'diffusers' a folder.
    form: 'mgjax' for all of them; 'diffusers' for the image autoencoder among them.

  Raises:
    ConfigError: `workdir` holds no autoencoder, or none that is an image autoencoder.
    CheckpointError: there is no checkpoint that can be trusted.
  """
  config, out = read_config(workdir), pathlib.Path(out)
  if config.part != 'autoencoder':
    raise ConfigError(
      f'{os.fspath(workdir)!r} trained the part {config.part!r}; autoencoders alone are exported'
    )
  if form == 'mgjax' and (out.suffix != '.safetensors' or out.is_dir()):
    raise ConfigError(f'--out={out}: expected a .safetensors file, as in --out=tae.safetensors')
  if form == 'diffusers' and out.exists() and not out.is_dir():
    raise ConfigError(f'--out={out} is a file; expected a folder')
  params, meta = load_params(workdir)
  statistics = Statistics.from_dict(meta['notes']['latents'])
  if form == 'mgjax':
    header = {
      'part': config.part,
      'model': config.model.to_dict(),
      'latents': statistics.as_dict(),
      'step': meta['step'],
      'version': mgjax.__version__,
    }
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
    write_bytes(out, save(leaves, {'mgjax': json.dumps(header, sort_keys=True)}))
    _log.info('%d parameters of step %d in %s', count_parameters(params), meta['step'], out)
  elif form == 'diffusers':
    tensors, left_out = deflate(params)
    write_json(out / 'config.json', _image_config(config.model, statistics))
    write_bytes(out / 'diffusion_pytorch_model.safetensors', save(tensors, {'format': 'pt'}))
    _log.info('the image model of step %d in %s', meta['step'], out)
    learnt = [name for name, neutral in left_out.items() if not neutral]
    _log.log(
      logging.WARNING if learnt else logging.INFO,
      '%d temporal parameters are left out, %d of them no longer neutral%s', len(left_out),
      len(learnt),
      f' ({learnt[0]}, ...): images come out otherwise than from the video model' if learnt else '',
    )  # fmt: skip
  else:
    raise ConfigError(f'there is no format {form!r}; expected one of {FORMATS}')


def _image_config(model: ConfigDict, statistics: Statistics) -> dict[str, Any]:
  """Returns the config.json of the image model; one scale for all channels is written as that."""
  levels = len(model.widths)
  mean, std = list(statistics.mean), list(statistics.std)
  one = len(set(mean)) == len(set(std)) == 1
  return {
    '_class_name': 'AutoencoderKL',
    'act_fn': 'silu',
    'block_out_channels': list(model.widths),
    'down_block_types': ['DownEncoderBlock2D'] * levels,
    'in_channels': 3,
    'latent_channels': model.latent_channels,
    'latents_mean': None if one else mean,
    'latents_std': None if one else std,
    'layers_per_block': model.blocks,
    'norm_num_groups': model.groups,
    'out_channels': 3,
    'scaling_factor': 1 / std[0] if one else 1.0,
    'shift_factor': (mean[0] or None) if one else None,
    'up_block_types': ['UpDecoderBlock2D'] * levels,
    'use_post_quant_conv': model.get('quant_convolutions', False),
    'use_quant_conv': model.get('quant_convolutions', False),
  }
