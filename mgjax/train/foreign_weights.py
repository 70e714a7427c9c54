"""Weights that go in and out, by part: what describes ours, what reads and writes others'."""

import contextlib
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import save

from mgjax.audio.codec.model import Codec, make_codec
from mgjax.audio.codec.weights import (
  export_published,
  import_published,
  import_transformers,
  published_fields,
  transformers_fields,
  transformers_side,
)
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes, write_json
from mgjax.core.tensors import listed, read_tensors
from mgjax.core.torch_pickle import SUFFIXES, read_pickle
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Tree
from mgjax.core.weight_files import read_weights
from mgjax.core.weight_names import Row, export_tensors, import_tensors
from mgjax.flow_models.build import make_flow_model, small_inputs
from mgjax.flow_models.model import FlowModel
from mgjax.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.tae.inflate import deflate, inflate, read_image_autoencoder
from mgjax.tae.latents import Statistics
from mgjax.text.clip import clip_inputs, make_clip_text, make_clip_vision
from mgjax.text.clip_weights import clip_config, clip_fields, clip_rows
from mgjax.text.clip_weights import expected as clip_expected
from mgjax.text.t5 import make_t5, t5_inputs
from mgjax.text.t5_weights import EXPECTED as T5_EXPECTED
from mgjax.text.t5_weights import t5_config, t5_fields, t5_rows

_log = logging.getLogger(__name__)


class Foreign(NamedTuple):
  """What a file of another project makes of a part.

  Attributes:
    model: all fields of `config.model`.
    params: of the model.
    notes: what goes along in every checkpoint and file: statistics of latents, or a source.
  """

  model: dict[str, Any]
  params: Tree
  notes: dict[str, Any]


class Kind(NamedTuple):
  """A part whose weights go in and out.

  Attributes:
    make: the module that `config.model` describes.
    init: model, notes, key -> its parameters.
    read: configuration and path -> what is there; None where no other project has such a part.
    form: the word for what `write` makes.
    folder: whether that is a folder, not a file.
    write: parameters, `config.model`, notes and path -> what was written, for the log.
    noted: the names of notes that there must be.
    frozen: whether nothing trains it, and one copy of its parameters is enough.
    how: fields of `config.model` that say how it is computed, and stay as they are configured.
  """

  make: Callable[[Mapping[str, Any]], nn.Module]
  init: Callable[[Any, Mapping[str, Any], jax.Array], Tree]
  read: Callable[[ConfigDict, str | os.PathLike[str]], Foreign] | None = None
  form: str = ''
  folder: bool = False
  write: Callable[[Tree, ConfigDict, Mapping[str, Any], pathlib.Path], str] | None = None
  noted: tuple[str, ...] = ('latents',)
  frozen: bool = False
  how: tuple[str, ...] = ('compute',)


def shapes_of(kind: Kind, fields: Mapping[str, Any], notes: Mapping[str, Any]) -> Tree:
  """Returns the shapes of the parameters of the model that fields of `config.model` describe."""
  init = functools.partial(kind.init, kind.make(fields), notes)
  return jax.eval_shape(init, jax.random.key(0))


@contextlib.contextmanager
def understanding(what: str) -> Iterator[None]:
  """Makes a ConfigError of whatever a description from outside raises where it describes nothing.

  Args:
    what: that holds the description, for the message.
  """
  try:
    yield
  except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
    raise ConfigError(
      f'this version does not know the model that {what} describes: {error!r}'
    ) from error


def _init_autoencoder(model: Autoencoder, _: Mapping[str, Any], key: jax.Array) -> Tree:
  video = jnp.zeros((1, *model.compression, 3))
  return nn.unbox(model.init(key, video, jax.random.key(0))['params'])


def _read_image(config: ConfigDict, source: str | os.PathLike[str]) -> Foreign:
  fields, tensors, statistics = read_image_autoencoder(source)
  strides = [tuple(stride) for stride in config.model.strides]
  if [stride[1:] for stride in strides] == [stride[1:] for stride in fields['strides']]:
    fields['strides'] = tuple(strides)
  fields = config.model.to_dict() | fields
  params = inflate(tensors, _with_temporal(make_autoencoder(fields), config.seed))
  if statistics is None:
    statistics = _neutral(fields)
    _log.warning('no config.json tells the scale of the latents: taken as mean 0, deviation 1')
  else:
    _log.info('latents, from config.json: %s', statistics.as_dict())
  return Foreign(fields, params, {'latents': statistics.as_dict()})


