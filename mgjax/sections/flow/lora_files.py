"""Files of adapters by the names that other projects read: PEFT and diffusers, ComfyUI, kohya.

A kernel of ours, 'backbone/layers/self_attention/query/kernel' of a stack, is the linear map
'backbone.layers.3.self_attention.query' of its layer 3 there, whose adapters are two tensors in
PyTorch's order, A (r, in) and B (out, r), of a convolution (r, in, h, w) and (out, r, 1, 1):

  peft      base_model.model.<map>.lora_A.weight, .lora_B.weight, and adapter_config.json
  comfyui   diffusion_model.<map>.lora_A.weight, .lora_B.weight, .alpha
  kohya     lora_unet_<map with _ for .>.lora_down.weight, .lora_up.weight, .alpha

All are read, and diffusers' `transformer.<map>` as well, whose files hold peft's settings under
each of their prefixes in `lora_adapter_metadata`. They count alpha / r times, alpha / sqrt(r) where
settings have use_rslora; a file without alpha counts once. Of a model that other projects have, as
CLIP, maps go by their names, and those of its text tower begin with lora_te_ in kohya's files; both
names are read.
"""

import datetime
import functools
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from mgjax.core.errors import ConfigError
from mgjax.core.files import parse_json, read_json, write_bytes, write_json
from mgjax.core.precision import LORA_A, LORA_B
from mgjax.core.safetensors_files import open_tensors, read_tensors
from mgjax.core.tree import named_leaves, nest
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.names import LAYER
from mgjax.nn.lora import LAYERS, Lora, check_fits, lora_settings, pairs, shapes_of
from mgjax.training.checkpoints.find_run import find_run
from mgjax.training.checkpoints.workdir import load_adapters, read_config

FORMS = ('peft', 'comfyui', 'kohya')
_PREFIXES = {'peft': 'base_model.model.', 'comfyui': 'diffusion_model.', 'kohya': 'lora_unet_'}
_TEXT = 'lora_te_'
_READ = (*_PREFIXES.values(), _TEXT, 'transformer.', '')
_CONFIG = 'adapter_config.json'
_WEIGHTS = 'adapter_model.safetensors'
_METADATA = 'lora_adapter_metadata'  # of diffusers since 0.34
_OTHERS = ('use_dora', 'layer_replication', 'use_qalora')  # of peft, that add other things than A B
_PATTERNS = (('rank_pattern', 'r'), ('alpha_pattern', 'lora_alpha'))
_PLAIN = (None, True, False, 'gaussian', 'eva', 'orthogonal')  # others change the base model, too
_A = ('.lora_A.weight', '.lora_A.default.weight', '.lora_down.weight')
_B = ('.lora_B.weight', '.lora_B.default.weight', '.lora_up.weight')
_ALPHA = '.alpha'
_Settings = Mapping[str, Any]  # of adapters, as peft's LoraConfig names them


class _Map(NamedTuple):
  """A linear map of another project: the kernel of ours, its layer in a stack, its axes."""

  kernel: str
  layer: int | None
  shape: tuple[int, ...]


