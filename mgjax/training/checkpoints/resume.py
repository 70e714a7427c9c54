"""Whether a run may go on in a work directory: the same configuration, and no lost checkpoints."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mgjax.core.configuration.keys import JSON, Fields, differences, flatten
from mgjax.core.configuration.renamed_keys import added, migrate
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.files import write_json
from mgjax.training.checkpoints.workdir import (
  open_checkpoints,
  read_config,
  saved_config,
  write_about,
)

# What may change between a run and its resumption: how it reports, on what it runs and where things
# lie (what lies there is compared with the checkpoint), not what it computes.
FREE = (
  'train.log_every',
  'train.save_every',
  'train.evaluate_every',
  'train.show_every',
  'train.keep',
  'train.keep_every',
  'train.keep_best',
  'train.validation_batches',
  'data.threads',
  'data.workers',
  'rules',
  'autoencoder',
  'vision',
  'data.path',
  'data.validation_path',
  'data.skip_missing',
  'train.device_groups',
  'train.trackers',
)
FREE_SECTIONS = (
  'mesh.',
  'sample.',
  'encode.',
  'evaluators.',
  'train.faults.',
  'train.limits.',
)
# Of these, what decides about learning rates where those fall with the validation loss.
DECISIVE = ('train.evaluate_every', 'train.validation_batches')
# Where a source lies; whether all data are read as latents, `data.latents` says.
_WHERE = re.compile(r'data\.sources\.\w+\.(path|validation_path|latents|skip_missing)$')
# What decides about the size of steps, but not about which moments there are.
_RATE = re.compile(r'(discriminator\.)?optimizer\.(?!name$)')
# Flags of launch.train, alone and together, and what they let change: (new_data, new_rate).
_WAYS = {
  '--new_data': (True, False),
  '--new_rate': (False, True),
  '--new_data --new_rate': (True, True),
}


def claim_workdir(
  config: Fields,
  workdir: pathlib.Path,
  *,
  new_data: bool = False,
  new_rate: bool = False,
  packages: Sequence[str] = (),
) -> None:
  """Writes the configuration into the work directory, or checks that it is the one there.

  Without a checkpoint there is nothing to protect: the configuration of a run that never saved may
  be corrected. With `new_data` the data and the buckets may be others, with `new_rate` what the
  optimizer does with its moments. `run.json` records the versions of `packages`. Raises ConfigError
  if the work directory was begun with another configuration.
  """
  path = workdir / 'config.json'
  # Checkpoints of the existing run, wherever this configuration would write its own.
  checkpoints = open_checkpoints(workdir)
  has_begun = checkpoints.begun()
  reached = max(checkpoints.steps(), default=0)
  if reached > config.get('train', {}).get('steps', reached):
    raise ConfigError(
      f'{os.fspath(workdir)!r} has reached step {reached}, and train.steps = '
      f'{config["train"]["steps"]} are behind it; give more steps, or take another --workdir'
    )
  if has_begun and (path.exists() or saved_config(workdir) is not None):
    check_same(read_config(workdir).to_dict(), config, os.fspath(workdir), new_data, new_rate)
  if jax.process_index() == 0:
    write_json(path, config)
    if not has_begun:
      write_about(workdir, packages)


def check_same(
  before: Fields,
  config: Fields,
  where: str,
  new_data: bool = False,
  new_rate: bool = False,
) -> None:
  """Raises ConfigError where a run would go on with another configuration than it began with."""

  def changes(*allowed: bool) -> list[str]:
    return differences(*(_fixed(fields, *allowed) for fields in (before, config)))

  if changed := changes(new_data, new_rate):
    flags = next((flags for flags, allowed in _WAYS.items() if not changes(*allowed)), '')
    raise ConfigError(
      f'{where!r} was begun with another configuration: {"; ".join(changed[:5])}'
      f'{" ..." if len(changed) > 5 else ""}; take another --workdir, or the old values'
      + f', or go on with its step and moments by launch.train {flags}' * bool(flags)
      + f'; another --workdir with --config.start_from={where} begins with its weights alone'
      * ('start_from' in config)
    )


def changed_rates(before: Fields, config: Fields) -> list[str]:
  """Lists what `new_rate` let change between a checkpoint's configuration and this one."""
  fixed = (_fixed(fields, True, False) for fields in (before, config))
  return differences(*({k: v for k, v in fields.items() if _RATE.match(k)} for fields in fixed))


