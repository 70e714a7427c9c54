"""Renamed configuration keys, and the migration of configurations saved by older versions.

Every saved configuration passes through `migrate`, so that a run outlives a rename: its work
directory is read as it is and nothing in it is rewritten.
"""

from collections.abc import Mapping
from typing import Any

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
# Conditionings were named by their place in the tree.
KINDS = {
  'mgjax.text.conditioning.ByteText': 'byte_text',
  'mgjax.text.conditioning.WordText': 'word_text',
  'mgjax.text.encoded.EncodedText': 'encoded_text',
  'mgjax.audio.conditioning.FrameFeatures': 'frame_features',
  'mgjax.audio.conditioning.AudioContext': 'known_latents',
}


def migrate(config: Mapping[str, Any], section: str = '') -> Any:
  """Returns a saved configuration, or what stood under its key `section`, with the names of today.

  Raises ConfigError if it names a conditioning that no version had.
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


def _conditioning(fields: Mapping[str, Any]) -> dict[str, Any]:
  if 'class' not in fields:
    return dict(fields)
  others = {key: value for key, value in fields.items() if key != 'class'}
  if fields['class'] not in KINDS:
    raise ConfigError(
      f'the run was made by mgjax 0.1 with the conditioning {fields["class"]!r}, which mgjax never '
      'had; register it (mgjax.models.conditioning.kinds) and name its kind in config.json'
    )
  return {'kind': KINDS[fields['class']], **others}
