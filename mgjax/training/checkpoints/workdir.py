"""Reads work directories of runs, and writes those of imported and averaged weights."""

import contextlib
import importlib.metadata
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import did_you_mean, differences
from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.errors import ConfigError, first_line
from mgjax.core.files import WRONG, read_json, write_json
from mgjax.core.precision import BASE
from mgjax.core.run_names import is_name
from mgjax.core.settings import check_sizes, fields_of
from mgjax.core.tree import named_leaves, nest, subtrees, within
from mgjax.core.typing import Array, Tree
from mgjax.core.version import __version__
from mgjax.nn import lora
from mgjax.parallel.shard import Place
from mgjax.training.checkpoints.find_run import (
  SHIPPED,
  coming_with_mgjax,
  find_run,
  runs_near,
  ships,
)
from mgjax.training.checkpoints.fingerprints import Descriptions, describe_leaves, fingerprint_of
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import Keep, keep_settings
from mgjax.training.checkpoints.published import origin_of
from mgjax.training.checkpoints.run_references import is_published, may_lead_to
from mgjax.training.checkpoints.weights_file import FILE, WeightsFile

RECORDED = ('jax', 'flax', 'orbax-checkpoint', 'safetensors', 'numpy')
# What configurations have: groups of fields, groups of those, and texts.
_GROUPS = (
  'model',
  'train',
  'data',
  'objective',
  'sample',
  'lora',
  'pairs',
  'windows',
  'references',
)
_GROUPS_OF_GROUPS = ('buckets', 'text', 'model.conditionings')
# Of a model: how its numbers are calculated, and not which.
_FREE = ('dtype', 'attention', 'exchange', 'remat', 'unroll', 'products')
_DEEPEST = 64  # groups inside each other: what reads them needs frames of the stack for each
_TEXTS = ('autoencoder', 'vision', 'start_from', 'embeddings', 'tokenizer')
T = TypeVar('T')

_log = logging.getLogger(__name__)


def _is_there(path: pathlib.Path) -> bool:
  """Whether `path` exists, be it a link to nothing; unlike lexists, raises if that is unknown."""
  try:
    path.lstat()
  except (FileNotFoundError, NotADirectoryError):
    return False
  return True


def read_config(workdir: str | os.PathLike[str], component: str = '') -> ConfigDict:
  """Reads the configuration that a run was started with.

  Where config.json is missing or damaged, the copy counts that the newest checkpoint of the work
  directory keeps, which the log says. Damaged is also what lacks fields of that copy, has values of
  another kind, or other numbers of the model: one may change other values by hand. Raises
  ConfigError, which names runs of `component` nearby, if no run was ever started there, or nothing
  says as what.
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
    config = _understood(read_json(path), repr(os.fspath(path)), saved)
    if (workdir / FILE).exists() and record:
      shapes = {name: shape for name, (_, shape, _) in record['leaves']['average'].items()}
      try:  # before anything is as large as it says
        check_sizes(fields_of(config, 'model'), shapes)
        _check_described(config.to_dict(), record['meta'])
      except ConfigError as error:
        raise ConfigError(f'{os.fspath(path)!r} is not of {FILE} beside it: {error}') from None
    return config
  except ConfigError as error:
    if saved is None:
      raise
    told = (
      'The copy in the newest checkpoint counts; launch.weights verify says if another run saved'
    )
    _log.warning('%s. %s it', error, told)
    return ConfigDict(saved)


def _check_described(config: Mapping[str, Any], described: Mapping[str, Any]) -> None:
  """Checks that a configuration has the model that the header of its weights describes.

  How it is calculated may differ. Raises ConfigError, which names the fields that do.
  """
  told = {key: described[key] for key in ('component', 'model') if key in described}
  ours = {key: config.get(key) for key in told}
  found = differences(migrate(told), ours)
  if wrong := [each for each in found if each.split(':')[0].rpartition('.')[2] not in _FREE]:
    raise ConfigError('; '.join(wrong))


def saved_config(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """Returns the configuration that the newest good checkpoint in a work directory was saved with.

  None where there is none, or its checkpoints lie elsewhere. No process asks another one.
  """
  return _config_in(_newest_record(workdir))


def _newest_record(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns what the newest checkpoint, or a file of weights, says of itself; {} if nothing."""
  with contextlib.suppress(ConfigError):  # of a damaged file, which says so when it is read
    return open_checkpoints(workdir, '').newest_record() or {}
  return {}


