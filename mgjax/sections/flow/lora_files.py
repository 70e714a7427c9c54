"""Files of adapters by the names that other projects read: PEFT and diffusers, ComfyUI, kohya.

A kernel of ours, 'backbone/layers/self_attention/query/kernel' of a stack, is there the linear map
'backbone.layers.3.self_attention.query' of its layer 3. The adapters of a map are two tensors in
PyTorch's order, A (r, in) and B (out, r). Those of a convolution are (r, in, h, w) and
(out, r, 1, 1):

  peft      base_model.model.<map>.lora_A.weight, .lora_B.weight, and adapter_config.json
  comfyui   diffusion_model.<map>.lora_A.weight, .lora_B.weight, .alpha
  kohya     lora_unet_<map with _ for .>.lora_down.weight, .lora_up.weight, .alpha

They are written so. Read are more names (`foreign_weights/lora_keys.py`) and what peft says in
adapter_config.json or, in a file of diffusers, with the prefix of keys in `lora_adapter_metadata`
(`foreign_weights/peft_config.py`). They count alpha / r times; a file without alpha counts once.

DoRA has W' = m V / |V|, V = W + s B A, with a norm of each output or, where m is (1, in), of each
input. It is read as A B of full rank, A = W' - W and B = 1.

Models that other projects have, as CLIP and Wan, have a table of names. Their maps are written by
these names, and read by them and by ours. Where a table has several names of a map, peft's form is
written with the first, diffusers', and the others with the last, the original's. Maps of CLIP's
text tower begin with lora_te_ in kohya's files.

A file may also hold differences of parameters, with an end of its own in place of that of A:

  .diff      of a weight: a map's, or the scale of a norm
  .diff_b    of a bias
  .diff_m    of the modulation of a layer of Wan

They are read, and never written.
"""

import contextlib
import datetime
import json
import logging
import math
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.files import parse_json, read_json, write_json
from mgjax.core.precision import DIFFERENCE, LORA_A, LORA_B
from mgjax.core.safetensors_files import (
  TensorFile,
  open_tensors,
  read_metadata,
  shown,
  write_tensors,
)
from mgjax.core.tree import named_leaves, nest
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.lora_keys import (
  WHOLE_PARAMETERS,
  Place,
  find_places,
  kind_of,
  map_in,
  own_row,
  part_of,
  split_key,
)
from mgjax.models.foreign_weights.names import (
  LAYER,
  TensorName,
  shape_in_file,
  to_ours,
  to_theirs,
)
from mgjax.models.foreign_weights.numbers import is_number, number_in
from mgjax.models.foreign_weights.peft_config import check_settings, scales_of_maps
from mgjax.models.text.vocabulary import WORDS, words_in
from mgjax.nn.lora import (
  Lora,
  check_fits,
  is_finite_change,
  pairs,
  scale_of,
  shapes_of,
)
from mgjax.nn.quantize import dequantised
from mgjax.training.checkpoints.find_run import find_run
from mgjax.training.checkpoints.load_params import load_adapters
from mgjax.training.checkpoints.workdir import read_config, read_notes

ADAPTER_FORMATS = ('peft', 'comfyui', 'kohya')
_PREFIXES = {'peft': 'base_model.model.', 'comfyui': 'diffusion_model.', 'kohya': 'lora_unet_'}
_TEXT = 'lora_te_'
_CONFIG = 'adapter_config.json'
_WEIGHTS = 'adapter_model.safetensors'
_FILES = (_WEIGHTS, 'pytorch_lora_weights.safetensors')  # of a folder: of peft, of diffusers
_METADATA = 'lora_adapter_metadata'  # of diffusers since 0.34
_WORDS = 'mgjax.words'
_BASE = 'ss_base_model_version'  # of the metadata: what adapters were made for
_MOST_NAMED = 4  # keys in a message

_log = logging.getLogger(__name__)


class _Keys(NamedTuple):
  """What a file holds of a model: by place the keys of low-rank adapters, and of differences."""

  low_rank: dict[Place, dict[str, str]]  # by their roles
  differences: dict[Place, str]


