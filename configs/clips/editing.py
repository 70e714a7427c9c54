r"""Editing of your own clips, learned from pairs, at 32 px, minutes of two CPU cores a part.

python -m launch.train --config=configs/clips/editing.py:autoencoder,pairs.csv \
  --workdir=runs/edit/autoencoder
python -m launch.data encode --config=configs/clips/editing.py:model,pairs.csv \
  --output=runs/edit/latents
python -m launch.train --config=configs/clips/editing.py:model,pairs.csv --workdir=runs/edit/model
python -m launch.sample edit --workdir=runs/edit/model --video=in.mp4 --prompt='make it blue' \
  --out=out.mp4

The manifest has the columns video (after the edit), source_video, caption (the instruction) and, if
known, task (docs/how_to/edit_videos.md). Autoencoder and model begin as those of the moving digits.
So small a model on a few clips shows that everything works, and no more.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import clips
from ..digits import editing

FPS = 24
TASKS = (*editing.TASKS, 'style', 'blur')


def get_config(argument: str = 'model') -> ConfigDict:
  part, _, path = argument.partition(',')
  if part not in ('autoencoder', 'model'):
    raise ConfigError(f'{argument!r}: expected autoencoder or model, as in model,pairs.csv')
  data = clips(path, fps=FPS, threads=2)
  if part == 'autoencoder':
    config = editing.get_config('autoencoder')
    config.train.steps = 4000
  else:
    config = editing.with_editing(editing.get_config('video'), TASKS)
    del config.buckets.image
    config.autoencoder = 'runs/edit/autoencoder'
    config.start_from = 'backbone=runs/editing/paired:backbone'
    config.encode.train = 4096
    data.latents = 'runs/edit/latents'
  config.data = data
  return config
