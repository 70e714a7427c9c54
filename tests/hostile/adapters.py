"""Files of adapters, whole and damaged, and a second reader that says what they mean.

python tests/hostile/adapters.py place   # in the folder of a try
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save

from mgjax.core.errors import MgjaxError
from mgjax.core.tree import nest
from mgjax.nn.lora import pairs
from mgjax.sections.flow.lora_files import read_adapters, words_of_adapters

SHAPES = {
  'backbone/layers/attention/query/kernel': (2, 8, 6),
  'head/kernel': (8, 4),
  'patch/kernel': (2, 3, 5, 8),
}
MAPS = ('backbone.layers.0.attention.query', 'backbone.layers.1.attention.query', 'head', 'patch')
SETTINGS = {
  'peft_type': 'LORA',
  'r': 4,
  'lora_alpha': 7,
  'use_rslora': True,
  'rank_pattern': {'head': 2},
  'alpha_pattern': {r'layers\.\d+\.attention\.(query|key)': 3, '^patch': 5.5},
  'target_modules': ['query', 'head', 'patch'],
  'layers_to_transform': None,
  'exclude_modules': None,
  'init_lora_weights': True,
  'use_dora': False,
  'bias': 'none',
  'modules_to_save': None,
  'fan_in_fan_out': False,
  'lora_dropout': 0.1,
}
_TYPES = {
  **{f'F{bits}': np.dtype(f'f{bits // 8}') for bits in (16, 32, 64)},
  **{
    f'{kind}{bits}': np.dtype(f'{kind.lower()}{bits // 8}')
    for kind in 'IU'
    for bits in (8, 16, 32, 64)
  },
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
  'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
  'F8_E4M3FNUZ': np.dtype(ml_dtypes.float8_e4m3fnuz),
  'F8_E5M2FNUZ': np.dtype(ml_dtypes.float8_e5m2fnuz),
  'F8_E8M0': np.dtype(ml_dtypes.float8_e8m0fnu),
}


class Silent(AssertionError):
  """A reader gave an answer that cannot be right, and said nothing."""


def base() -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)
  return {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def place_of(module: str) -> tuple[str, Any]:
  name = re.sub(r'layers\.\d+', 'layers', module).replace('.', '/') + '/kernel'
  return name, int(module.split('.')[2]) if '.layers.' in module else ...


def _tensors(form: str, suffixes: tuple[str, str], dtype: Any) -> dict[str, np.ndarray]:
  random, found = np.random.default_rng(1), {}
  for module in MAPS:
    name, layer = place_of(module)
    *window, inputs, outputs = base()[name][layer].shape
    rank = 2 if module == 'head' else 4
    a, b = (rank, inputs, *window), (outputs, rank, *[1] * len(window))
    flat = module.replace('.', '_') if form.endswith('_') else module
    for suffix, shape in zip(suffixes, (a, b), strict=True):
      found[form + flat + suffix] = random.normal(size=shape).astype(dtype)
  return found


def make_peft(folder: Path) -> Path:
  tensors = _tensors('base_model.model.', ('.lora_A.weight', '.lora_B.weight'), ml_dtypes.bfloat16)
  place = folder / 'style'
  place.mkdir(parents=True)
  (place / 'adapter_model.safetensors').write_bytes(save(tensors, {'format': 'pt'}))
  (place / 'adapter_config.json').write_text(json.dumps(SETTINGS, indent=2))
  return place


def make_diffusers(folder: Path) -> Path:
  tensors = _tensors('transformer.', ('.lora_A.weight', '.lora_B.weight'), np.float32)
  for module in MAPS:
    outputs = base()[place_of(module)[0]].shape[-1]
    magnitude = np.linspace(0.5, 2, outputs, dtype=np.float32)
    tensors[f'transformer.{module}.lora_magnitude_vector'] = magnitude
  said = {f'transformer.{field}': value for field, value in SETTINGS.items()}
  said['transformer.use_dora'] = True
  metadata = {'format': 'pt', 'lora_adapter_metadata': json.dumps(said)}
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'style.safetensors').write_bytes(save(tensors, metadata))
  return folder / 'style.safetensors'


def make_kohya(folder: Path) -> Path:
  tensors = _tensors(
    'lora_unet_', ('.lora_down.weight', '.lora_up.weight'), ml_dtypes.float8_e4m3fn
  )
  names = [key.removesuffix('.lora_up.weight') for key in tensors if key.endswith('up.weight')]
  alphas = [np.array(3, np.float32), np.array([5], ml_dtypes.bfloat16), np.array(2)]
  tensors |= {f'{name}.alpha': each for name, each in zip(names, alphas, strict=False)}
  metadata = {'ss_network_alpha': '7', 'ss_network_dim': '4', 'mgjax.words': '["a", "b"]'}
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'style.safetensors').write_bytes(save(tensors, metadata))
  return folder / 'style.safetensors'


def damage_tensors(data: bytes, draw: Any) -> bytes:
  """Drops, renames, repeats, reshapes, empties or spoils a tensor, or adds one of another kind."""
  header, found = _parse(data)
  key = draw.pick(sorted(found))
  one = found.pop(key)
  text = key.rpartition('.lora_')[0]
  others = (
    *('.hada_w1_a', '.lokr_w1', '.diff', '.diff_b', '.oft_R.weight', '.lora_mid.weight', '.bias'),
    *('.lora_magnitude_vector', '.dora_scale', '.alpha', '.lora_A', '.lora_C', '.weight', ''),
  )
  prefixes = ('', 'unet.', 'model.diffusion_model.', 'lora_te_', 'controlnet.', '../', '\x1b[31m')
  row = np.atleast_1d(one)
  shapes = (one[None], one.T, row.ravel(), row[..., :1], row[:0], row[:1], np.repeat(row, 3, 0))
  types = ('f2', 'f4', 'f8', 'i4', '?', 'c8', 'float8_e5m2', 'float8_e4m3fnuz', 'bfloat16')
  value = draw.pick((np.nan, np.inf, -np.inf, 0, 3e4))
  kinds = {
    'drop': dict,
    'prefix': lambda: {draw.pick(prefixes) + key.partition('.')[2]: one},
    'again': lambda: {key: one, draw.pick(prefixes) + key.partition('.')[2]: one},
    'layer': lambda: {key.replace('0', draw.pick(('7', '-1', '00', '9' * 99)), 1): one},
    'kind': lambda: {key: one, text + draw.pick(others): one[0] if one.ndim else one},
    'shape': lambda: {key: draw.pick(shapes)},
    'type': lambda: {key: one.astype(draw.pick(types))},
    'value': lambda: {key: np.full_like(one, value)},
    'alpha': lambda: {key: one, f'{text}.alpha': np.full((1,) * draw.number(3), value, 'f4')},
  }
  with np.errstate(all='ignore'):
    found |= kinds[draw.pick(sorted(kinds))]()
  whole = {key: np.ascontiguousarray(each) for key, each in found.items()}
  return save(whole, header.get('__metadata__'))


def said_in(data: bytes) -> bytes:
  return _parse(data)[0]['__metadata__']['lora_adapter_metadata'].encode()


def with_said(data: bytes, said: bytes) -> bytes:
  header, found = _parse(data)
  metadata = header['__metadata__'] | {'lora_adapter_metadata': said.decode(errors='replace')}
  return save(found, metadata)


def _parse(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Reads a file as the format's page has it, without the library."""
  size = 8 + int.from_bytes(data[:8], 'little')
  header, found = json.loads(data[8:size]), {}
  for key, about in header.items():
    if key != '__metadata__':
      first, last = about['data_offsets']
      array = np.frombuffer(data[size + first : size + last], _TYPES[about['dtype']])
      found[key] = array.reshape(about['shape'])
  return header, found


