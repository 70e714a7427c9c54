"""Imports folders of Wan with all their parts: transformer, autoencoder, encoders."""

import logging
import os
import pathlib
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mgjax.apps.weights.import_export import import_weights
from mgjax.core.configuration.config_files import load_config
from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.models.clip.weights import vision_params
from mgjax.models.flow_model.wan_weights import open_transformer
from mgjax.models.foreign_weights.files import INDEX
from mgjax.models.foreign_weights.format import ImportedWeights
from mgjax.models.foreign_weights.single_files import open_weights
from mgjax.sections.text.encoder import STATES, TextEncoder, encoder_identity
from mgjax.training.checkpoints.workdir import open_checkpoints, read_notes

_AUTOENCODERS = {16: 'configs/wan/autoencoder.py', 48: 'configs/wan/autoencoder.py:2.2'}
_TEXT = 'configs/text/umt5_xxl.py'
# What a folder may have: in diffusers' layout, then in that of the original. An A14B has two
# transformers, of which these are the one for much noise.
_TRANSFORMERS = (
  'transformer',
  'diffusion_pytorch_model.safetensors' + INDEX.removeprefix('.safetensors'),
  'diffusion_pytorch_model.safetensors',
  'high_noise_model',
)
_PARTS = {
  'autoencoder': ('vae', 'Wan2.?_VAE.*'),
  'text encoder': ('text_encoder', 'models_t5_umt5-xxl-enc-*'),
  'tokenizer': ('tokenizer', 'google/umt5-xxl'),
  'image encoder': ('image_encoder', 'models_clip_*'),
}

_log = logging.getLogger(__name__)


class WanParts(NamedTuple):
  """Where the parts of a Wan lie; None for those that are not there."""

  transformer: pathlib.Path
  autoencoder: pathlib.Path | None = None
  text_encoder: pathlib.Path | None = None
  tokenizer: pathlib.Path | None = None
  image_encoder: pathlib.Path | None = None


def find_parts(source: str | os.PathLike[str]) -> WanParts:
  """Finds the parts in a folder of diffusers or of the original code.

  A file, or a folder without any of `_TRANSFORMERS`, is taken for a transformer by itself.
  """
  source = pathlib.Path(source)
  there = [source / name for name in _TRANSFORMERS if (source / name).exists()]
  if not there:
    return WanParts(source)
  found = {}
  for part, patterns in _PARTS.items():
    paths = [path for pattern in patterns for path in sorted(source.glob(pattern))]
    found[part.replace(' ', '_')] = next(iter(paths), None)
  return WanParts(there[0], **found)


def import_wan(
  config: ConfigDict,
  source: str | os.PathLike[str],
  workdir: str | os.PathLike[str],
  tokenizer: str | os.PathLike[str] | None = None,
  *,
  autoencoder: ConfigDict | None = None,
  text: ConfigDict | None = None,
) -> None:
  """Makes a work directory of a video model of Wan, with its other parts in folders inside.

  These have the last parts of the paths `config.autoencoder` and `config.text.*.workdir`. A part
  that an earlier import left there stays. The states of the empty prompt, which Wan reads where
  text is dropped, are computed with the text encoder. Without it they are zeros, and a warning
  says so.

  Args:
    config: of the video model.
    source: a folder with all parts or some, in either layout, or the transformer alone.
    workdir: new, or what a killed import of the same left.
    tokenizer: file or folder of the text encoder's; by default the one in `source`.
    autoencoder: its configuration, by default that of its number of channels.
    text: that of the encoder, by default UMT5-xxl's.

  Raises:
    ConfigError: as `import_weights`.
  """
  workdir = pathlib.Path(workdir)
  parts = find_parts(source)
  model = fields_of(config, 'model')
  tower = _tower_of(model)
  if tower or parts.transformer != pathlib.Path(source):
    open_transformer(parts.transformer, model)  # fails before the other parts take their time
  if tower and parts.image_encoder is None:
    raise ConfigError(
      f'there is no image encoder in {os.fspath(source)!r}, and the model reads its states; give a '
      'folder with the transformer and image_encoder/ or models_clip_*.pth'
    )
  channels = config.model.channels_out
  ((name, encoder),) = config.text.items()
  places = {
    'autoencoder': workdir / pathlib.Path(config.autoencoder).name,
    'text encoder': workdir / pathlib.Path(encoder.workdir).name,
  }
  if parts.text_encoder is not None:
    tokenizer = tokenizer or parts.tokenizer
    _import_part(text or load_config(_TEXT), parts.text_encoder, places['text encoder'], tokenizer)
  if parts.autoencoder is not None:
    if autoencoder is None and channels not in _AUTOENCODERS:
      raise ConfigError(
        f'config.model.channels_out = {channels}; the autoencoders of Wan have '
        f'{" or ".join(map(str, _AUTOENCODERS))} channels'
      )
    config_of_it = autoencoder or load_config(_AUTOENCODERS[channels])
    _import_part(config_of_it, parts.autoencoder, places['autoencoder'])

  def complete(imported: ImportedWeights) -> ImportedWeights:
    completed = _completed(imported, name, places)
    if not tower or parts.image_encoder is None:
      return completed
    weights = open_weights(parts.image_encoder)
    vision = imported.model['conditionings'][tower]['vision']
    params = {**completed.params, tower: {'vision': vision_params(weights.tensors, vision)}}
    notes = {**completed.notes, 'image_encoder': weights.digests()}
    return completed._replace(params=params, notes=notes)

  import_weights(config, parts.transformer, workdir, complete=complete)
  _log.info('train it with --config.start_from=%s and another --workdir', workdir)


def _tower_of(model: Fields) -> str:
  """Returns the name of the conditioning that has a vision tower, '' if none has."""
  described = model['conditionings']
  return next((name for name in described if described[name]['kind'] == 'picture_tokens'), '')


def _import_part(
  config: ConfigDict,
  source: pathlib.Path,
  workdir: pathlib.Path,
  tokenizer: str | os.PathLike[str] | None = None,
) -> None:
  if _is_run(workdir):
    _log.info('%s is already there', workdir)
  else:
    import_weights(config, source, workdir, tokenizer)


def _is_run(workdir: pathlib.Path) -> bool:
  return (workdir / 'config.json').exists() and bool(open_checkpoints(workdir).steps())


def _completed(
  imported: ImportedWeights, encoder: str, places: dict[str, pathlib.Path]
) -> ImportedWeights:
  """Adds what the transformer's files do not hold."""
  model, params, notes = imported
  there = [part for part, place in places.items() if _is_run(place)]
  if missing := [part for part in places if part not in there]:
    _log.warning(
      'there is no %s: import it into %s before you sample',
      ' and no '.join(missing),
      ' and '.join(os.fspath(places[part]) for part in missing),
    )
  if 'autoencoder' in there:
    notes = {**notes, 'latents': read_notes(places['autoencoder'])['latents']}
    if (channels := len(notes['latents']['mean'])) != model['channels_out']:
      raise ConfigError(
        f'the autoencoder in {os.fspath(places["autoencoder"])!r} has {channels} channels and the '
        f'transformer {model["channels_out"]}; take both from one model'
      )
  if 'text encoder' in there:
    (states,) = TextEncoder(places['text encoder'])([''])
    params = {**params, 'text': {'null': np.asarray(states[STATES][0], np.float32)}}
    notes = {**notes, 'encoders': {encoder: encoder_identity(places['text encoder'])}}
  else:
    _log.warning(
      'without a text encoder the states of the empty prompt are zeros, and no prompt can be read: '
      'import it first, then the transformer'
    )
  return ImportedWeights(model, params, notes)