def _config_in(record: Mapping[str, Any]) -> dict[str, Any] | None:
  config = (record.get('meta') or {}).get('config')
  return migrate(config) if config and 'component' in migrate(config) else None


def _understood(
  fields: Mapping[str, Any], name: str, expected: Mapping[str, Any] | None
) -> ConfigDict:
  """Makes a configuration of what a file holds. Raises ConfigError if it lacks what is expected."""
  try:
    if _is_deep(fields):
      raise ValueError('it is nested too deep')
    fields = migrate(fields)
    expected = expected or _kinds(fields)
    unlike = _unlike(fields, expected)
    config = ConfigDict(fields)
  except WRONG as wrong:
    unlike = first_line(wrong)
    config = ConfigDict()
  if unlike:
    raise ConfigError(
      f'{name} is no configuration of launch.train: {unlike}; put back a whole copy, or delete it '
      'and start the run again'
    )
  return config


def _is_deep(value: Any, left: int = _DEEPEST) -> bool:
  inside = value.values() if isinstance(value, Mapping) else value
  is_group = isinstance(value, Mapping | list)
  return is_group and (left == 0 or any(_is_deep(each, left - 1) for each in inside))


def _kinds(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns values of the kinds that those of a configuration have to be of."""
  found: dict[str, Any] = {'component': ''}
  found |= {key: {} for key in _GROUPS if key in fields}
  if 'sample' in fields:  # of a flow model
    found |= {'autoencoder': '', 'data': {'fps': 0, 'kind': ''}, 'buckets': {}, 'objective': {}}
    found['model'] = {'conditionings': {}}
  found |= {key: '' for key in _TEXTS if fields.get(key) is not None}
  for name in _GROUPS_OF_GROUPS:
    *outer, key = name.split('.')
    place, kinds = fields, found
    for each in outer:
      place, kinds = place.get(each), kinds.get(each)
    if isinstance(place, Mapping) and key in place:
      kinds[key] = {each: {} for each in place[key]} if isinstance(place[key], Mapping) else {}
  return found


def _unlike(value: Any, expected: Any, name: str = '') -> str:
  """Says what is missing of a configuration, or of another kind than expected; '' for nothing."""
  kinds = ((dict,), (list, tuple), (str,), (bool,), (int, float))
  if expected is None:
    return ''
  kind = next(kind for kind in kinds if isinstance(expected, kind))
  if not isinstance(value, kind) or isinstance(value, bool) != isinstance(expected, bool):
    given = 'nothing' if value is None else type(value).__name__
    return f'{name or "it"} is {given}, expected {type(expected).__name__}'
  if isinstance(value, int | float) and name.startswith('model.') and value != expected:
    return f'{name} is {value:.9g}, and {expected:.9g} in the checkpoint'
  if isinstance(expected, dict):
    for key, each in expected.items():
      if key not in value:
        return f'{name}{"." * bool(name)}{key} is missing'
      if unlike := _unlike(value[key], each, f'{name}{"." * bool(name)}{key}'):
        return unlike
  if isinstance(expected, list | tuple) and expected:
    strict = name.startswith('model.')
    if strict and len(value) != len(expected):
      return f'{name} has {len(value)} entries, and {len(expected)} in the checkpoint'
    for number, each in enumerate(value):
      others = expected[number : number + 1] if strict else expected
      likes = [_unlike(each, other, f'{name}.{number}') for other in others]
      if all(likes):
        return likes[0]
  return ''


def read_config_of(
  workdir: str | os.PathLike[str], component: str, noun: str, hint: str = ''
) -> ConfigDict:
  """Reads a run's configuration. Raises ConfigError unless it is of this component."""
  config = read_config(workdir, component)
  if config.component != component:
    meant = runs_near(pathlib.Path(workdir).parent, component)
    raise ConfigError(
      f'{os.fspath(workdir)!r} trained the component {config.component!r}; expected {noun}{hint}'
      f'{"; " * bool(meant)}{meant}'
    )
  return config


def read_needed(
  workdir: str | os.PathLike[str],
  given: str | os.PathLike[str],
  noun: str,
  recorded: str | None,
  read: Callable[[pathlib.Path], tuple[T, Sequence[str]]],
) -> T:
  """Reads what a model needs of another run: in its work directory, beside it, or where it was.

  The place that training knew comes last: it may depend on where one stands. What is needed by a
  published run lies in its folder, or is what `_elsewhere` allows.

  Args:
    given: the place that training knew, whose last name counts elsewhere.
    noun: for messages, as in 'the autoencoder'.
    recorded: the fingerprint of what the model learnt with; None takes the first that is there.
    read: a place -> what is there, and the fingerprints that it answers to.

  Raises:
    ConfigError: at none of the places is what the model learnt with.
  """
  here = find_run(workdir).absolute()
  if not isinstance(given, str | os.PathLike) or not pathlib.Path(given).name:
    raise ConfigError(f'{os.fspath(workdir)!r}: {noun} is {given!r:.80}; expected a path or a name')
  name = pathlib.Path(given).name
  seen = {}
  places = [here / name]
  if not is_published(here):
    places += [here.parent / name, find_run(given)]
  elif not _is_within(here, places[0]):
    places[0] = find_run(_elsewhere(here, os.fspath(given), noun))
  for place in places:
    if place == here:  # of the name of what it needs, which it is not
      continue
    seen[os.fspath(place)] = 'nothing'
    if os.path.exists(place):
      try:
        found, known = read(place)
      except ConfigError as error:
        seen[os.fspath(place)] = first_line(error)
        continue
      if recorded in (None, *known):
        return found
      seen[os.fspath(place)] = f'another, of the fingerprint {known[0]} (was it trained on?)'
  wanted = '' if recorded is None else f', of the fingerprint {recorded},'
  raise ConfigError(
    f'{noun}{wanted} that {os.fspath(workdir)!r} learnt with is not there; there is '
    f'{"; ".join(f"at {place!r} {what}" for place, what in seen.items())}. Put it at one of them'
  )


def find_beside(workdir: str | os.PathLike[str], given: str) -> str:
  """Returns what a run's own configuration names: in its folder, or else the place as it is given.

  Of a place its last name counts in the folder; a name of a published run is never there. Raises
  ConfigError if a published run names what `_elsewhere` does not allow.
  """
  here = find_run(workdir).absolute()
  inside = here / pathlib.Path(given).name
  published = is_published(here)
  there = _is_within(here, inside) if published else inside.exists()
  if given and not is_name(given) and there:
    return os.fspath(inside)
  noun = 'an expert or adapters (sample.expert, sample.lora)'
  return _elsewhere(here, given, noun) if given and published else given


def _is_within(folder: pathlib.Path, place: pathlib.Path) -> bool:
  # `exists` of a path itself raises where no path can be so long.
  return os.path.exists(place) and place.resolve().is_relative_to(folder.resolve())


def _elsewhere(here: pathlib.Path, given: str, noun: str) -> str:
  """Returns a place outside of the folder of a published run, if it may lead there.

  That is what comes with mgjax, and what `may_lead_to` says. Raises ConfigError otherwise.
  """
  if ships(given):
    return os.fspath(SHIPPED / given)
  if not may_lead_to(given, origin_of(here)):
    raise ConfigError(
      f'{os.fspath(here)!r} is a published run, and its config.json has {noun} at {given!r:.200}; '
      'expected what lies in its folder, comes with mgjax, or is published on the Hub or beside it '
      'with its SHA-256. If you trust who published it, --allow_outside reads it'
    )
  return given


def read_notes(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """Reads what a component keeps beside its weights, {} where there are none; no array is read."""
  return (open_checkpoints(workdir).newest_record() or {}).get('meta', {}).get('notes', {})


def describe_average(workdir: str | os.PathLike[str], subtree: str = '') -> Descriptions:
  """Returns dtype, shape and fingerprint of every averaged parameter in a subtree of a run."""
  leaves = open_checkpoints(workdir).restore_record()['leaves']['average']
  if not all(fingerprint for *_, fingerprint in leaves.values()):  # a file of weights has none
    leaves = describe_leaves(load_params(workdir)[0], values=True)
  inside = f'{subtree}/' if subtree else ''
  return {n.removeprefix(inside): leaves[n] for n in leaves if n.startswith(inside)}


def digest_of(workdir: str | os.PathLike[str]) -> str:
  """Names the averaged weights of a run."""
  return fingerprint_of(describe_average(workdir))


def open_checkpoints(
  workdir: str | os.PathLike[str], place: str | None = None, keep: Keep | None = None
) -> Checkpoints:
  """Opens the checkpoints of a run, or the file that holds its weights instead.

  `place` is an absolute path or a URL, '' for the work directory: `train.checkpoints` of a
  configuration. By default place and `keep` are those of the one in the work directory. Raises
  ConfigError if `place` depends on where one stands, or what is to be kept makes no sense.
  """
  workdir = find_run(workdir)
  if not place and os.path.lexists(workdir / FILE):  # a link that leads nowhere says so when read
    if is_published(workdir.absolute()) and not _is_within(workdir, workdir / FILE):
      raise ConfigError(f'{FILE} in {os.fspath(workdir)!r} is a link out of a published run')
    return WeightsFile(workdir)
  if place is None and (workdir / 'config.json').exists():
    train = read_config(workdir).to_dict().get('train') or {}
    place = train.get('checkpoints')
    keep = keep_settings(train)
    if not isinstance(place, str | None):
      raise ConfigError(f'{os.fspath(workdir)!r}: train.checkpoints = {place!r} is no path')
  if place and is_published(workdir.absolute()):
    raise ConfigError(
      f'{os.fspath(workdir)!r} is a published run without {FILE}, and its config.json names '
      f'checkpoints at {place!r:.200}; expected {FILE} in its folder. If you trust who published '
      'it, --allow_outside reads them'
    )
  if place and '://' not in place and not os.path.isabs(place):
    raise ConfigError(
      f'train.checkpoints = {place!r} is a relative path; give an absolute path, a URL such as '
      "gs://bucket/path, or '' for the work directory"
    )
  return Checkpoints(place or workdir / 'checkpoints', keep or Keep())


def read_shapes(workdir: str | os.PathLike[str]) -> dict[str, list[int]]:
  """Reads the shape of every parameter of a run, by name, from its newest good checkpoint."""
  saved = open_checkpoints(workdir).restore_record()['leaves']['average']
  return {name: shape for name, (_, shape, _) in saved.items()}


def load_params(
  workdir: str | os.PathLike[str],
  which: str = 'average',
  place: Place | None = None,
  step: int | None = None,
  subtree: str = '',
) -> tuple[Tree, dict[str, Any]]:
  """Reads the averaged parameters of a run as they were saved, and the checkpoint's meta.

  `which` is 'average' or 'params'; `place` says where each parameter goes, straight from disk, by
  default to one device; `step` is another checkpoint than the newest good one; of a `subtree`, as
  'backbone/layers', no more is read. Raises CheckpointError if there is no checkpoint that can be
  trusted, and ConfigError if there are no parameters of that subtree. Of a run of adapters
  (`nn/lora.py`) they are those of its model with the adapters merged.
  """
  params, meta = open_checkpoints(workdir).restore_params(
    lambda saved: _unflatten(saved, place, subtree), which, step
  )
  if lora.is_adapters(named_leaves(params)):
    params = _with_base(workdir, params, meta, place, subtree)
  return params, meta


def load_adapters(
  workdir: str | os.PathLike[str], which: str = 'average', step: int | None = None
) -> tuple[Tree, dict[str, Any]]:
  """Reads the adapters of a run that trained such, and the checkpoint's meta, as `load_params`.
  Raises ConfigError if it trained parameters, and CheckpointError as `load_params`.
  """
  params, meta = open_checkpoints(workdir).restore_params(
    lambda saved: _unflatten(saved, None, ''), which, step
  )
  if not lora.is_adapters(named_leaves(params)):
    raise ConfigError(
      f'{os.fspath(workdir)!r} trained all parameters of its model; expected a run of adapters, '
      'with config.lora.rank above 0'
    )
  return params, meta


def load_base(
  start_from: Any, what: str, place: Place | None = None
) -> tuple[Tree, dict[str, Any]]:
  """Reads the model that adapters change, from `config.start_from`; `load_params` otherwise.
  Raises ConfigError if that names no run; `what` says what happens, as in 'adapters train'.
  """
  if not start_from or not isinstance(start_from, str) or '=' in start_from:
    raise ConfigError(
      f'{what} with config.start_from = {start_from!r}; expected the work directory of the model '
      'that they change, as in --config.start_from=digits/video'
    )
  return load_params(start_from, place=place)


def identity_of(base: Tree, meta: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a run of adapters notes of the model that it began on, as `BASE`."""
  return {'fingerprint': fingerprint_of({}, base), 'step': meta['step']}


def _with_base(
  workdir: str | os.PathLike[str],
  adapters: Tree,
  meta: Mapping[str, Any],
  place: Place | None,
  subtree: str,
) -> Tree:
  """Merges the adapters of a run into the parameters of the model that they were trained for."""

  def read(where: pathlib.Path) -> tuple[Tree, list[str]]:
    params, _ = load_params(where, place=place)
    return params, [fingerprint_of({}, params)]

  config = read_config(workdir).to_dict()
  recorded = meta['notes'][BASE]['fingerprint']
  base = read_needed(workdir, config['start_from'], 'the model', recorded, read)
  merged = named_leaves(lora.merge(adapters, base, lora.scale_of(config, adapters)))
  return nest({name: leaf for name, leaf in merged.items() if within(name, subtree)})


def _unflatten(saved: Descriptions, place: Place | None, subtree: str) -> Tree:
  leaves = {}
  for name, (dtype, shape, _) in saved.items():
    if within(name, subtree):
      where = None if place is None else place(name, tuple(shape))
      leaves[name] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=where)
  if not leaves:
    hint = did_you_mean(subtree, [*subtrees(saved), *saved]).partition('; ')[2]
    tops = ', '.join(sorted({name.split('/')[0] for name in saved}))
    raise ConfigError(f'it has no parameters {subtree!r}; {hint or f"it has {tops}"}')
  return nest(leaves)


@flax.struct.dataclass
class _Untrained:
  """The items of a checkpoint at step 0: weights that no optimizer has touched."""

  step: Array
  params: Tree
  average: Tree


def write_workdir(
  config: Mapping[str, Any],
  params: Tree,
  notes: Mapping[str, Any],
  workdir: pathlib.Path,
  *,
  origin: Mapping[str, Any],
  loss: float | None = None,
  frozen: bool = False,
) -> None:
  """Makes a work directory as a run of this component would, stopped at step 0.

  `notes` are what the component keeps beside its weights. `origin` joins what the checkpoint keeps,
  and says where the weights come from; its `order` stands where a run says in which order it saw
  its data. If nobody trains the weights (`frozen`), the average alone is written.
  """
  leaves = named_leaves(params)
  write_json(workdir / 'config.json', config)
  write_about(workdir, RECORDED)
  write_json(workdir / 'parameters.json', {name: list(leaf.shape) for name, leaf in leaves.items()})
  params = jax.tree.map(jnp.asarray, params)
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
