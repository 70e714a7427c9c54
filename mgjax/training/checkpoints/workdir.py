"""Opens the configuration and the checkpoints of a work directory, and writes new ones."""

import contextlib
import importlib.metadata
import logging
import os
import pathlib
import sys
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json, write_json
from mgjax.core.settings import check_sizes, fields_of
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Array, Tree
from mgjax.core.version import __version__
from mgjax.training.checkpoints.check_config import check_same_model, parse_config
from mgjax.training.checkpoints.find_run import coming_with_mgjax, find_run, runs_near
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import Keep, keep_settings
from mgjax.training.checkpoints.run_references import is_published, lies_within
from mgjax.training.checkpoints.weights_file import WEIGHTS_FILE, WeightsFile

_RECORDED = ('jax', 'flax', 'orbax-checkpoint', 'safetensors', 'numpy')

_log = logging.getLogger(__name__)


def read_config(workdir: str | os.PathLike[str], component: str = '') -> ConfigDict:
  """Reads the configuration that a run was started with.

  If config.json is missing or damaged, returns the copy in the newest checkpoint of the work
  directory, and logs a warning. A file is damaged if it lacks fields of that copy, has values of
  another kind, or other numbers of the model; you can change other values by hand. Raises
  ConfigError, which names runs of `component` nearby, if no run was ever started there, or there
  is neither a valid file nor a copy.
  """
  workdir = find_run(workdir)
  path = workdir / 'config.json'
  record = _newest_record(workdir)
  saved = _config_in(record)
  try:
    if not _is_there(path):
      raise ConfigError(
        f'{os.fspath(workdir)!r} is not a work directory of launch.train (it has no config.json); '
        + (runs_near(workdir, component) or f'train first, or mend the path; {coming_with_mgjax()}')
      )
    config = parse_config(read_json(path), repr(os.fspath(path)), saved)
    if (workdir / WEIGHTS_FILE).exists() and record:
      shapes = {name: shape for name, (_, shape, _) in record['leaves']['average'].items()}
      try:  # before a model is made with these sizes
        check_sizes(fields_of(config, 'model'), shapes)
        check_same_model(config.to_dict(), record['meta'])
      except ConfigError as error:
        raise ConfigError(
          f'{os.fspath(path)!r} is not of {WEIGHTS_FILE} beside it: {error}'
        ) from None
    return config
  except ConfigError as error:
    if saved is None:
      raise
    _log.warning(
      '%s. The copy in the newest checkpoint counts; launch.weights verify says if another run '
      'saved it',
      error,
    )
    return ConfigDict(saved)


def _is_there(path: pathlib.Path) -> bool:
  """Says whether `path` exists, be it a broken link.

  Unlike os.path.lexists, it raises if that cannot be known.
  """
  try:
    path.lstat()
  except (FileNotFoundError, NotADirectoryError):
    return False
  return True


def read_config_of(
  workdir: str | os.PathLike[str], component: str, noun: str, hint: str = ''
) -> ConfigDict:
  """Reads a run's configuration. Raises ConfigError unless it is of this component."""
  config = read_config(workdir, component)
  if config.component != component:
    hint += f'; {nearby}' if (nearby := runs_near(pathlib.Path(workdir).parent, component)) else ''
    raise ConfigError(
      f'{os.fspath(workdir)!r} trained the component {config.component!r}; expected {noun}{hint}'
    )
  return config


def saved_config(workdir: str | os.PathLike[str]) -> JSON | None:
  """Returns the configuration that the newest good checkpoint in a work directory was saved with.

  None if there is none, or its checkpoints are in another folder (`train.checkpoints`). Each
  process reads for itself, without a collective.
  """
  return _config_in(_newest_record(workdir))


def _newest_record(workdir: str | os.PathLike[str]) -> JSON:
  """Returns the record of the newest checkpoint, or of a file of weights; {} if there is none."""
  with contextlib.suppress(ConfigError):  # of a damaged file, which is refused when it is read
    return open_checkpoints(workdir, '').newest_record() or {}
  return {}


def _config_in(record: Fields) -> JSON | None:
  config = (record.get('meta') or {}).get('config')
  return migrate(config) if config and 'component' in migrate(config) else None