def write_adapters(
  out: pathlib.Path,
  adapters: Tree,
  settings: Lora,
  form: str,
  *,
  component: str,
  base: str,
  title: str,
  maps: Mapping[str, str] = {},
) -> None:
  """Writes adapters: 'peft' a folder, the others a .safetensors file.

  Args:
    component: of the model, and `base` its name, for the metadata.
    title: of the adapters.
    maps: other projects' names of kernels, as `WeightFormat.maps`.

  Raises:
    ConfigError: there is no such format, or `out` is not what it wants.
  """
  if form not in FORMS:
    raise ConfigError(f'there is no format {form!r} of adapters; expected {", ".join(FORMS)}')
  folder = form == 'peft'
  if folder != (out.suffix != '.safetensors') or out.is_dir() != (folder and out.exists()):
    wanted = 'a folder' if folder else 'a .safetensors file'
    raise ConfigError(f'--out={out}: expected {wanted} for the format {form!r}')
  alpha = settings.alpha or float(settings.rank)
  tensors: dict[str, np.ndarray] = {}
  modules = set()
  down, up = ('.lora_down.weight', '.lora_up.weight') if form == 'kohya' else (_A[0], _B[0])
  for kernel, (a, b) in pairs(adapters).items():
    stacked = b.ndim == 3
    for layer in range(len(b)) if stacked else (None,):
      name = _dotted(kernel, layer, maps)
      modules.add(name)
      key = _PREFIXES[form] + name
      if form == 'kohya':
        text = kernel in maps and name.startswith('text_')
        key = (_TEXT if text else _PREFIXES[form]) + name.replace('.', '_')
      first, second = (np.asarray(each if layer is None else each[layer]) for each in (a, b))
      tensors[key + down] = _theirs(first)
      tensors[key + up] = _up(second, first.ndim)
      if not folder:
        tensors[key + _ALPHA] = np.array(alpha, np.float32)
  metadata = {
    'format': 'pt',
    'modelspec.sai_model_spec': '1.0.0',
    'modelspec.architecture': f'mgjax-{component}/lora',
    'modelspec.title': title,
    'modelspec.date': datetime.date.today().isoformat(),
    'ss_network_dim': str(settings.rank),
    'ss_network_alpha': f'{alpha:g}',
    'ss_base_model_version': base,
  }
  if folder:
    config = {
      'peft_type': 'LORA',
      'r': settings.rank,
      'lora_alpha': alpha,
      'bias': 'none',
      'target_modules': sorted(modules),
      'base_model_name_or_path': base,
      'lora_dropout': settings.dropout,
      'fan_in_fan_out': False,
      'inference_mode': True,
    }
    write_json(out / _CONFIG, config)
  write_bytes(out / _WEIGHTS if folder else out, save(tensors, metadata))


def read_adapters(path: str | os.PathLike[str], base: Tree, maps: Mapping[str, str] = {}) -> Tree:
  """Reads adapters for a model with the parameters `base`, with alpha / r in A.

  Args:
    path: a file or a folder of one of the formats, or the work directory of a run of adapters.
    maps: as of `write_adapters`.

  Raises:
    ConfigError: there are none, or keys do not fit the model; they are named.
  """
  where = pathlib.Path(find_run(path))
  if (where / 'config.json').exists():
    adapters, _ = load_adapters(where)
    check_fits(adapters, base, repr(os.fspath(path)))
    return _scaled(adapters, lora_settings(read_config(where).to_dict()).scale)
  file = where / _WEIGHTS if where.is_dir() else where
  if where.is_dir() and not file.exists():
    raise ConfigError(f'{os.fspath(path)!r} has neither config.json of a run nor {_WEIGHTS}')
  tensors, metadata = read_tensors(file)
  known = _maps(base, maps)
  described = _described(where, metadata)
  found = {}
  unknown = []
  scales = {}
  for key, tensor in tensors.items():
    prefix = max((each for each in described if key.startswith(each)), key=len, default='')
    module, suffix = _split(key.removeprefix(prefix))
    if not suffix or module not in known:
      unknown.append(key)
    elif suffix in found.setdefault(place := known[module], {}):
      raise ConfigError(
        f'{os.fspath(path)!r} has {suffix} of {module} twice, once as {key}; delete one of them'
      )
    else:
      found[place][suffix] = tensor
      scales[place] = functools.partial(_scale, described.get(prefix), module, metadata)
  if unknown or not found:
    raise ConfigError(
      f'{os.fspath(path)!r} is of another model: {len(unknown)} of its {len(tensors)} keys do not '
      f'fit, as {", ".join(sorted(unknown)[:4])}; this one has maps such as {next(iter(known))!r}'
    )
  try:
    return nest(_stacked(path, found, scales))
  except (KeyError, TypeError, ValueError, ArithmeticError) as error:
    raise ConfigError(
      f'{os.fspath(path)!r}: {type(error).__name__}: {error}; expected numbers r and lora_alpha '
      'or alpha, and pairs of matrices'
    ) from error


