"""Weights of other projects and our own exported ones: imported whole, or refused in a sentence."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save, save_file

from configs.audio import codec as codec_config
from configs.tae import tae as tae_config
from configs.text import metaclip_text, metaclip_vision, t5_base
from mgjax.audio.codec.weights import SIDES
from mgjax.checkpoints.workdir import load_params, read_config
from mgjax.core.tree import named_leaves
from mgjax.core.weights.tensors import Tensors, read_metadata
from mgjax.flow_models.build import make_flow_model
from mgjax.flow_models.conditions import small_inputs
from mgjax.registry import section
from mgjax.tae.perceptual import read_perceptual, widths_of
from mgjax.text.t5_weights import t5_config
from mgjax.workflows.weights import export_weights, import_weights
from tests import tiny
from tests.audio.codec.test_weights import drawn, of_transformers
from tests.clip.vectors import tensors_of, vectors
from tests.hostile.family import Family, Silent
from tests.hostile.mutations import STRANGE, Rng, mutate_bytes, mutate_json, mutate_value, pick
from tests.oracles import image_autoencoder as image_oracle
from tests.oracles import t5 as t5_oracle
from tests.oracles.perceptual import draw_vgg
from tests.random_parameters import random_parameters

WEIGHTS = 'model.safetensors'
REST = {'buckets': 32, 'distance': 128, 'bias_in_every_layer': False, 'epsilon': 1e-6}
NUMBERS = (0, 1, 7, 10**4, 10**9, '9' * 5000, '٣', '-1', '00')  # of a layer, in a tensor's name


def _folder(place: Path, config: Mapping[str, Any], tensors: Tensors, name: str = WEIGHTS) -> Path:
  place.mkdir()
  (place / 'config.json').write_text(json.dumps(config))
  save_file(tensors, place / name)
  return place


def _in_two(folder: Path) -> None:
  """Splits a folder's file into two with an index."""
  tensors = load_file(folder / WEIGHTS)
  (folder / WEIGHTS).unlink()
  where = {name: f'model-{index % 2}.safetensors' for index, name in enumerate(tensors)}
  for file in sorted(set(where.values())):
    save_file({name: tensors[name] for name in tensors if where[name] == file}, folder / file)
  (folder / f'{WEIGHTS}.index.json').write_text(json.dumps({'weight_map': where}))


def _image_seeds(place: Path) -> list[Path]:
  found = []
  with np.load(image_oracle.VECTORS) as file:
    for name in image_oracle.MODELS:
      about = json.loads(str(file[f'{name}/about']))
      tensors = {key: image_oracle.draw(key, tuple(s)) for key, s in about['shapes'].items()}
      file_name = 'diffusion_pytorch_model.safetensors'
      found.append(_folder(place / name, about['config'], tensors, file_name))
  return found


def _encoder_seeds(place: Path) -> list[Path]:
  found = []
  with np.load(t5_oracle.VECTORS) as file:
    for name in ('t5_1_1', 'umt5'):
      sizes = t5_oracle.MODELS[name]
      about = json.loads(str(file[f'{name}/shapes']))
      tensors = {
        key: t5_oracle.draw(key, tuple(shape), sizes['head_size']) for key, shape in about.items()
      }
      found.append(_folder(place / f't5_{name}', t5_config(REST | sizes), tensors))
  for tower in ('text', 'vision'):
    config = vectors(tower, 'metaclip')['config']
    found.append(_folder(place / f'clip_{tower}', config, tensors_of(tower, 'metaclip')))
  _in_two(found[0])
  return found


def _codec_seeds(place: Path) -> list[Path]:
  every = {'published': drawn()} | {side: of_transformers(side) for side in SIDES}
  for name, tensors in every.items():
    save_file(tensors, place / f'{name}.safetensors')
  return [place / f'{name}.safetensors' for name in every]


def _perceptual_seeds(place: Path) -> list[Path]:
  widths = (4, 5, 6, 7, 8)
  linear = {
    f'lin{k}.model.1.weight': np.ones((1, w, 1, 1), np.float32) for k, w in enumerate(widths)
  }
  save_file(draw_vgg(widths, 0) | linear, place / 'lpips.safetensors')
  return [place / 'lpips.safetensors']


def _own_seeds(place: Path) -> list[Path]:
  found = []
  for number, source in enumerate([*_image_seeds(place)[:1], *_encoder_seeds(place)[1:3]]):
    config = _config_of(source)
    if number == 1:  # its tokenizer goes along
      from tests.text.test_tokenizer_folder import write_json

      write_json(source / 'tokenizer.json')
    import_weights(config, source, place / f'run{number}')
    found.append(place / f'{config.component}.safetensors')
    export_weights(place / f'run{number}', found[-1])
  config = tiny.video(place)
  latents = {'mean': [0.5, -1.0, 0.0, 2.0], 'std': [1.0, 2.0, 0.5, 1.5]}
  model = make_flow_model(config.model.to_dict())
  params = named_leaves(random_parameters(model.init, *small_inputs(model, 4)))
  header = {'component': 'video', 'model': config.model.to_dict(), 'latents': latents, 'step': 7,
            'version': '0.2', 'encoders': {}}  # fmt: skip
  found.append(place / 'video.safetensors')
  found[-1].write_bytes(save(params, {'mgjax': json.dumps(header)}))
  return found


