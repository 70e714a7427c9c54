"""What one checkout computes, item by item, for `compare_checkouts.py`, which starts this file.

An item is a text or named arrays, written to OUT/<section>/<item>.txt or .npz. This runs in the
environment that `compare_checkouts.py` sets: the checkout is on PYTHONPATH and its view is the
current folder. It uses commands, configuration files and what `import mgjax` offers, so that it
runs on checkouts whose modules lie in other places; `PLACES` has the exceptions.
"""

import argparse
import contextlib
import fnmatch
import functools
import importlib
import io
import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Made = str | Mapping[str, np.ndarray]
Items = Iterator[tuple[str, Callable[[], Made]]]

# Internals that no command and no attribute of mgjax stands for: where they may be.
PLACES = {
  'read_config': ('mgjax.training.checkpoints.workdir', 'mgjax.checkpoints.workdir'),
  'encode': ('mgjax.apps.encode', 'mgjax.workflows.encode'),
  'digest': ('mgjax.lab.scaling.sweep', 'mgjax.workflows.sweep'),
  'make_grid': ('mgjax.lab.scaling.design.grid', 'mgjax.scaling.design.grid'),
}

PLANS = {
  't2iv_256_30b': ('--config=configs/video/t2iv_256.py:30b', '--topology=v5p:8x8x8'),
  't2iv_768_30b_search': (
    '--config=configs/video/t2iv_768.py:30b',
    '--topology=h200:8',
    '--search',
  ),
  't2iv_768_30b_sample': (
    '--config=configs/video/t2iv_768.py:30b',
    '--topology=v6e:4x4',
    '--what=sample',
  ),
}

PROMPTS = {
  'digits': ('the green digit 3 moves left', 'the red digit 7 moves up'),
  'solids': ('a red rubber cube slides left', 'a large blue metal ball rolls, the camera pans'),
}
EDITS = {'digits': 'make the digit red', 'solids': 'make the cube blue'}
STEPS = 2  # of sampling; a model whose configuration has fewer steps takes these


def internal(name: str) -> Any:
  """Imports one of `PLACES` from the first of its modules that this checkout has."""
  for place in PLACES[name]:
    try:
      return getattr(importlib.import_module(place), name)
    except ModuleNotFoundError as error:
      if error.name is None or not f'{place}.'.startswith(f'{error.name}.'):
        raise  # something that the module imports is missing
  raise ModuleNotFoundError(f'{name} is in none of {PLACES[name]}; add its place to PLACES')


# Inputs, of integers alone or of NumPy alone, so that no checkout takes part in them.