def are_adapters(path: str | os.PathLike[str]) -> bool:
  """Says whether a file or folder of another project holds adapters."""
  where = pathlib.Path(path)
  if where.is_dir():
    return (where / _WEIGHTS).exists()
  if where.suffix != '.safetensors':
    return False
  with open_tensors(where) as file:
    return any(_split(key)[1] in ('A', 'B') for key in file.names)


def _stacked(
  path: Any,
  found: Mapping[_Map, Mapping[str, np.ndarray]],
  scales: Mapping[_Map, Callable[[int, float | None], float]],
) -> Tree:
  """Returns leaves of ours; layers of a stack that a file does not have get zeros."""
  layers: dict[str, dict[int | None, tuple[np.ndarray, np.ndarray]]] = {}
  for place, parts in found.items():
    if not {'A', 'B'} <= parts.keys():
      raise ConfigError(f'{os.fspath(path)!r} has one of A and B alone for {place.kernel}')
    arrays = (np.asarray(parts[name], np.float32) for name in 'AB')
    a, b = (np.moveaxis(array, (0, 1), (-1, -2)) for array in arrays)
    b = b.reshape(b.shape[-2:])
    shape = place.shape if place.layer is None else place.shape[1:]
    if (*a.shape[:-1], b.shape[-1]) != shape or a.shape[-1] != len(b):
      raise ConfigError(
        f'{os.fspath(path)!r} is of another model: A {parts["A"].shape} and B {parts["B"].shape} '
        f'of {place.kernel}, whose kernel is {shape}'
      )
    own = parts['alpha'].item() if 'alpha' in parts else None
    try:
      scale = scales[place](len(b), own)
    except ConfigError as error:
      raise ConfigError(f'{os.fspath(path)!r}: {error}') from error
    with np.errstate(over='ignore', invalid='ignore'):
      a = a * np.float32(scale)
    if not np.isfinite(a).all():
      raise ConfigError(
        f'{os.fspath(path)!r}: alpha makes {place.kernel} count {scale:g} times; expected a finite '
        'number'
      )
    layers.setdefault(place.kernel, {})[place.layer] = a, b
  counts = {place.kernel: place.shape[0] for place in found}
  leaves = {}
  for kernel, own in layers.items():
    rank = max(len(b) for _, b in own.values())
    a, b = next(iter(own.values()))
    like = np.zeros((*a.shape[:-1], rank), np.float32), np.zeros((rank, b.shape[-1]), np.float32)
    if None in own:
      leaves[f'{kernel}/{LORA_A}'], leaves[f'{kernel}/{LORA_B}'] = own[None]
      continue
    filled = [_padded(*own[i], rank) if i in own else like for i in range(counts[kernel])]
    for name, several in zip((LORA_A, LORA_B), zip(*filled, strict=True), strict=True):
      leaves[f'{kernel}/{name}'] = np.stack(several)
  return leaves


def _padded(a: np.ndarray, b: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
  more = rank - len(b)
  return np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, more)]), np.pad(b, [(0, more), (0, 0)])


def _maps(base: Tree, theirs: Mapping[str, str]) -> dict[str, _Map]:
  """Returns the names of linear maps, with dots or underscores, of the kernels of a model."""
  maps = {}
  for name, shape in shapes_of(base).items():
    if name.endswith('/kernel'):
      stacked = LAYERS in name.split('/')
      for layer in range(shape[0]) if stacked else (None,):
        for dotted in (_dotted(name, layer, theirs), _dotted(name, layer)):
          maps[dotted] = maps[dotted.replace('.', '_')] = _Map(name, layer, shape)
  return maps


def _dotted(kernel: str, layer: int | None, theirs: Mapping[str, str] = {}) -> str:
  if kernel in theirs:
    return theirs[kernel].replace(LAYER, str(layer))
  parts = kernel.removesuffix('/kernel').split('/')
  if layer is not None:
    parts.insert(parts.index(LAYERS) + 1, str(layer))
  return '.'.join(parts)