class AboutAdapters(NamedTuple):
  """What the metadata of adapters say.

  Attributes:
    component: of the model, and `base` its name.
    title: of the adapters.
    words: of the captions of training, if they are known.
  """

  component: str
  base: str
  title: str
  words: Collection[str] = ()


def write_adapters(
  out: pathlib.Path,
  adapters: Tree,
  settings: Lora,
  form: str,
  about: AboutAdapters,
  rows: Sequence[TensorName] = (),
) -> None:
  """Writes adapters: 'peft' a folder, the others a .safetensors file.

  Args:
    about: what the metadata say.
    rows: other projects' names of the parameters, as of `WeightFormat.rows`.

  Raises:
    ConfigError: there is no such format, or `out` is not what it wants.
  """
  if form not in ADAPTER_FORMATS:
    raise ConfigError(
      f'there is no format {form!r} of adapters; expected {", ".join(ADAPTER_FORMATS)}'
    )
  folder = form == 'peft'
  if folder != (out.suffix != '.safetensors') or out.is_dir() != (folder and out.exists()):
    expected = 'a folder' if folder else 'a .safetensors file'
    raise ConfigError(f'--out={out}: expected {expected} for the format {form!r}')
  alpha = settings.alpha or float(settings.rank)
  tensors: dict[str, np.ndarray] = {}
  modules = set()
  down, up = ('down', 'up') if form == 'kohya' else ('A', 'B')
  table = {row.ours: row for row in rows}
  for kernel, (a, b) in pairs(adapters).items():
    row = table.get(kernel) or own_row(kernel, a.shape)
    name_of_layers = row.names[0 if form == 'peft' else -1].removesuffix('.weight')
    for layer in range(len(b)) if b.ndim == 3 else (None,):
      name = name_of_layers.replace(LAYER, str(layer))
      modules.add(name)
      key = _PREFIXES[form] + name
      if form == 'kohya':
        text = kernel in table and kernel.startswith('text/')
        key = (_TEXT if text else _PREFIXES[form]) + name.replace('.', '_')
      first, second = (
        np.asarray(factor if layer is None else factor[layer], np.float32) for factor in (a, b)
      )
      first = to_theirs(row, first)
      second = np.expand_dims(second.T, tuple(range(2, first.ndim)))  # a window of 1
      tensors[f'{key}.lora_{down}.weight'] = np.ascontiguousarray(first)
      tensors[f'{key}.lora_{up}.weight'] = np.ascontiguousarray(second)
      if not folder:
        tensors[f'{key}.alpha'] = np.array(alpha, np.float32)
  metadata = {
    'format': 'pt',
    'modelspec.sai_model_spec': '1.0.0',
    'modelspec.architecture': f'mgjax-{about.component}/lora',
    'modelspec.title': about.title,
    'modelspec.date': datetime.date.today().isoformat(),
    'ss_network_dim': str(settings.rank),
    'ss_network_alpha': f'{alpha:g}',
    _BASE: about.base,
  }
  if about.words:
    metadata[_WORDS] = json.dumps(sorted(about.words))
  if folder:
    config = {
      'peft_type': 'LORA',
      'r': settings.rank,
      'lora_alpha': alpha,
      'bias': 'none',
      'target_modules': sorted(modules),
      'base_model_name_or_path': about.base,
      'lora_dropout': settings.dropout,
      'fan_in_fan_out': False,
      'inference_mode': True,
    }
    write_json(out / _CONFIG, config)
  write_tensors(out / _WEIGHTS if folder else out, tensors, metadata)


