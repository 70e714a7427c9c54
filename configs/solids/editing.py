r"""Editing of solids by instruction: learned from pairs, or as the paper does, without any.

From pairs of clips, what nobody has of real footage:
python -m launch.data encode --config=configs/solids/editing.py:paired \
  --output=runs/solids_editing/latents_paired
python -m launch.train --config=configs/solids/editing.py:paired \
  --workdir=runs/solids_editing/paired
python -m launch.evaluate --workdir=runs/solids_editing/paired

Further, from what configs/solids/one_gpu.py:editing trained, with more of materials and
backgrounds, which it gets wrong most (40 minutes of two cores):
python -m launch.data encode --config=configs/solids/editing.py:weak \
  --output=runs/solids_editing/latents_weak
python -m launch.train --config=configs/solids/editing.py:weak --workdir=runs/solids_editing/weak
and with :cameras in place of :weak, from there, on four times as many pairs (70 minutes of a core).

In the paper's stages (Movie Gen §5), from pairs of pictures, animated pictures, and clips that the
model edited itself; of each of images and frames:
python -m launch.data encode --config=configs/solids/editing.py:images \
  --output=runs/solids_editing/latents_images
python -m launch.train --config=configs/solids/editing.py:images \
  --workdir=runs/solids_editing/images
and then, with the CLIP of configs/solids/clip.py:
python -m launch.data pairs --config=configs/solids/editing.py:backtranslation \
  --output=runs/solids_editing/latents_backtranslation
python -m launch.train --config=configs/solids/editing.py:backtranslation \
  --workdir=runs/solids_editing/backtranslation

All of it begins with what `make quickstart WORLD=solids WORKDIR=runs/solids` trained.
"""

from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.lab.worlds.solids.edits import TASKS

from ..digits.editing import with_backtranslation, with_editing, with_frames, with_images
from . import video

PLACE = 'runs/solids_editing'
OF_PICTURES = (
  'recolour',
  'material',
  'replace',
  'remove',
  'add',
  'background',
  'style',
  'nothing',
)
# Two, of which one is left when the other is removed, and which never meet.
PAIRS = {'solids': (2, 2), 'meetings': 0.0}


def get_config(part: str = 'paired') -> ConfigDict:
  parts = {
    'paired': _paired,
    'weak': _weak,
    'cameras': _cameras,
    'images': _images,
    'frames': _frames,
    'backtranslation': _backtranslation,
  }
  if part not in parts:
    raise ConfigError(f'part {part!r}: expected one of {", ".join(parts)}')
  return parts[part]()


def _editing(latents: str, start: str) -> ConfigDict:
  config = with_editing(video.get_config(), TASKS)
  config.start_from = start
  config.data.latents = f'{PLACE}/latents_{latents}'
  # As much is kept as at 1.5 of the source, and .67 of edits are right in place of .61.
  config.sample.guidance = (('source_video', 1.0), ('text', 3.0))
  return config


def _paired() -> ConfigDict:
  config = _editing('paired', 'runs/solids/video')
  config.data.solids.update(PAIRS, edits=TASKS)
  del config.buckets.image
  config.train.steps = 10_000
  return config


def _weak() -> ConfigDict:
  config = _paired()
  config.start_from = 'runs/solids_gpu/editing'
  config.data.latents = f'{PLACE}/latents_weak'
  config.data.solids.edits = (*['material'] * 4, *['background'] * 3, *TASKS)
  config.buckets.video.batch_size = 12
  config.encode.train = 8000
  config.optimizer.learning_rate = 4e-4
  config.train.update(steps=5000, save_every=1000, ema_decay=0.998)
  return config


def _cameras() -> ConfigDict:
  config = _paired()
  config.start_from = f'{PLACE}/weak'
  config.data.latents = f'{PLACE}/latents_cameras'
  config.data.solids.seed = 3  # pairs that none of the runs before had
  config.data.solids.edits = (
    *['material'] * 4,
    *['camera'] * 3,
    'replace',
    'add',
    *['background'] * 2,
    *TASKS,
  )
  config.buckets.video.batch_size = 16
  config.encode.train = 32_000
  config.optimizer.learning_rate = 6e-4
  config.train.update(steps=7500, evaluate_every=500, save_every=500)
  return config


def _images() -> ConfigDict:
  return with_images(_editing('images', 'runs/solids/video'), _pairs(OF_PICTURES))


def _frames() -> ConfigDict:
  config = _editing('frames', f'{PLACE}/images')
  return with_frames(config, _pairs(OF_PICTURES), _pairs(('mark',)))


def _backtranslation() -> ConfigDict:
  config = _editing('backtranslation', f'{PLACE}/frames')
  config.data.solids.update(PAIRS, edits=OF_PICTURES[:-2])
  captions = {'solids': {'solids': (1, 2)}}
  pictures = _pairs(OF_PICTURES)
  marked = _pairs(('mark',))
  return with_backtranslation(config, captions, pictures, marked, PLACE, 'runs/solids_clip')


def _pairs(edits: tuple[str, ...]) -> dict[str, Any]:
  return {'solids': {**PAIRS, 'edits': edits}}