def _split(key: str) -> tuple[str, str]:
  """Returns the map of a tensor and 'A', 'B' or 'alpha'; '' where it is none of these."""
  for which, suffixes in (('A', _A), ('B', _B), ('alpha', (_ALPHA,))):
    for suffix in suffixes:
      if key.endswith(suffix):
        name = key.removesuffix(suffix)
        prefix = next(each for each in _READ if name.startswith(each))
        return name.removeprefix(prefix), which
  return key, ''


def _described(where: pathlib.Path, metadata: Mapping[str, str]) -> dict[str, _Settings]:
  """Returns peft's settings of adapters by the prefix of the keys that they are of."""
  found: dict[str, dict[str, Any]] = {}
  if where.is_dir() and (where / _CONFIG).exists():
    name = repr(os.fspath(where / _CONFIG))
    found[''] = read_json(where / _CONFIG)
  else:
    name = f'{_METADATA} of {os.fspath(where)!r}'
    text = metadata.get(_METADATA, '{}')
    said = parse_json(text, name, error=ConfigError, mend='save the adapters again')
    for key, value in said.items():
      prefix, dot, field = key.rpartition('.')
      found.setdefault(prefix + dot, {})[field] = value
  for settings in found.values():
    if other := [each for each in _OTHERS if settings.get(each)]:
      raise ConfigError(f'{name} has {other[0]}, which is not read')
    if (start := settings.get('init_lora_weights')) not in _PLAIN:
      raise ConfigError(
        f'{name} has init_lora_weights = {start!r}, which changes the base model too; save the '
        'adapters with path_initial_model_for_weight_conversion, which makes them plain ones'
      )
  return found


def _scale(
  described: _Settings | None,
  module: str,
  metadata: Mapping[str, str],
  rank: int,
  own: float | None,
) -> float:
  """Returns how many times adapters of a map count, whose own alpha the file may have."""
  if described is not None:
    r, alpha = (_of_map(described, *names, module) for names in _PATTERNS)
    if r != rank:
      raise ConfigError(f'r = {r!r} of {module}, whose A has rank {rank}; expected the same')
    if own is not None and own != alpha:
      raise ConfigError(
        f'lora_alpha = {alpha!r} of {module}, whose own alpha is {own:g}; delete one of them'
      )
    return float(alpha) / (math.sqrt(rank) if described.get('use_rslora') else rank)
  if own is not None:
    return own / rank
  if _METADATA in metadata:
    raise ConfigError(
      f'{_METADATA} does not describe {module}; expected r and lora_alpha with the prefix of its '
      'keys, as transformer.r'
    )
  try:
    return float(metadata['ss_network_alpha']) / float(metadata['ss_network_dim']) or 1.0
  except (KeyError, ValueError, ZeroDivisionError):
    return 1.0


def _of_map(described: _Settings, pattern: str, field: str, module: str) -> Any:
  """Returns what the first pattern that fits a map says, or else what holds for all maps.

  A pattern of peft is a regular expression that fits the end of a name, from a dot on. Here it is
  a plain name: matching an expression from an untrusted file could take exponential time.
  """
  for name, value in dict(described.get(pattern) or {}).items():
    literal = name.removeprefix('^')
    if not re.fullmatch(r'[\w.-]+', literal):
      raise ConfigError(
        f'{pattern} has the regular expression {name!r}; expected names of maps, as {module!r}'
      )
    if module == literal or (name == literal and module.endswith(f'.{literal}')):
      return value
  return described[field]


def _theirs(array: np.ndarray) -> np.ndarray:
  """Returns (in, out), or (h, w, in, out), as PyTorch's (out, in, h, w)."""
  return np.ascontiguousarray(np.moveaxis(array.astype(np.float32), (-1, -2), (0, 1)))


def _up(array: np.ndarray, axes: int) -> np.ndarray:
  made = _theirs(array)
  return made.reshape(*made.shape, *[1] * (axes - 2))


def _scaled(adapters: Tree, scale: float) -> Tree:
  leaves = named_leaves(adapters)
  return nest(
    {name: leaf * scale if name.endswith(LORA_A) else leaf for name, leaf in leaves.items()}
  )