def read_adapters(
  path: str | os.PathLike[str], base: Tree, rows: Sequence[TensorName] = ()
) -> Tree:
  """Reads adapters for a model with the parameters `base`, with their scale in A.

  Args:
    path: a file or a folder of one of the formats, or the work directory of a run of adapters.
    rows: as of `write_adapters`. Adapters of parameters that the table has and this model does not
      have are left out with a warning.

  Returns:
    A tree with A and B in place of kernels, and differences in place of parameters (`nn/lora.py`).

  Raises:
    ConfigError: there are none, or they are of another kind, or keys do not fit the model or are
      there twice, or settings say what is not read; they are named.
  """
  try:
    where = pathlib.Path(find_run(path))
    problem = '' if where.exists() else 'there is nothing of this name'
  except OSError as error:
    problem = str(error.strerror)
  name = repr(os.fspath(path))
  if problem:
    raise ConfigError(f'{name:.100}: {problem}; expected a file, folder or work directory')
  if (where / 'config.json').exists():
    adapters, _ = load_adapters(where)
    config = read_config(where)
    check_fits(adapters, base, f'{name}, made for {config.get("start_from")!r},')
    return _scaled(adapters, scale_of(config.to_dict(), adapters))
  with open_tensors(_file_in(where)) as file:
    if made_for := file.metadata.get(_BASE):
      name += f', made for {shown(made_for)!r},'
    described, what = _described(where, file)
    keys = _find(file, base, rows, name)
    tensors = {
      place: {role: _read(file, key, role, name) for role, key in own_keys.items()}
      for place, own_keys in keys.low_rank.items()
    }
    changes = {place: _read(file, key, 'diff', name) for place, key in keys.differences.items()}
  scales = _scales(described, file.metadata, keys.low_rank, tensors, what)
  is_dora = any('magnitude' in parts for parts in tensors.values())
  kernels = named_leaves(dequantised(base)) if is_dora else {}
  layers: dict[str, dict[int | None, tuple[np.ndarray, np.ndarray]]] = {}
  for place, parts in tensors.items():
    pair = _pair(place, parts, scales[place], kernels.get(place.parameter), name)
    layers.setdefault(place.parameter, {})[place.layer] = pair
  counts = {place.parameter: place.shape[0] for place in keys.low_rank}
  return nest(_stacked(layers, counts) | _stacked_differences(changes))


def are_adapters(path: str | os.PathLike[str]) -> bool:
  """Says whether a file or folder of another project holds adapters of any kind."""
  where = pathlib.Path(path)
  if where.is_dir():
    return any((where / name).exists() for name in _FILES)
  if where.suffix != '.safetensors':
    return False
  with open_tensors(where) as file:
    kinds = {split_key(key)[1] or kind_of(key) for key in file.names}
  return bool(kinds - {'', 'alpha', WHOLE_PARAMETERS})


def words_of_adapters(path: str | os.PathLike[str]) -> tuple[str, ...]:
  """Returns the words of the captions that adapters were trained on, () if they are not known."""
  where = pathlib.Path(find_run(path))
  if (where / 'config.json').exists():
    return words_in(read_notes(where))
  try:
    return words_in({WORDS: json.loads(read_metadata(_file_in(where))[_WORDS])})
  except (KeyError, ValueError, RecursionError):  # nobody needs them
    return ()


def _file_in(where: pathlib.Path) -> pathlib.Path:
  if not where.is_dir():
    return where
  names = [name for name in _FILES if (where / name).exists()]
  if len(names) == 1:
    return where / names[0]
  raise ConfigError(
    f'{os.fspath(where)!r} has both {" and ".join(names)}; give one of them'
    if names
    else f'{os.fspath(where)!r} has neither config.json of a run nor {" nor ".join(_FILES)}'
  )