def lasting_differences(before: Fields, config: Fields) -> list[str]:
  """Lists how two configurations differ in what no run changes as it goes on, with any flag."""
  return differences(*(_fixed(migrate(fields), True, True) for fields in (before, config)))


def _fixed(config: Fields, new_data: bool, new_rate: bool) -> JSON:
  """What a resumption must not change, by name."""
  free = (*FREE_SECTIONS, *(('data.', 'buckets.') if new_data else ()))
  flat = flatten(config)
  falls = flat.get('optimizer.plateau.patience', 0)
  if not falls:  # its other fields say nothing then, and there are runs of before it was a field
    free = (*free, 'optimizer.plateau.')
  if not flat.get('lora.rank', 0):  # as well
    free = (*free, 'lora.')
  falls_by_step = any(
    value != 'constant' for key, value in flat.items() if key.endswith('optimizer.schedule')
  )
  if new_rate or not falls_by_step:  # no step depends on how many there are
    free = (*free, 'train.steps')
  flat = {
    key: value
    for key, value in flat.items()
    if not key.startswith(free)
    and (key not in FREE or (falls and not new_rate and key in DECISIVE))
    and not _WHERE.match(key)
  }
  # Of runs of before these were fields; unlike `ADDED`, digests count them.
  since = {'train.checkpoints': '', 'optimizer.rates': [], 'model.chosen': 0}
  flat = since | added(flat) | flat
  if new_rate:
    flat = _of_moments(flat)
  if 'data.latents' in flat:  # another place is fine, but not another precision
    flat['data.latents'] = 'read' if flat['data.latents'] else 'encoded on the fly'
  return flat


def _of_moments(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns those optimizer fields that decide which leaves its saved state has."""
  decisive = {key: value for key, value in flat.items() if not _RATE.match(key)}
  for key, value in flat.items():
    if key.endswith('optimizer.plateau.patience'):
      decisive[key] = bool(value)
    elif key.endswith('optimizer.rates') and any(not factor for _, factor in value):
      decisive[key] = [[pattern, bool(factor)] for pattern, factor in value]
  return decisive


def is_finished(config: Fields, workdir: str | os.PathLike[str], **allowed: bool) -> bool:
  """Says whether a run has come to its end.

  `allowed` are `new_data` and `new_rate` of `check_same`. Raises ConfigError if it began with
  another configuration.
  """
  if steps := open_checkpoints(workdir).steps():
    check_same(read_config(workdir).to_dict(), config, os.fspath(workdir), **allowed)
  return bool(steps) and steps[-1] >= config['train']['steps']


def save_interval(workdir: pathlib.Path, save_every: int) -> int:
  """Returns how rarely a run has saved so far or is to save now; 0 for not at all."""
  path = workdir / 'config.json'
  before = (
    read_config(workdir).to_dict().get('train', {}).get('save_every') if path.exists() else None
  )
  intervals = [interval for interval in (before, save_every) if isinstance(interval, int)]
  return max(intervals) if all(intervals) else 0


def check_not_lost(workdir: pathlib.Path, reached: int, interval: int, where: str) -> None:
  """Raises CheckpointError where a run must have saved and would begin at step 0 all the same.

  `reached` is the last step of its metrics, `interval` that of `save_interval`.
  """
  if 0 < 2 * interval < reached:  # a second save has waited for the first
    raise CheckpointError(
      f'the metrics in {os.fspath(workdir)!r} have reached step {reached}, but {where} has no '
      'checkpoint after step 0; bring them back, or begin anew in an empty work directory'
    )