def check(path: Path) -> None:
  """Reads adapters; raises Silent unless they change the model as a second reader says."""
  parameters = base()
  adapters = pairs(read_adapters(path, nest(parameters)))
  words_of_adapters(path)
  for name, (a, b) in adapters.items():
    stacked = b.ndim == 3
    for layer in range(len(b)) if stacked else (...,):
      parameters[name][layer] += np.tensordot(a[layer], b[layer], 1)
  try:
    wanted = meant(path)
  except Exception as error:
    raise Silent(f'was read, and a second reader says {error!r:.200}') from error
  for name, kernel in wanted.items():
    most = np.abs(kernel).max()
    if not np.abs(parameters[name] - kernel).max() <= 1e-4 * max(most, 1):
      raise Silent(f'{name} is another one than a second reader says')


def meant(path: Path) -> dict[str, np.ndarray]:
  """Returns the kernels W + s B A, or m V / |V| of V = W + s B A, in float64."""
  file = path / 'adapter_model.safetensors' if path.is_dir() else path
  header, tensors = _parse(file.read_bytes())
  metadata = header.get('__metadata__') or {}
  beside = file.with_name('adapter_config.json')
  settings = json.loads(beside.read_text()) if beside.exists() else None
  if said := metadata.get('lora_adapter_metadata'):
    fields = json.loads(said).items()
    settings = {key.removeprefix('transformer.'): value for key, value in fields} or None
  kernels = {name: kernel.astype(np.float64) for name, kernel in base().items()}
  used: set[str] = set()
  for module in MAPS:
    parts = dict(_parts(module, tensors))
    if not parts:
      continue
    used |= {key for key, _ in parts.values()}
    a, b = (parts[role][1].astype(np.float64) for role in 'AB')
    alpha = parts['alpha'][1].astype(np.float64).item() if 'alpha' in parts else None
    scale = _scale(module, settings, metadata, len(a), alpha)
    name, layer = place_of(module)
    w = np.moveaxis(kernels[name][layer], (-1, -2), (0, 1))
    v = w + scale * np.tensordot(b.reshape(len(b), -1), a, 1).reshape(w.shape)
    if 'm' in parts:
      norm = np.sqrt((v**2).sum(tuple(range(1, v.ndim)), keepdims=True))
      v = v * parts['m'][1].astype(np.float64).reshape(norm.shape) / norm
    kernels[name][layer] = np.moveaxis(v, (0, 1), (-1, -2))
  if used != tensors.keys():
    raise ValueError(f'{sorted(tensors.keys() - used)[:3]} are of no map')
  return kernels