def _find(file: TensorFile, base: Tree, rows: Sequence[TensorName], name: str) -> _Keys:
  """Finds what the keys of a file change; warns of those that are left out."""
  places, absent = find_places(shapes_of(base), rows)
  found, unknown, left_out = _Keys({}, {}), [], []
  for key in file.names:
    text, role, _ = split_key(key)
    text = f'{text}.{part_of(role)}'
    module = map_in(text, places) if role else ''
    is_difference = role.startswith('diff')
    if not module or not (is_difference or places[module].parameter.endswith('/kernel')):
      (left_out if role and map_in(text, absent) else unknown).append(key)
    elif is_difference:
      if (other := found.differences.setdefault(places[module], key)) != key:
        raise _twice(module, other, key, name)
    else:
      own_keys = found.low_rank.setdefault(places[module], {})
      _check_once(own_keys, key, module, name)
      own_keys[role] = key
  for key in unknown:
    if kind := kind_of(key):
      raise ConfigError(
        f'{name} holds {kind}, as {shown(key)}, which is not read; expected LoRA or DoRA alone, '
        'merge it into its model or train LoRA'
      )
  if not file.names:
    raise ConfigError(f'{name} has no tensors; expected adapters, save or download them again')
  for misfit in _misfits(file, found):
    raise ConfigError(
      f'{name} is of another model: {misfit}; give adapters that were trained for this one'
    )
  if unknown or not any(found):
    misfits = unknown or left_out
    raise ConfigError(
      f'{name} is of another model: {len(misfits)} of its {len(file.names)} keys do not fit, as '
      f'{_named(misfits)}; this one has maps such as '
      f'{next(iter(places)).removesuffix(".weight")!r}'
    )
  for own_keys in found.low_rank.values():
    if not {'A', 'B'} <= own_keys.keys():
      raise ConfigError(
        f'{name} has one of A and B alone, or none, beside {shown(min(own_keys.values()))}'
      )
  if left_out:
    _log.warning(
      '%s: left out %d of %d tensors, of maps that this model does not have, as %s',
      name,
      len(left_out),
      len(file.names),
      _named(left_out),
    )
  return found


def _named(keys: Sequence[str]) -> str:
  return ', '.join(map(shown, sorted(keys)[:_MOST_NAMED]))


def _check_once(own_keys: Mapping[str, str], key: str, module: str, name: str) -> None:
  """Raises ConfigError if a map has a tensor twice, or tensors of several adapters."""
  text, role, adapter = split_key(key)
  for other, there in own_keys.items():
    holder, _, name_there = split_key(there)
    # A magnitude may do without the name that A and B have.
    apart = adapter != name_there and ({role, other} == {'A', 'B'} or (adapter and name_there))
    if other == role or holder != text or apart:
      raise _twice(module, there, key, name)


def _twice(module: str, one: str, other: str, name: str) -> ConfigError:
  return ConfigError(
    f'{name} has adapters of {module.removesuffix(".weight")} twice, as {shown(one)} and as '
    f'{shown(other)}; delete those of one name'
  )


def _misfits(file: TensorFile, keys: _Keys) -> Iterator[str]:
  """Yields what is of another shape than the model's, by the header of the file."""
  for place, own_keys in keys.low_rank.items():
    if {'A', 'B'} <= own_keys.keys():
      outputs, *inputs = shape_in_file(place.row, place.own_shape)
      (_, a), (_, b) = (file.describe(own_keys[role]) for role in 'AB')
      fits = a[1:] == tuple(inputs) and b[:2] == (outputs, *a[:1])
      if not fits or math.prod(b) != outputs * a[0]:
        yield f'A {a} and B {b} of {place.parameter}, whose kernel here is {place.own_shape}'
  for place, key in keys.differences.items():
    _, shape = file.describe(key)
    if shape != (expected := shape_in_file(place.row, place.own_shape)):
      yield f'{shown(key)} is of shape {shape}, and {place.parameter} here is {expected}'


def _read(file: TensorFile, key: str, role: str, name: str) -> np.ndarray:
  """Reads a tensor in float32, an alpha in float64: it may be an integer, and of any rank."""
  tensor = file.read(key, anything=role == 'alpha')
  is_alpha = role == 'alpha' and jnp.issubdtype(tensor.dtype, jnp.integer)
  if not (is_alpha or jnp.issubdtype(tensor.dtype, jnp.floating)):
    raise ConfigError(f'{name} has {shown(key)} of {tensor.dtype}; expected finite floats')
  if role == 'alpha' and not (tensor.size == 1 and is_number(float(tensor.item()))):
    raise ConfigError(
      f'{name} has {shown(key)} = {tensor.tolist()!s:.60}; expected one finite number'
    )
  if role == 'alpha' and not tensor.item():
    raise ConfigError(
      f'{name} has {shown(key)} = 0, which kohya reads as the rank and others as no change; '
      'write the rank in its place, or delete it'
    )
  if role in 'AB' and (tensor.ndim < 2 or not tensor.size):
    raise ConfigError(f'{name} has {shown(key)} of shape {tensor.shape}; expected a matrix')
  if '.lora_magnitude_vector' in key:  # of convolutions (1, out, 1, 1)
    tensor = tensor.ravel()
  return tensor.astype(np.float64 if role == 'alpha' else np.float32)