def _with_temporal(model: Autoencoder, seed: int) -> Tree:
  """Initialises temporal parameters; spatial ones, which the file brings, are left as shapes."""

  @jax.jit
  def temporal(key: jax.Array) -> dict[str, jax.Array]:
    leaves = named_leaves(_init_autoencoder(model, {}, key))
    return {name: leaf for name, leaf in leaves.items() if '/temporal' in name}

  key = jax.random.key(seed)
  shapes = jax.eval_shape(functools.partial(_init_autoencoder, model, {}), key)
  values = named_leaves(shapes) | temporal(key)
  return jax.tree.unflatten(jax.tree.structure(shapes), values.values())


def _write_image(
  params: Tree, model: ConfigDict, notes: Mapping[str, Any], out: pathlib.Path
) -> str:
  tensors, left_out = deflate(params)
  statistics = Statistics.from_dict(notes['latents'])
  write_json(out / 'config.json', _image_config(model, statistics))
  write_bytes(out / 'diffusion_pytorch_model.safetensors', save(tensors, {'format': 'pt'}))
  learnt = [name for name, neutral in left_out.items() if not neutral]
  _log.log(
    logging.WARNING if learnt else logging.INFO,
    '%d temporal parameters are left out, %d of them no longer neutral%s', len(left_out),
    len(learnt),
    f' ({learnt[0]}, ...): images come out otherwise than from the video model' if learnt else '',
  )  # fmt: skip
  return 'the image model'


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


def _init_codec(codec: Codec, _: Mapping[str, Any], key: jax.Array) -> Tree:
  sound = jnp.zeros((1, codec.compression, codec.channels))
  return nn.unbox(codec.init(key, sound, jax.random.key(0))['params'])


def _read_dac(config: ConfigDict, source: str | os.PathLike[str]) -> Foreign:
  """Reads a published DAC-VAE, or one side of transformers' DAC beside a new other one."""
  tensors = read_pickle(source) if os.fspath(source).endswith(SUFFIXES) else read_tensors(source)[0]
  side = transformers_side(tensors)
  fields = config.model.to_dict() | (
    transformers_fields(tensors, side) if side else published_fields(tensors)
  )
  init = functools.partial(_init_codec, make_codec(fields), {})
  key = jax.random.key(config.seed)
  if side:
    params = import_transformers(tensors, jax.jit(init)(key), side)
    _log.warning("the file holds DAC's %s alone; the rest of the codec starts anew", side)
  else:
    params, skipped = import_published(tensors, jax.eval_shape(init, key))
    if skipped:
      _log.warning('%d tensors of a watermark are left out: sound will bear none', skipped)
  _log.info('latents are taken as mean 0, deviation 1, as DAC-VAE publishes them')
  return Foreign(fields, params, {'latents': _neutral(fields).as_dict()})


def _write_dac(params: Tree, model: ConfigDict, notes: Mapping[str, Any], out: pathlib.Path) -> str:
  if (patch := model.get('patch', 1)) != 1:
    raise ConfigError(
      f'the published codec folds no samples, this one has model.patch = {patch}; export it '
      'with --format=mgjax'
    )
  write_bytes(out, save(export_published(params), {'format': 'pt'}))
  if Statistics.from_dict(notes['latents']) != _neutral(model):
    _log.warning('the statistics of the latents are left out: the published codec has none')
  return "the codec by DAC-VAE's names"


def _neutral(model: Mapping[str, Any] | ConfigDict) -> Statistics:
  channels = model['latent_channels']
  return Statistics((0.0,) * channels, (1.0,) * channels)