_ROLES = {
  'A': r'\.lora_(A|down)(\.(?!weight\w|bias).+)?$',
  'B': r'\.lora_(B|up)(\.(?!weight\w|bias).+)?$',
  'm': r'\.(lora_magnitude_vector|dora_scale)(\..+)?$',
  'alpha': r'\.alpha$',
}


def _parts(
  module: str, tensors: dict[str, np.ndarray]
) -> Iterator[tuple[str, tuple[str, np.ndarray]]]:
  for key, tensor in tensors.items():
    for role, suffix in _ROLES.items():
      if found := re.search(suffix, key):
        text = key[: found.start()]
        if re.search(rf'(^|[._]){module.replace(".", "[._]")}$', text):
          yield role, (key, tensor)


def _scale(
  module: str, settings: Any, metadata: dict[str, str], rank: int, alpha: float | None
) -> float:
  if settings is None:
    if alpha is not None:
      return alpha / rank
    said = [metadata.get(f'ss_network_{name}', 'None') for name in ('alpha', 'dim')]
    return 1 if 'None' in said else float(said[0]) / float(said[1]) or 1
  found = {}
  for pattern, field in (('rank_pattern', 'r'), ('alpha_pattern', 'lora_alpha')):
    several = settings.get(pattern) or {}
    fits = [value for key, value in several.items() if re.match(rf'(.*\.)?({key})$', module)]
    found[field] = fits[0] if fits else settings[field]
  if found['r'] != rank or (alpha is not None and alpha != found['lora_alpha']):
    raise ValueError(f'{found} of {module}')
  return found['lora_alpha'] / (math.sqrt(rank) if settings.get('use_rslora') else rank)


if __name__ == '__main__':
  try:
    check(Path(sys.argv[1]))
  except MgjaxError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
  print('read')