def _scales(
  described: Mapping[str, Fields],
  metadata: Mapping[str, str],
  keys_by_place: Mapping[Place, Mapping[str, str]],
  tensors: Mapping[Place, Mapping[str, np.ndarray]],
  what: str,
) -> dict[Place, float]:
  """Returns the scale of B A in each kernel, from peft's settings or from the file itself."""
  places_by_prefix: dict[str, dict[str, Place]] = {prefix: {} for prefix in described}
  scales = {}
  for place, keys in keys_by_place.items():
    text, *_ = split_key(keys['A'])
    prefix = max(
      (candidate for candidate in described if text.startswith(candidate)), key=len, default=None
    )
    if prefix is not None:
      places_by_prefix[prefix][text.removeprefix(prefix or _PREFIXES['peft'])] = place
    elif described:
      raise ConfigError(
        f'{what} does not describe {shown(text)}; expected r and lora_alpha with the prefix of its '
        'keys, as transformer.r'
      )
    elif 'alpha' in keys:
      scales[place] = tensors[place]['alpha'].item() / len(tensors[place]['A'])
    else:
      scales[place] = _scale_of_header(metadata, len(tensors[place]['A']), what)
  for prefix, own in places_by_prefix.items():
    own_tensors = {name: tensors[place] for name, place in own.items()}
    own_scales = scales_of_maps(described[prefix], own_tensors, what)
    scales |= {own[name]: scale for name, scale in own_scales.items()}
  return scales


def _described(where: pathlib.Path, file: TensorFile) -> tuple[dict[str, dict[str, Any]], str]:
  """Returns peft's settings by the prefix of their keys, and the source for messages."""
  settings_by_prefix: dict[str, dict[str, Any]] = {}
  path = _file_in(where)
  config = path.with_name(_CONFIG)
  # A file of peft keeps its keys when it is renamed.
  of_peft = any(key.startswith(_PREFIXES['peft']) for key in file.names)
  of_peft = path.name == _WEIGHTS or (of_peft and _METADATA not in file.metadata)
  if of_peft and (os.path.lexists(config) or (path.name == _WEIGHTS and where.is_dir())):
    what = repr(os.fspath(config))
    settings_by_prefix[''] = read_json(config, mend='save the adapters again')
  else:
    what = f'the header of {os.fspath(where)!r}'
    text = file.metadata.get(_METADATA, '{}')
    name = f'{_METADATA} in {what}'
    header = parse_json(text, name, error=ConfigError, mend='save the adapters again')
    for key, value in header.items():
      prefix, dot, field = key.rpartition('.')
      settings_by_prefix.setdefault(prefix + dot, {})[field] = value
  for settings in settings_by_prefix.values():
    check_settings(settings, what)
  return settings_by_prefix, what


def _scale_of_header(metadata: Mapping[str, str], of_tensors: int, what: str) -> float:
  """Returns alpha / r from kohya's header; 1 without alpha, as other readers do."""
  alpha, rank = (metadata.get(f'ss_network_{field}') for field in ('alpha', 'dim'))
  texts = [
    usual if text in (None, '', 'None') else text
    for text, usual in ((alpha, '0'), (rank, str(of_tensors)))
  ]
  numbers = math.nan, 0.0
  with contextlib.suppress(ValueError):
    numbers = number_in(texts[0]), number_in(texts[1])
  if not (all(map(is_number, numbers)) and numbers[1] > 0):
    raise ConfigError(
      f'{what} has ss_network_alpha = {alpha!r:.60} and ss_network_dim = {rank!r:.60}; expected '
      'finite numbers and a rank above 0'
    )
  if numbers[1] != of_tensors:
    raise ConfigError(
      f'{what} has ss_network_dim = {rank}, and tensors of rank {of_tensors} without an alpha of '
      'their own; expected the same rank'
    )
  return numbers[0] / numbers[1] or 1.0  # kohya's alpha of 0 stands for the rank