class Family(NamedTuple):
  """Encoders of one kind, as transformers has them.

  Attributes:
    make: the module that `config.model` describes.
    inputs: model -> what its `init` wants beside a key.
    fields: tensors and config.json, or None -> the fields of `config.model` that they tell.
    rows: fields of `config.model`, and names that tensors have -> the table of names.
    config: fields of `config.model` -> config.json.
    expected: whose tensors these should be.
  """

  make: Callable[[Mapping[str, Any]], nn.Module]
  inputs: Callable[[Any], tuple[Any, ...]]
  fields: Callable[[Mapping[str, np.ndarray], Mapping[str, Any] | None], dict[str, Any]]
  rows: Callable[[Mapping[str, Any], Collection[str]], Sequence[Row]]
  config: Callable[[Mapping[str, Any]], dict[str, Any]]
  expected: str


def _encoder(family: Family) -> Kind:
  """Makes the kind of a frozen encoder, which goes back as it came: names, types and bits."""

  def init(model: nn.Module, _: Mapping[str, Any], key: jax.Array) -> Tree:
    return nn.unbox(model.init(key, *family.inputs(model))['params'])

  def read(config: ConfigDict, source: str | os.PathLike[str]) -> Foreign:
    weights = read_weights(source)
    with understanding(repr(os.fspath(source))):
      told = family.fields(weights.tensors, weights.config)
      fields = config.model.to_dict() | told
      shapes = shapes_of(kind, fields, {})
    if weights.config is None:
      unseen = [f'{name} = {fields[name]!r}' for name in sorted(fields.keys() - {*told, *kind.how})]
      _log.warning('no config.json: taken from config.model: %s', ', '.join(unseen))
    params, left_out = import_tensors(
      family.rows(fields, weights.tensors), weights.tensors, shapes, expected=family.expected,
      keep_type=config.keep_type,
    )  # fmt: skip
    if left_out:
      _log.info('%s are left out: no part of the encoder', listed({'tensors': left_out}))
    for name, digest in weights.digests.items():
      _log.info('%s  %s', digest, name)
    types = {name: kind for name, kind in weights.types().items() if name not in left_out}
    return Foreign(fields, params, {'source': {'sha256': weights.digests, 'types': types}})

  def write(params: Tree, model: ConfigDict, notes: Mapping[str, Any], out: pathlib.Path) -> str:
    fields = model.to_dict()
    types = notes['source']['types']
    tensors = export_tensors(family.rows(fields, types), params, types)
    write_json(out / 'config.json', family.config(fields))
    write_bytes(out / 'model.safetensors', save(tensors, {'format': 'pt'}))
    return 'the encoder by the names of its source'

  kind = Kind(family.make, init, read, 'transformers', True, write, ('source',), frozen=True)
  return kind


def _clip(tower: str, make: Callable[[Mapping[str, Any]], nn.Module]) -> Kind:
  return _encoder(
    Family(
      make,
      clip_inputs,
      functools.partial(clip_fields, tower),
      lambda _, names: clip_rows(tower, names),
      functools.partial(clip_config, tower),
      clip_expected(tower),
    )
  )


def _init_flow(model: FlowModel, notes: Mapping[str, Any], key: jax.Array) -> Tree:
  inputs = small_inputs(model, len(notes['latents']['mean']))
  return nn.unbox(model.init(key, *inputs)['params'])


# Of videos and of sound. No other project has such a model, and the autoencoder goes by itself.
_FLOW = Kind(
  lambda fields: make_flow_model(ConfigDict({'model': dict(fields)})),
  _init_flow,
  how=('compute', 'remat', 'attention', 'exchange', 'unroll'),
)

KINDS = {
  'video': _FLOW,
  'audio': _FLOW,
  'autoencoder': Kind(
    make_autoencoder, _init_autoencoder, _read_image, 'diffusers', True, _write_image
  ),
  'codec': Kind(make_codec, _init_codec, _read_dac, 'dacvae', False, _write_dac),
  't5': _encoder(
    Family(
      make_t5,
      lambda _: t5_inputs(),
      t5_fields,
      lambda fields, _: t5_rows(fields),
      t5_config,
      T5_EXPECTED,
    )
  ),
  'clip_text': _clip('text', make_clip_text),
  'clip_vision': _clip('vision', make_clip_vision),
}