def read_notes(workdir: str | os.PathLike[str]) -> JSON:
  """Reads the notes of a component beside its weights, {} if there are none. Reads no arrays."""
  return (open_checkpoints(workdir).newest_record() or {}).get('meta', {}).get('notes', {})


def open_checkpoints(
  workdir: str | os.PathLike[str], directory: str | None = None, keep: Keep | None = None
) -> Checkpoints:
  """Opens the checkpoints of a run, or the file that holds its weights instead.

  `directory` is `train.checkpoints` of a configuration: an absolute path, a URL, or '' for the
  work directory. By default `directory` and `keep` are those of config.json in the work directory.
  Raises ConfigError if `directory` is a relative path, or `keep` is not valid.
  """
  workdir = find_run(workdir)
  # `lexists`: a broken link is refused when it is read.
  if not directory and os.path.lexists(workdir / WEIGHTS_FILE):
    if is_published(workdir.absolute()) and not lies_within(workdir, workdir / WEIGHTS_FILE):
      raise ConfigError(
        f'{WEIGHTS_FILE} in {os.fspath(workdir)!r} is a link out of a published run'
      )
    return WeightsFile(workdir)
  if directory is None and (workdir / 'config.json').exists():
    train = read_config(workdir).to_dict().get('train') or {}
    directory = train.get('checkpoints')
    keep = keep_settings(train)
    if not isinstance(directory, str | None):
      raise ConfigError(f'{os.fspath(workdir)!r}: train.checkpoints = {directory!r} is no path')
  if directory and is_published(workdir.absolute()):
    raise ConfigError(
      f'{os.fspath(workdir)!r} is a published run without {WEIGHTS_FILE}, and its config.json '
      f'names checkpoints at {directory!r:.200}; expected {WEIGHTS_FILE} in its folder. '
      'If you trust who published it, --allow_outside reads them'
    )
  if directory and '://' not in directory and not os.path.isabs(directory):
    raise ConfigError(
      f'train.checkpoints = {directory!r} is a relative path; give an absolute path, a URL such as '
      "gs://bucket/path, or '' for the work directory"
    )
  return Checkpoints(directory or workdir / 'checkpoints', keep or Keep())


@flax.struct.dataclass
class _Untrained:
  """The items of a checkpoint at step 0: weights without the state of an optimizer."""

  step: Array
  params: Tree
  average: Tree


def write_workdir(
  config: Fields,
  params: Tree,
  notes: Fields,
  workdir: pathlib.Path,
  *,
  origin: Fields,
  loss: float | None = None,
  frozen: bool = False,
) -> None:
  """Writes the work directory that a run of this component would have at step 0.

  Args:
    config: the configuration of the run.
    params: its parameters, which are also their average.
    notes: of the component, kept beside its weights.
    workdir: the folder to write.
    origin: fields of the checkpoint's meta that say where the weights come from. `order` is needed:
      it takes the place of the order in which a run read its data.
    loss: the validation loss of the checkpoint.
    frozen: writes the average alone, for weights that will not be trained.
  """
  leaves = named_leaves(params)
  write_json(workdir / 'config.json', config)
  write_about(workdir, _RECORDED)
  write_json(workdir / 'parameters.json', {name: list(leaf.shape) for name, leaf in leaves.items()})
  params = jax.device_put(params)  # without a copy of arrays that are aligned, on a CPU
  meta = {
    'step': 0,
    'config': dict(config),
    'notes': dict(notes),
    'version': __version__,
    **origin,
  }
  trained = {} if frozen else params
  state = _Untrained(step=jnp.zeros((), jnp.int32), params=trained, average=params)
  with open_checkpoints(workdir) as checkpoints:
    checkpoints.save(state, meta, loss)


def write_about(workdir: pathlib.Path, packages: Sequence[str]) -> None:
  """Writes `run.json`: the command that made a work directory, and versions of some packages."""
  versions = {name: importlib.metadata.version(name) for name in packages}
  about = {'mgjax': __version__, 'python': sys.version.split()[0], **versions}
  write_json(workdir / 'run.json', {'command': sys.argv, 'versions': about})
