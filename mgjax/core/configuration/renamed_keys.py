"""Renamed and added configuration keys, and the migration of configurations of older versions.

Every saved configuration passes through `migrate`, so that a run outlives a rename. Files in its
work directory are not rewritten.
"""

from collections.abc import Mapping
from typing import Any

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError

# Version 0.1 -> 0.2; a key of a section, wherever that section stands.
RENAMED = {
  '': {'part': 'component'},
  'model': {'hidden': 'mlp_dim', 'compute': 'dtype'},
  'optimizer': {'kind': 'schedule', 'peak': 'learning_rate', 'final': 'final_fraction'},
  'train': {'decay': 'ema_decay', 'groups': 'device_groups'},
  'encode': {'at_once': 'pixels_per_device'},
  'masking': {
    'everything': 'full_mask_probability',
    'least': 'min_masked_fraction',
    'extension': 'extension_probability',
  },
  'objective': {
    'together': 'drop_all_probability',
    'squared': 'mse',
    'prior': 'kl',
    'smallest': 'spectral_floor',
    'deviations': 'outlier_sigmas',
  },
}
# Keys that were added, with what runs did before they were there: by component, '' for all.
ADDED = {
  '': {
    'optimizer.name': 'adamw',
    'optimizer.epsilon': 1e-8,
    'discriminator.optimizer.name': 'adamw',
    'discriminator.optimizer.epsilon': 1e-8,
    'discriminator.optimizer.rates': [],
    'discriminator.optimizer.plateau.patience': 0,
    'discriminator.optimizer.plateau.factor': 0.5,
    'discriminator.optimizer.plateau.improvement': 1e-3,
    'discriminator.optimizer.plateau.lowest': 0.1,
    'model.products': 'dtype',
    'model.block': 'sequential',
    'model.feed_forward': 'swiglu',
    'model.norm': 'rms',
    'model.affine': True,
    'model.bias': False,
    'model.time_unit': 1.0,
    'model.quant_convolutions': False,
    'model.shortcut': False,
    'objective.validation_time.name': 'stratified',
    'objective.drop_all_probability': 0.0,
    'objective.prediction.name': 'flow',
    'objective.min_snr': 0.0,
    'objective.time_places': 0,
    'sample.known_steps': 10,
    'sample.reuse': 0.0,
    'sample.shifts': 0,
    'sample.shift_time': 0.4,
    'sample.strength': 1.0,
    'sample.lora': '',
    'sample.expert': '',
    'sample.expert_lora': '',
    'sample.weights': '',
  },
  'audio': {'model.tile': [], 'model.window': [3, 3, 3], 'model.chosen': 0},
  't5': {'model.unroll': 1},
}
# Conditionings were named by their place in the tree.
_KINDS = {
  'mgjax.text.conditioning.ByteText': 'byte_text',
  'mgjax.text.conditioning.WordText': 'word_text',
  'mgjax.text.encoded.EncodedText': 'encoded_text',
  'mgjax.audio.conditioning.FrameFeatures': 'frame_features',
  'mgjax.audio.conditioning.AudioContext': 'known_latents',
}


def added(config: Fields) -> JSON:
  """Returns the rows of `ADDED` for a flat configuration."""
  return ADDED[''] | ADDED.get(config.get('component', ''), {})


def migrate(config: Fields, section: str = '') -> Any:
  """Returns a saved configuration, or its part under the key `section`, with today's key names.

  Raises ConfigError if it names a conditioning that no version of mgjax had.
  """
  renamed = RENAMED.get(section, {})
  if section == 'conditionings':
    return {name: _conditioning(fields) for name, fields in config.items()}
  if section == 'guidance':  # a mapping, which was nested in alphabetical order; a 0 comes last
    return tuple(sorted(config.items(), key=lambda pair: (pair[1] == 0, pair[0])))
  return {
    renamed.get(key, key): migrate(value, key) if isinstance(value, Mapping) else value
    for key, value in config.items()
  }


def _conditioning(fields: Fields) -> JSON:
  if 'class' not in fields:
    return dict(fields)
  others = {key: value for key, value in fields.items() if key != 'class'}
  if fields['class'] not in _KINDS:
    raise ConfigError(
      f'the run was made by mgjax 0.1 with the conditioning {fields["class"]!r}, which mgjax never '
      'had; register it (mgjax.models.conditioning.kinds) and name its kind in config.json'
    )
  return {'kind': _KINDS[fields['class']], **others}