def _pair(
  place: Place, parts: Mapping[str, np.ndarray], scale: float, kernel: Any, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns A (in, r) and B (r, out) with A B = W' - W; a convolution's window comes first in A."""
  with np.errstate(all='ignore'):  # what is not finite is refused below
    a = to_ours(place.row, parts['A']) * np.float32(scale)
    b = parts['B'].reshape(len(parts['B']), -1).T
    if 'magnitude' in parts:
      w = np.asarray(kernel if place.layer is None else kernel[place.layer], np.float64)
      a, b = _dora(w, a, b, parts['magnitude'], f'{name} of {place.parameter}')
    is_finite = is_finite_change([(a, b)])
  if not is_finite:
    raise ConfigError(
      f'{name} changes {place.parameter} by no finite number, {scale:g} times B A; expected '
      'smaller factors or alpha, and for DoRA no output that is 0'
    )
  return a, b


def _dora(
  w: np.ndarray, a: np.ndarray, b: np.ndarray, magnitude: np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns W' - W and 1, with W' = m V / |V| and V = W + A B."""
  v = w + np.tensordot(a.astype(np.float64), b.astype(np.float64), 1)
  # Of inputs or outputs; peft's m has one axis here.
  own = v.ndim - (2 if magnitude.ndim > 1 and len(magnitude) != v.shape[-1] else 1)
  norm = np.linalg.norm(np.moveaxis(v, own, 0).reshape(v.shape[own], -1), axis=1)
  if magnitude.size != norm.size:
    raise ConfigError(
      f'{what} is of another model: a magnitude of shape {magnitude.shape}, a kernel of {w.shape}'
    )
  factor = np.moveaxis((magnitude.ravel() / norm).reshape(-1, *[1] * (v.ndim - 1)), 0, own)
  return (v * factor - w).astype(np.float32), np.eye(v.shape[-1], dtype=np.float32)


def _stacked(
  layers: Mapping[str, Mapping[int | None, tuple[np.ndarray, np.ndarray]]],
  counts: Mapping[str, int],
) -> dict[str, np.ndarray]:
  """Returns leaves of ours; layers of a stack that a file does not have get zeros."""
  leaves = {}
  for kernel, own in layers.items():
    a, b = next(iter(own.values()))
    rank = max(len(b) for _, b in own.values())
    many = () if None in own else (counts[kernel],)
    firsts = np.zeros((*many, *a.shape[:-1], rank), np.float32)
    seconds = np.zeros((*many, rank, b.shape[-1]), np.float32)
    for layer, (a, b) in own.items():
      at = ... if layer is None else layer
      firsts[at][..., : len(b)] = a
      seconds[at][: len(b)] = b
    leaves |= {f'{kernel}/{LORA_A}': firsts, f'{kernel}/{LORA_B}': seconds}
  return leaves


def _stacked_differences(changes: Mapping[Place, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns leaves of ours; layers of a stack that a file does not have get zeros."""
  leaves: dict[str, np.ndarray] = {}
  for place, change in changes.items():
    name = f'{place.parameter}/{DIFFERENCE}'
    leaf = leaves.setdefault(name, np.zeros(place.shape, np.float32))
    leaf[... if place.layer is None else place.layer] = to_ours(place.row, change)
  return leaves


def _scaled(adapters: Tree, scale: float) -> Tree:
  leaves = named_leaves(adapters)
  return nest(
    {name: leaf * scale if name.endswith(LORA_A) else leaf for name, leaf in leaves.items()}
  )
