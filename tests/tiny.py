"""A world small enough to train in seconds: 4 frames of 16 x 16 pixels, models 8 and 16 wide."""

import json
import pathlib

import jax
import numpy as np

from configs.digits import autoencoder as autoencoder_config
from configs.digits import video as video_config
from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.core.tree import named_leaves
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config, write_workdir

CHECKOUT = pathlib.Path(__file__).parent.parent


def under(place, **fields):
  """Overrides of the fields below a place of a configuration, as the command line takes them."""
  return {f'{place}.{name}': value for name, value in fields.items()}


RUN = {'data.threads': 1, 'optimizer.warmup': 2} | under(
  'train', steps=6, log_every=1, save_every=3, evaluate_every=3, validation_batches=1
)
SQUARE = {'height': 16, 'width': 16, 'batch_size': 8}
SHARED = RUN | under('train', steps=8, evaluate_every=4)
SHARED |= under('buckets.video', frames=4, **SQUARE, weight=2)
SHARED |= under('buckets.image', **SQUARE, weight=1)
OF_AN_AUTOENCODER = under('model', latent_channels=4, widths=(8,), strides=((2, 1, 1),), groups=4)
AUTOENCODER = SHARED | OF_AN_AUTOENCODER
BACKBONE = under('model', dim=16, depth=1, heads=2, mlp_dim=32)
BACKBONE |= under('model.conditionings.text', width=8, depth=1)
VIDEO = SHARED | BACKBONE | under('encode', train=48, validation=16)
VIDEO |= {'model.positions': (2, 2, 2), 'sample.steps': 3}


def flags(overrides):
  """The overrides as arguments of a binary."""
  return [f'--config.{key}={value}' for key, value in overrides.items()]


def autoencoder(**changes):
  config = autoencoder_config.get_config()
  config.update_from_flattened_dict(AUTOENCODER | dotted(changes))
  del config.buckets.image  # one program less to compile
  return config


def video(runs: pathlib.Path, latents: bool = True, images: bool = False, **changes):
  """The video model's configuration on the autoencoder and the latents in `runs`.

  The run in `runs` has `images`, which are a bucket of their own: half of the programs to compile.
  """
  config = video_config.get_config()
  config.autoencoder = str(runs / 'autoencoder')
  config.data.latents = str(runs / 'latents') if latents else ''
  config.update_from_flattened_dict(VIDEO | dotted(changes))
  if not images:
    del config.buckets.image
  return config


def student(runs: pathlib.Path, objective: str, steps, **changes):
  """The configuration of a model that learns few steps from the one in `runs`, by an objective."""
  config = video(runs, start_from=str(runs / 'video'), sample__steps=2, **changes)
  config.model.conditionings.step_size = {'kind': 'step_size'}
  config.objective.dropout.step_size = 0.0
  config.sample.schedule = {'name': 'linear'}
  config.objective[objective] = {
    'teacher': str(runs / 'video'),
    'guidance': config.sample.guidance,
    'schedule': {'name': 'linear'},
    'steps': steps,
  }
  config.sample.guidance = (('text', 1.0),)
  return config


def make_runs(runs: pathlib.Path) -> pathlib.Path:
  """Trains both models in `runs`: autoencoder/, latents/, video/."""
  train(autoencoder(), runs / 'autoencoder')
  config = video(runs, images=True)
  encode(config, runs / 'latents')
  train(config, runs / 'video')
  return runs


def make_another_autoencoder(runs: pathlib.Path, workdir: pathlib.Path) -> pathlib.Path:
  """The autoencoder in `runs` with other weights and other statistics of latents, untrained."""
  params, meta = load_params(runs / 'autoencoder')
  notes = json.loads(json.dumps(meta['notes']))
  notes['latents']['mean'] = [mean + 1 for mean in notes['latents']['mean']]
  other = jax.tree.map(lambda leaf: 1.5 * np.asarray(leaf), params)
  config = read_config(runs / 'autoencoder')
  write_workdir(config.to_dict(), other, notes, workdir, origin={'order': 'made'})
  return workdir


def dotted(changes):
  return {key.replace('__', '.'): value for key, value in changes.items()}


def resumed(config, folder: pathlib.Path, *stops: int, end: int | None = None):
  """Trains, whole/, and the same with stops, stopped/: held to be one; returns the last state.

  Before its last step a run has not compiled what validates and draws samples: `end` saves that.
  """
  whole = train(config, folder / 'whole', stop_at=end)
  for stop in stops:
    train(config, folder / 'stopped', stop_at=stop)
  assert same_state(train(config, folder / 'stopped', stop_at=end), whole)
  assert losses(folder / 'stopped') == losses(folder / 'whole')
  return whole


def bits(state):
  """Every leaf of a state as bytes, by name."""
  return {name: np.asarray(leaf).tobytes() for name, leaf in named_leaves(state).items()}


def final_state(workdir: pathlib.Path):
  """The state that a finished run left behind; starting it again trains nothing."""
  before = metrics(workdir)
  state = train(read_config(workdir), workdir)
  assert metrics(workdir) == before
  return state


def metrics(workdir: pathlib.Path):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def losses(workdir: pathlib.Path):
  """Step -> loss, and of the validation all its numbers."""
  kept = {}
  for row in metrics(workdir):
    named = {k: v for k, v in row.items() if k == 'loss' or k.startswith('validation')}
    kept.setdefault(row['step'], {}).update(named)
  return kept


def same_state(first, second):
  """Whether two states are equal bit by bit; says where they are not."""
  first, second = bits(first), bits(second)
  assert first.keys() == second.keys()
  assert [name for name in first if first[name] != second[name]] == []
  return jax.tree.structure(first) == jax.tree.structure(second)