def _config_of(path: Path) -> ConfigDict:
  """Returns the configuration by which a seed is imported, known by its name."""
  name = path.name
  if name.startswith(('t5', 'clip')):
    module = {'t5': t5_base, 'clip_text': metaclip_text, 'clip_vision': metaclip_vision}
    return next(each for key, each in module.items() if name.startswith(key)).get_config()
  if name.startswith('video'):
    return tiny.video(path.parent)
  if path.suffix == '.safetensors' and not name.startswith('autoencoder'):
    config = codec_config.get_config()
    config.model.update(width=2, strides=(2, 4), latent_channels=3, decoder_width=8)
    return config
  return tae_config.get_config()


def mutate_tensors(tensors: Tensors, rng: Rng) -> Tensors:
  """Drops, adds, renames, reshapes, empties or spoils some tensors."""
  changed = dict(tensors)
  for _ in range(int(rng.geometric(0.6))):
    if not changed:
      break
    name = pick(rng, list(changed))
    tensor = changed[name]
    match pick(rng, ('drop', 'name', 'layer', 'layer', 'more', 'shape', 'empty', 'empties', 'grow',
                     'spoil', 'type', 'swap', 'only')):  # fmt: skip
      case 'drop':
        del changed[name]
      case 'name':
        changed[
          pick(rng, ('', 'x', name + '.', '\x1b[31m' + name, 'a' * 5000, '__metadata__x'))
        ] = changed.pop(name)
      case 'layer' | 'more' as how:
        numbers = [*re.finditer(r'\d+', name)]
        if numbers:
          match = pick(rng, numbers)
          other = f'{name[: match.start()]}{pick(rng, NUMBERS)}{name[match.end() :]}'
          changed[other] = changed.pop(name) if how == 'layer' else tensor
      case 'shape':
        flat = tensor.ravel()
        options = (flat, tensor[None], tensor.T, flat[:, None], flat[:1], np.float32(1).reshape(()))
        changed[name] = np.ascontiguousarray(pick(rng, (*options, tensor[..., None, None])))
      case 'empty':
        shape = list(tensor.shape) or [1]
        shape[int(rng.integers(len(shape)))] = pick(rng, (10**9, 2**40, 2**31))
        shape[int(rng.integers(len(shape)))] = 0
        changed[name] = np.zeros(shape, np.float32)
      case 'empties':  # all of one kind, as if nothing had any size
        end = name.rpartition('.')[2]
        for each in [each for each in changed if each.endswith(end)]:
          changed[each] = np.zeros((0, *changed[each].shape[1:]), np.float32)
      case 'grow':
        axis = int(rng.integers(max(tensor.ndim, 1)))
        if tensor.ndim and tensor.size < 10**6:
          changed[name] = np.repeat(tensor, int(pick(rng, (2, 3, 100))), axis)
      case 'spoil' if tensor.size:
        changed[name] = tensor.astype(pick(rng, ('float32', 'float64')))
        with np.errstate(all='ignore'):
          changed[name].flat[int(rng.integers(tensor.size))] = pick(
            rng, (np.nan, np.inf, 1e300, -1e39)
          )
      case 'type':
        kind = pick(rng, (np.int32, np.uint8, np.bool_, np.float16, np.float64, jnp.bfloat16,
                          np.int64, np.complex64))  # fmt: skip
        changed[name] = tensor.astype(kind)
      case 'swap':
        other = pick(rng, list(changed))
        changed[name], changed[other] = changed[other], tensor
      case 'only':
        changed = {each: changed[each] for each in list(changed)[:: int(pick(rng, (2, 3, 20)))]}
  return changed


def _mutate(source: Path, rng: Rng, target: Path) -> None:
  """Damages a file of tensors, or the configuration, index, tensors or files of a folder."""
  if source.is_file():
    _mutate_file(source, rng, target)
    return
  target.mkdir()
  for file in source.iterdir():
    (target / file.name).write_bytes(file.read_bytes())
  weights = sorted(file for file in target.iterdir() if file.suffix == '.safetensors')
  match pick(rng, ('config', 'config', 'config', 'config', 'tensors', 'tensors', 'index', 'files')):
    case 'config':
      file = target / 'config.json'
      file.write_bytes(_changed_json(file.read_bytes(), rng))
    case 'index' if len(weights) > 1:
      (file,) = target.glob('*.index.json')
      value = json.loads(file.read_bytes())
      if rng.random() < 0.5:
        name = pick(rng, list(value['weight_map']))
        value['weight_map'][name] = pick(
          rng, (*STRANGE, weights[0].name, '..', '.', 'config.json', '/dev/zero', 'a/b')
        )
        file.write_text(json.dumps(value))
      else:
        file.write_bytes(_changed_json(file.read_bytes(), rng))
    case 'files':
      file = pick(rng, sorted(target.iterdir()))
      match pick(rng, ('drop', 'empty', 'double', 'folder')):
        case 'drop':
          file.unlink()
        case 'empty':
          file.write_bytes(b'')
        case 'double':
          (target / f'x{file.name}').write_bytes(file.read_bytes())
        case 'folder':
          file.unlink()
          file.mkdir()
    case _:
      file = pick(rng, weights)
      _mutate_file(file, rng, file)