def clip(frames: int, height: int, width: int) -> np.ndarray:
  """A bright square that moves over a gradient: uint8 (frames height width 3)."""
  rows, columns = np.mgrid[:height, :width]
  made = np.zeros((frames, height, width, 3), np.uint8)
  made[..., 0], made[..., 1] = rows * 96 // height, columns * 96 // width
  side = height // 4
  for frame in range(frames):
    place = frame * (width - side) // max(frames - 1, 1)
    made[frame, height // 3 : height // 3 + side, place : place + side] = (230, 200, 40)
  return made


def sound(rate: int, seconds: float, channels: int) -> np.ndarray:
  """A tone with three decaying strikes: float32 (1 samples channels)."""
  time_ = np.arange(int(rate * seconds)) / rate
  since = time_ % (seconds / 3)
  wave = 0.5 * np.sin(2 * np.pi * 440 * time_) * np.exp(-12 * since)
  return np.repeat(wave[None, :, None], channels, axis=2).astype(np.float32)


# Samples of what ships with mgjax.


def shipped(weights: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns the configuration of every model below a folder of weights, by its name."""
  return {
    path.parent.relative_to(weights).as_posix(): json.loads(path.read_text())
    for path in sorted(weights.rglob('config.json'))
  }


def sample_of(place: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Samples a model: few steps, one or two prompts.

  Args:
    place: a work directory, or what ships, as 'digits/video'.
    config: its configuration.
  """
  import mgjax

  component, world = config['component'], 'solids' if place.startswith('solids/') else 'digits'
  prompts = PROMPTS[world]
  bucket = max(config['buckets'].values(), key=lambda each: each.get('frames', 0))
  shape = tuple(bucket.get(side, 0) for side in ('frames', 'height', 'width'))
  if component == 'autoencoder':
    model = mgjax.load(place)
    latents = np.asarray(model.encode(clip(*shape)[None]))
    return {'latents': latents, 'video': np.asarray(model.decode(latents, shape[0]))}
  if component == 'codec':
    model = mgjax.load(place)
    given = sound(model.rate, 0.8, 1)
    latents = np.asarray(model.encode(given))
    return {'latents': latents, 'sound': np.asarray(model.decode(latents))}
  if component == 'clip':
    model = mgjax.load(place)
    pictures = clip(4, *shape[1:])
    found = {'pictures': model.encode_images(pictures), 'texts': model.encode_texts(prompts)}
    return found | ({'identities': model.encode_identities(pictures)} if model.identity else {})
  model = mgjax.load(place, steps=min(STEPS, config['sample']['steps']))
  if component == 'upsampler':
    small = clip(shape[0], shape[1] // 2, shape[2] // 2)
    return {'video': model.generate(prompts[:1], video=small[None], seed=0)}
  if component == 'editing':
    return {'video': model.generate([EDITS[world]], video=clip(*shape), seed=0)}
  if component == 'personalization':
    reference = clip(1, 64, 64)[0]
    return {'video': model.generate(prompts[:1], reference=reference, seed=0)}
  if component == 'audio':
    return {'sound': model.generate(prompts[:1], seed=0)}
  if component == 'video':
    return {'video': model.generate(prompts, seed=0)}
  raise ValueError(f'no sample is known of the component {component!r}; add one to sample_of')


def samples(own: argparse.Namespace) -> Items:
  """Samples of every shipped model."""
  for name, config in shipped(own.weights).items():
    yield name, lambda name=name, config=config: sample_of(name, config)


# Training of every component, as small as it can be.


def under(place: str, **fields: Any) -> dict[str, Any]:
  """Returns fields below a place of a configuration, as `mgjax.config` takes them."""
  return {f'{place}.{name}': value for name, value in fields.items()}


# Eight rows a batch: the suite goes on with these runs on eight devices.
SQUARE = {'height': 16, 'width': 16, 'batch_size': 8}
# Runs of four steps that are stopped after two, before any validation: a program less to compile.
RUN = {'data.threads': 1, 'optimizer.warmup': 1} | under(
  'train', steps=4, log_every=1, save_every=4, evaluate_every=4, validation_batches=1
)
FINISHED = {'train.steps': 2}  # of what others stand on: its statistics are made at the end
BACKBONE = RUN | under('model', dim=4, depth=1, heads=1, mlp_dim=8)
BACKBONE |= under('model.conditionings.text', width=4, depth=1, heads=1)
VIDEO = BACKBONE | under('buckets.video', frames=4, **SQUARE)
VIDEO |= {'autoencoder': 'runs/autoencoder', 'data.latents': '', 'model.positions': (2, 2, 2)}
LATENTS = {'data.latents': 'runs/latents', 'encode.train': 16, 'encode.validation': 4}
STARTED = VIDEO | {'start_from': 'runs/video'}
TOWER = {'size': 16, 'patch': 8, 'dim': 4, 'depth': 1, 'heads': 1, 'mlp_dim': 8, 'projection': 8}
AUTOENCODER = RUN | FINISHED | under('model', latent_channels=4, widths=(4,), groups=2)
AUTOENCODER |= {'discriminator.widths': (4, 8)}

# Work directory below runs/ -> configuration, its bucket and changes, in the order of training.
TRAINED: dict[str, tuple[str, str, dict[str, Any]]] = {
  'autoencoder': (
    'digits/autoencoder',
    'video',
    AUTOENCODER | under('buckets.video', frames=4, **SQUARE) | {'model.strides': ((2, 1, 1),)},
  ),
  'video': ('digits/video', 'video', VIDEO | LATENTS),
  'personalization': (
    'digits/personalization',
    'video',
    STARTED | under('model.conditionings.identity.vision', **TOWER),
  ),
  'editing': (
    'digits/editing:paired',
    'video',
    STARTED | {'model.conditionings.text.length': 40},  # the start's
  ),
  'codec': (
    'digits/codec',
    'sound',
    RUN
    | FINISHED
    | under('buckets.sound', seconds=0.16, batch_size=8)
    | under('model', width=2, latent_channels=4, decoder_width=16),
  ),
  'audio': (
    'digits/audio',
    'sound',
    BACKBONE
    | under('buckets.sound', seconds=0.4, height=16, width=16, batch_size=8)
    | {'autoencoder': 'runs/codec', 'data.latents': '', 'model.positions': (20, 1, 1)},
  ),
  'upsampler_autoencoder': (
    'digits/upsampler:autoencoder',
    'image',
    AUTOENCODER | under('buckets.image', **SQUARE) | {'model.blocks': 0},
  ),
  'upsampler': (
    'digits/upsampler',
    'video',
    BACKBONE
    | under('buckets.video', frames=6, **SQUARE)
    | under('model', positions=(6, 2, 2), patch=(1, 2, 2))
    | under('windows', overlap=2, feather=8)
    | {'autoencoder': 'runs/upsampler_autoencoder', 'data.latents': ''},
  ),
  'clip': (
    'digits/clip',
    'image',
    RUN
    | under('buckets.image', height=16, width=16, batch_size=8)
    | under('model.text', dim=4, depth=1, heads=1, mlp_dim=8, projection=8)
    | under('model.vision', **TOWER)
    | {'model.identity': 6},
  ),
}
# Other objectives and optimizers, which stand on runs of `TRAINED`.
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
  'few_steps': (
    'digits/few_steps',
    'video',
    STARTED | LATENTS | {'objective.few_steps.teacher': 'runs/video'},
  ),
  'distribution_matching': (
    'digits/distribution_matching',
    'video',
    STARTED | LATENTS | {'objective.distribution_matching.teacher': 'runs/video'},
  ),
  'lora': ('digits/video', 'video', STARTED | LATENTS | {'lora.rank': 2}),
  'muon': ('digits/video', 'video', VIDEO | LATENTS | {'optimizer.name': 'muon'}),
}
# What the suite keeps as it was saved, checkpoints and all; of the others it keeps finished
# weights, a tenth of the bytes.
KEPT_WHOLE = ('video', 'personalization', 'audio', 'upsampler', 'clip')
# Beginnings of metrics that no second run has again.
OF_THE_CLOCK = ('seconds', 'spent/', 'goodput', 'data_wait', 'tflops')
OF_THE_CLOCK += ('host_memory', 'device_memory')


def configuration(name: str) -> Any:
  """Returns the configuration of a run of `TRAINED` or `METHODS`."""
  import mgjax

  file, bucket, changes = {**TRAINED, **METHODS}[name]
  config = mgjax.config(file, **changes)
  for other in set(config.buckets) - {bucket}:
    del config.buckets[other]
  return config


def train_one(name: str) -> Any:
  """Trains such a run for two steps in runs/<name>; returns its state."""
  import mgjax

  shutil.rmtree(f'runs/{name}', ignore_errors=True)
  config = configuration(name)
  if name == 'video':
    shutil.rmtree('runs/latents', ignore_errors=True)
    internal('encode')(config, 'runs/latents')
  return mgjax.train(config, f'runs/{name}', stop_at=2)


def state_of(name: str) -> Made:
  """Every leaf of the state after two steps, and every number of the metrics but times."""
  import jax

  state = train_one(name)
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  arrays = {f'state{jax.tree_util.keystr(path)}': np.asarray(leaf) for path, leaf in leaves}
  for line in pathlib.Path(f'runs/{name}/metrics.jsonl').read_text().splitlines():
    row = json.loads(line)
    for key, value in row.items():
      if not key.startswith(OF_THE_CLOCK):
        arrays[f'metrics/{row["step"]}/{key}'] = np.asarray(value, np.float64)
  saved = pathlib.Path(f'runs/{name}/config.json').read_bytes()
  return arrays | {'config.json': np.frombuffer(saved, np.uint8)}


def train(own: argparse.Namespace) -> Items:
  """The state of every trainable component after two steps."""
  for name in TRAINED:
    yield name, lambda name=name: state_of(name)


def methods(own: argparse.Namespace) -> Items:
  """The same of further objectives and optimizers."""
  for name in METHODS:
    yield name, lambda name=name: state_of(name)


# What commands print, and configurations.


def command(*words: str) -> str:
  """Runs `python -m WORDS` of this checkout; returns what it prints."""
  asked = [sys.executable, __file__, 'command', *words]
  done = subprocess.run(asked, capture_output=True, text=True)
  if done.returncode:
    raise RuntimeError(f'{" ".join(words)} ended with {done.returncode}: {done.stderr[-2000:]}')
  return done.stdout


def plans(own: argparse.Namespace) -> Items:
  """The text of plans of 30B models."""
  for name, words in PLANS.items():
    yield name, lambda words=words: command('launch.plan', *words)


def claims(own: argparse.Namespace) -> Items:
  """The page of claims, made of this checkout's records."""

  def make() -> str:
    (records,) = {path.parent for path in pathlib.Path('docs').rglob('claims_video.jsonl')}
    page = own.out / 'claims.md'
    words = ('--config=configs/scaling/claims.py', f'--records={records}', f'--out={page}')
    command('launch.scaling', 'claims', *words)
    return page.read_text()

  yield 'claims.md', make


def file_name(config: str) -> str:
  """Returns the item's name of a configuration, which a file can have."""
  return config.replace('/', '.')


def configs(own: argparse.Namespace) -> Items:
  """Every configuration as it is resolved."""
  import mgjax

  for name in own.configs:
    # In the order of the file: the order of buckets, arms and conditionings has a meaning.
    yield (
      file_name(name),
      refusable(
        name, lambda name=name: json.dumps(mgjax.config(name).to_dict(), indent=1, default=repr)
      ),
    )


def is_refusal(config: str, error: Exception) -> bool:
  """Says whether an error refuses the argument of a configuration."""
  return ':' in config and type(error).__name__ == 'ConfigError'


def refusable(config: str, make: Callable[[], str]) -> Callable[[], str]:
  """Lets the refusal of an argument be the item: not all that looks like one in a text is one."""

  def made() -> str:
    try:
      return make()
    except Exception as error:
      if not is_refusal(config, error):
        raise
      return 'refused with a ConfigError\n'

  return made


def arms_of(config: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
  """Yields name, seed and configuration of every run of an experiment."""
  from ml_collections import ConfigDict

  if 'grid' in config:
    points = internal('make_grid')(config)
    runs = [(point.name, point.seeds, point.config) for point in points]
  else:
    seeds = config['seeds']
    runs = [
      (arm, seeds[arm] if isinstance(seeds, Mapping) else seeds, ConfigDict(fields))
      for arm, fields in config['arms'].items()
    ]
  for arm, seeds, fields in runs:
    for seed in seeds:
      resolved = fields.copy_and_resolve_references()
      resolved.seed = int(seed)
      yield arm, int(seed), resolved.to_dict()


def digests(own: argparse.Namespace) -> Items:
  """The digest of every run of every experiment in configs/scaling, and of every record."""
  import mgjax

  experiments = [
    name
    for name in own.configs
    if name.startswith('scaling/') and {'grid', 'arms'} & set(mgjax.config(name))
  ]

  @functools.cache
  def of(name: str) -> list[tuple[str, int, str]]:
    digest = internal('digest')
    runs = arms_of(mgjax.config(name).to_dict())
    return [(arm, seed, digest(config)) for arm, seed, config in runs]

  def lines(name: str) -> Callable[[], str]:
    made = lambda: ''.join(f'{arm} {seed} {digest}\n' for arm, seed, digest in of(name))  # noqa: E731
    return refusable(name, made)

  def recorded() -> str:
    known, made = {}, []
    for name in experiments:
      try:
        known |= {digest: f'{name} {arm}' for arm, _, digest in of(name)}
      except Exception as error:
        if not is_refusal(name, error):  # which the item of that experiment says
          raise
    for path in sorted(pathlib.Path('docs').rglob('*.jsonl')):
      for row in map(json.loads, path.read_text().splitlines()):
        if 'digest' in row:
          found = known.get(row['digest'], 'no configuration has this digest')
          made.append(f'{path.name} {row["arm"]} {row["seed"]} {row["digest"]} {found}\n')
    return ''.join(made)

  for name in experiments:
    yield file_name(name), lines(name)
  yield 'recorded', recorded


def golden(own: argparse.Namespace) -> Items:
  """What the suite holds runs of `train` to, which it leaves in kept/: see `golden_of`."""
  for name in TRAINED:
    yield name, lambda name=name: golden_of(name)


def golden_of(name: str) -> Made:
  """Puts what the suite keeps of runs/<name> in kept/runs/<name>.

  Returns a sample of that, and of what has checkpoints the loss of the next step.
  """
  kept = pathlib.Path(f'kept/runs/{name}')
  shutil.rmtree(kept, ignore_errors=True)
  if name in KEPT_WHOLE:
    shutil.copytree(f'runs/{name}', kept)
  else:
    words = (f'--workdir=runs/{name}', f'--out={kept}', '--format=workdir')
    command('launch.weights', 'export', *words)
  if name == 'video':
    shutil.copytree('runs/latents', 'kept/runs/latents', dirs_exist_ok=True)
  with contextlib.chdir('kept'):
    config = json.loads(pathlib.Path(f'runs/{name}/config.json').read_text())
    made = sample_of(f'runs/{name}', config)
    if name not in KEPT_WHOLE:
      return made
    shutil.copytree(f'runs/{name}', f'runs/next_{name}', dirs_exist_ok=True)
    loss = next_loss(f'runs/next_{name}')
    shutil.rmtree(f'runs/next_{name}')
    return made | {'loss': np.float64(loss)}


def next_loss(workdir: str) -> float:
  """Goes on for the third step with what the saved configuration says; returns its loss."""
  import mgjax

  mgjax.train(internal('read_config')(workdir), workdir, stop_at=3)
  rows = map(json.loads, pathlib.Path(workdir, 'metrics.jsonl').read_text().splitlines())
  return next(row['loss'] for row in rows if row['step'] == 3 and 'loss' in row)


def weights(own: argparse.Namespace) -> Items:
  """The tensors and texts of every shipped model of this checkout itself."""

  def read(folder: pathlib.Path) -> Made:
    import ml_dtypes  # noqa: F401  # which tells NumPy of bfloat16
    from safetensors.numpy import load_file

    texts = {
      path.name: np.frombuffer(path.read_bytes(), np.uint8)
      for path in folder.iterdir()
      if path.suffix in ('.json', '.md')
    }
    return {**texts, **load_file(folder / 'weights.safetensors')}

  root = own.checkout / 'mgjax' / 'weights'
  for name in shipped(root):
    yield name, lambda name=name: read(root / name)


SECTIONS = {
  'configs': configs,
  'digests': digests,
  'claims': claims,
  'plans': plans,
  'train': train,
  'methods': methods,
  'samples': samples,
  'golden': golden,
  'weights': weights,
}


IN_OUT = ('train', 'methods', 'golden')  # what reads and writes runs/ in the folder of the items


def bytes_of(made: Made) -> bytes:
  """Returns an item as its file has it."""
  if isinstance(made, str):
    return made.encode()
  file = io.BytesIO()
  plain = {}
  for name, array in made.items():
    array = np.asarray(array)
    # NumPy's files do not know bfloat16; as float32 it is the same number.
    plain[name] = array.astype(np.float32) if array.dtype.kind == 'V' else array
  np.savez_compressed(file, **plain)
  return file.getvalue()


def make_items(own: argparse.Namespace) -> None:
  """Makes the items of a section that are not there yet."""
  folder = own.out / own.section
  folder.mkdir(parents=True, exist_ok=True)
  for name, make in SECTIONS[own.section](own):
    if not fnmatch.fnmatch(f'{own.section}/{name}', own.only):
      continue
    stem = folder / file_name(name)
    if any(stem.with_name(f'{stem.name}{end}').exists() for end in ('.txt', '.npz')):
      print(f'  {own.section}/{name}: kept', flush=True)
      continue
    begun = time.perf_counter(), time.process_time()
    try:
      made = make()
      end = '.txt' if isinstance(made, str) else '.npz'
      data = bytes_of(made)
    except Exception:
      end, data = '.error', traceback.format_exc().encode()
    part = stem.with_name(f'{stem.name}.part')
    part.write_bytes(data)
    if end != '.error':
      stem.with_name(f'{stem.name}.error').unlink(missing_ok=True)
    os.replace(part, stem.with_name(f'{stem.name}{end}'))
    wall, own_time = time.perf_counter() - begun[0], time.process_time() - begun[1]
    said = 'FAILED' if end == '.error' else 'made'
    print(f'  {own.section}/{name}: {said}, {wall:.1f} s ({own_time:.1f} processor s)', flush=True)


def use_this_checkout_alone() -> None:
  """Takes out the finders of editable installs, which may belong to another checkout.

  They come after PYTHONPATH, but would still answer for a module that this checkout lacks.
  """
  sys.meta_path[:] = [
    finder
    for finder in sys.meta_path
    if '__editable__' not in getattr(finder, '__module__', type(finder).__module__)
  ]
  import mgjax

  view = pathlib.Path(os.environ['PYTHONPATH'])
  if not pathlib.Path(mgjax.__file__).is_relative_to(view):
    raise ImportError(f'mgjax is imported from {mgjax.__file__}, expected one below {view}')


def main() -> None:
  """Runs a command of the checkout, or makes items."""
  use_this_checkout_alone()
  if sys.argv[1] == 'command':
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
    return
  parser = argparse.ArgumentParser()
  parser.add_argument('section', choices=SECTIONS)
  for flag in ('out', 'weights', 'checkout'):
    parser.add_argument(f'--{flag}', type=pathlib.Path, required=True)
  parser.add_argument('--configs', type=pathlib.Path, required=True)
  parser.add_argument('--only', default='*')
  own = parser.parse_args()
  own.configs = json.loads(own.configs.read_text())
  with contextlib.chdir(own.out) if own.section in IN_OUT else contextlib.nullcontext():
    make_items(own)


if __name__ == '__main__':
  main()
