r"""Personalization of the moving digits in the paper's stages, or all at once (Movie Gen §4).

python -m launch.train --config=configs/digits/personalization_stages.py \
  --workdir=runs/personal_stages
python -m launch.train --config=configs/digits/personalization_stages.py:once \
  --workdir=runs/personal_once

  identity      8 frames   paired          tower frozen
  long         16 frames   paired          tower frozen
  naturalness  16 frames   cross-paired    tower trained

The second command spends as much on all of it together: 16 frames, pairs and cross pairs by turns,
the tower trained from the start. docs/experiments/digits_personalization.md compares.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from . import personalization

STEPS = {'identity': 5200, 'long': 2000, 'naturalness': 8000}
ONCE = 12_480  # as many operations
RATE = 0.1  # of the tower's


def get_config(what: str = 'stages') -> ConfigDict:
  if what == 'once':
    stages = {'once': _once()}
  elif what == 'stages':
    stages = {name: _stage(name, steps) for name, steps in STEPS.items()}
    stages['long'].start_from = 'identity'
    stages['naturalness'].start_from = 'long'
  else:
    raise ConfigError(f'{what!r}: expected personalization_stages.py, with or without :once')
  return ConfigDict({'stages': stages, 'order': tuple(stages)})


def _stage(name: str, steps: int) -> ConfigDict:
  config = _trained(personalization.get_config('cross' if name == 'naturalness' else 'paired'))
  config.data.latents = f'latents_{name}'
  config.buckets.video.frames = 8 if name == 'identity' else 16
  config.optimizer.rates = (('identity/vision/*', RATE if name == 'naturalness' else 0.0),)
  config.train.steps = steps
  return config


def _once() -> ConfigDict:
  config = _trained(personalization.get_config('cross'))
  own = {**config.data.to_dict(), 'digits': {**config.data.digits.to_dict(), 'reference': 'own'}}
  for key in ('fps', 'threads', 'share', 'workers'):
    own.pop(key, None)
  config.data.latents = own['latents'] = 'latents_both'
  config.data.sources = ConfigDict({'paired': own})
  config.buckets.paired = ConfigDict({**config.buckets.video.to_dict(), 'source': 'paired'})
  config.train.steps = ONCE
  return config


def _trained(config: ConfigDict) -> ConfigDict:
  """Trains the tower too, slowly, on videos alone."""
  config.optimizer.rates = (('identity/vision/*', RATE),)
  del config.buckets.image
  return config