def _changed_json(data: bytes, rng: Rng) -> bytes:
  if rng.random() < 0.2:
    return mutate_json(data, rng)
  value = json.loads(data)
  for _ in range(int(rng.geometric(0.7))):
    if isinstance(value, dict) and value and '[[[[[[' not in json.dumps(value):
      if rng.random() < 0.4:
        value = mutate_value(value, rng)
      else:
        value[pick(rng, list(value))] = pick(
          rng, (*STRANGE, 10**9, 2, 3, 1e-9, 1e300, '1', [1, 2], [-1.0], [float('nan')] * 4,
                [0] * 4, [1e400] * 6, [True] * 4, ['a'] * 6)
        )  # fmt: skip
  return json.dumps(value).encode()


def _mutate_file(source: Path, rng: Rng, target: Path) -> None:
  if rng.random() < 0.15:
    target.write_bytes(mutate_bytes(source.read_bytes(), rng))
    return
  tensors, metadata = load_file(source), read_metadata(source)
  if 'mgjax' in metadata and rng.random() < 0.8:
    data = metadata['mgjax'].encode()
    data = _changed_header(data, rng) if rng.random() < 0.7 else _changed_json(data, rng)
    metadata['mgjax'] = data.decode(errors='replace')
  else:
    tensors = mutate_tensors(tensors, rng)
  target.write_bytes(save(tensors, metadata or None))


def _changed_header(data: bytes, rng: Rng) -> bytes:
  """Changes a field of the model or a note, of the kind that stands there."""
  value = json.loads(data)
  part = value[pick(rng, [key for key in value if isinstance(value[key], dict)])]
  part = part or value
  name = pick(rng, list(part))
  sizes = (10**9, 10**5, 10**18, -1, 0, 1, 2, 3, 1.5, 10**4000, True)
  match part[name]:
    case bool():
      part[name] = pick(rng, (not part[name], 'x', 2, None))
    case int():
      part[name] = pick(rng, sizes)
    case float():
      part[name] = pick(rng, (float('nan'), float('inf'), -1.0, 0.0, 1e300, 'x'))
    case list() if part[name]:
      other = list(part[name])
      other[int(rng.integers(len(other)))] = pick(rng, (*sizes, *STRANGE))
      part[name] = pick(rng, (other, other[:-1], other * 2, other * 20_000, [other] * 3))
    case dict():
      part[name] = mutate_value(part[name], rng)
    case _:
      part[name] = pick(rng, STRANGE)
  return json.dumps(value).encode()


def _read(path: Path) -> None:
  config = _config_of(path)
  with tempfile.TemporaryDirectory() as temporary:
    workdir = Path(temporary) / 'run'
    import_weights(config, path, workdir)
    params, meta = load_params(workdir)
    made = read_config(workdir)
    _check(params)
    section(made.component).weights.get().make(made.model.to_dict())
    if latents := meta['notes'].get('latents'):
      numbers = np.array([latents['mean'], latents['std']], np.float64)
      if not np.isfinite(numbers).all() or not (numbers[1] > 0).all():
        raise Silent(f'latents {latents!r:.200}')
    flat = json.dumps(made.model.to_dict())
    if re.search('NaN|Infinity|-[1-9]', flat):
      raise Silent(f'model {flat:.300}')


def _check(params: Any) -> None:
  for name, leaf in named_leaves(params).items():
    if not leaf.size or not np.isfinite(np.asarray(leaf, np.float32)).all():
      raise Silent(f'{name} {leaf.shape} is not whole')


def _read_perceptual(path: Path) -> None:
  params = read_perceptual(path)
  _check(params)
  if min(widths_of(params)) < 1:
    raise Silent('a slice has no channels')


FAMILIES = (
  Family('diffusers folder', _image_seeds, _mutate, _read, seconds=30),
  Family('encoder folder', _encoder_seeds, _mutate, _read, seconds=30),
  # One side alone is minutes of compiling on a busy machine: the other starts anew.
  Family('codec file', _codec_seeds, _mutate, _read, seconds=120),
  Family('exported file', _own_seeds, _mutate, _read, seconds=30),
  Family('lpips file', _perceptual_seeds, _mutate, _read_perceptual),
)
