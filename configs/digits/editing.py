r"""Editing of the moving digits by instruction: what it stands on, and edits learned from pairs.

python -m launch.train --config=configs/digits/editing.py:autoencoder \
  --workdir=runs/editing/autoencoder
python -m launch.data encode --config=configs/digits/editing.py:video --output=runs/editing/latents
python -m launch.train --config=configs/digits/editing.py:video --workdir=runs/editing/video
python -m launch.train --config=configs/digits/editing.py:clip --workdir=runs/editing/clip

From pairs of clips, what nobody has of real footage:
python -m launch.data encode --config=configs/digits/editing.py:paired \
  --output=runs/editing/latents_paired
python -m launch.train --config=configs/digits/editing.py:paired --workdir=runs/editing/paired
python -m launch.evaluate --workdir=runs/editing/paired

Without any, in the paper's stages (Movie Gen §5); of each of images and frames:
python -m launch.data encode --config=configs/digits/editing.py:images \
  --output=runs/editing/latents_images
python -m launch.train --config=configs/digits/editing.py:images --workdir=runs/editing/images
and then:
python -m launch.data pairs --config=configs/digits/editing.py:backtranslation \
  --output=runs/editing/latents_backtranslation
python -m launch.train --config=configs/digits/editing.py:backtranslation \
  --workdir=runs/editing/backtranslation
"""

from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import defaults
from mgjax.sections.editing.section import Edits

from ..base import encoding
from . import autoencoder, clip, video

PLACE = 'runs/editing'
# The wall stands still while the digit moves: an animated picture moves as a whole and is another
# thing than such a clip.
WORLD = {'background': 'tinted', 'motions': ('left', 'right', 'bounce'), 'laps': 0.4}
COLOURS = ('red', 'green', 'blue', 'yellow')
MORE = (*COLOURS, 'white', 'purple')  # the last two only in pictures
LENGTH = 48  # bytes of the longest caption, 'the yellow digit 3 moves right, green wall'


TASKS = (
  'recolour',
  'replace',
  'remove',
  'add',
  'background',
  'still',
  'reverse',
  'mark',
  'nothing',
)
OF_PICTURES = ('recolour', 'replace', 'remove', 'add', 'background', 'nothing')


def get_config(part: str = 'paired') -> ConfigDict:
  parts = {
    'autoencoder': _autoencoder,
    'video': _video,
    'clip': _clip,
    'paired': _paired,
    'images': _images,
    'frames': _frames,
    'backtranslation': _backtranslation,
  }
  if part not in parts:
    raise ConfigError(f'part {part!r}: expected one of {", ".join(parts)}')
  return parts[part]()


def _autoencoder() -> ConfigDict:
  config = autoencoder.get_config()
  config.data.digits.update(WORLD)
  config.data.digits.colours = MORE
  # Whatever a clip or an edited one shows.
  config.data.digits.edits = ('recolour', 'remove', 'background', 'mark')
  config.start_from = 'runs/quickstart/autoencoder'  # which knows strokes, but no walls
  config.optimizer.name = 'adamw'
  config.train.steps = 8000
  return config


def _video() -> ConfigDict:
  config = video.get_config()
  config.autoencoder = f'{PLACE}/autoencoder'
  config.data.latents = f'{PLACE}/latents'
  config.data.digits.update(WORLD, empty=0.1)
  config.model.conditionings.text.length = LENGTH
  config.start_from = 'backbone=runs/quickstart/video:backbone'
  return config


def _clip() -> ConfigDict:
  config = clip.get_config()
  config.data.digits.update(WORLD, empty=0.1, colours=MORE, extras=())
  config.model.text.positions = LENGTH
  config.model.identity = 0  # nobody is to be recognised
  return config


def with_editing(config: ConfigDict, tasks: tuple[str, ...]) -> ConfigDict:
  """Makes a configuration of text to video that of an editor, and returns it."""
  config.component = 'editing'
  config.model.conditionings.update(
    source_video={'kind': 'source_video'},
    task={'kind': 'edit_task', 'tasks': tasks},
    place={'kind': 'temporal_place'},
  )
  config.edits = defaults(Edits)
  config.objective.dropout.update(source_video=0.1, task=0.1, place=0.0)
  config.objective.drop_all_probability = 0.05
  config.sample.guidance = (('source_video', 1.5), ('text', 3.0))
  config.encode = encoding(train=16384, validation=512)
  config.optimizer.learning_rate = 1e-3
  config.train.steps = 6000
  config.train.evaluate_every = 1000
  config.train.save_every = 2000
  return config


def _editing(latents: str, start: str = 'video') -> ConfigDict:
  config = with_editing(_video(), TASKS)
  config.start_from = f'{PLACE}/{start}'
  config.data.latents = f'{PLACE}/latents_{latents}'
  return config


def _paired() -> ConfigDict:
  """Clips before and after an edit, of all kinds: what cannot be had of real footage."""
  config = _editing('paired')
  config.data.digits.update(edits=TASKS, empty=0.0)
  del config.buckets.image
  config.encode.train = 32768
  config.optimizer.learning_rate = 1.6e-3
  config.train.steps = 14_000
  return config


def _images() -> ConfigDict:
  return with_images(_editing('images'), _pairs(OF_PICTURES))


def _frames() -> ConfigDict:
  return with_frames(_editing('frames', 'images'), _pairs(OF_PICTURES), _pairs(('mark',)))


def _backtranslation() -> ConfigDict:
  config = _editing('backtranslation', 'frames')
  config.data.digits.update(edits=OF_PICTURES[:-1], empty=0.0)
  captions = {'digits': {**WORLD, 'empty': 0.1}}
  pictures = _pairs(OF_PICTURES)
  marked = _pairs(('mark',))
  return with_backtranslation(config, captions, pictures, marked, PLACE, f'{PLACE}/clip')


def with_images(config: ConfigDict, pictures: dict[str, Any]) -> ConfigDict:
  """Stage I: pairs of pictures, five times as often as clips that are made of a caption."""
  side = config.buckets.video.height
  config.data.sources = ConfigDict({'pictures': pictures})
  config.buckets = ConfigDict(
    {
      'pictures': _bucket(side, 1, 32, 5, 'pictures'),
      'video': _bucket(side, 16, 8, 1),
    }
  )
  config.train.steps = 2500
  return config


def with_frames(config: ConfigDict, pictures: dict[str, Any], marked: dict[str, Any]) -> ConfigDict:
  """Stage II: animated pairs of pictures, things that are marked, and captions."""
  side = config.buckets.video.height
  config.data.sources = ConfigDict({'pictures': pictures, 'marked': marked})
  config.buckets = ConfigDict(
    {
      'animated': _bucket(side, 16, 8, 2, 'pictures'),
      'marked': _bucket(side, 16, 8, 1, 'marked'),
      'video': _bucket(side, 16, 8, 1),
    }
  )
  config.edits.animated = ('animated',)
  config.train.steps = 3000
  return config


def with_backtranslation(
  config: ConfigDict,
  captions: dict[str, Any],
  pictures: dict[str, Any],
  marked: dict[str, Any],
  place: str,
  recogniser: str,
) -> ConfigDict:
  """Stage III: from what the model of stage II, in `place`, made of clips, back to the clips."""
  side = config.buckets.video.height
  # What came before goes on beside it, lest it be forgotten; the latents are those of stage II.
  before = {'latents': f'{place}/latents_frames'}
  sources = (captions, pictures, marked)
  named = zip(('captions', 'pictures', 'marked'), sources, strict=True)
  config.data.sources = ConfigDict({name: each | before for name, each in named})
  config.buckets = ConfigDict(
    {
      'backtranslated': _bucket(side, 16, 8, 3),
      'animated': _bucket(side, 16, 8, 1, 'pictures'),
      'marked': _bucket(side, 16, 8, 1, 'marked'),
      'video': _bucket(side, 16, 8, 1, 'captions'),
    }
  )
  config.edits.animated = ('animated',)
  config.backtranslation = ConfigDict(
    {
      'editor': f'{place}/frames',
      'recogniser': recogniser,
      'clips': 2048,
      'validation': 256,
      'direction': 0.35,
      'structure': 0.5,
      'noise': 0.1,
      'own_edits': False,  # True trains on the model's edits, not turned round (Table 21)
      'seed': 0,
    }
  )
  config.train.steps = 4000
  return config


def _pairs(edits: tuple[str, ...]) -> dict[str, Any]:
  colours = MORE if edits == OF_PICTURES else COLOURS
  return {'digits': {**WORLD, 'jitter': 3.0, 'edits': edits, 'colours': colours}}


def _bucket(
  side: int, frames: int, batch_size: int, weight: int, source: str = ''
) -> dict[str, Any]:
  size = {'frames': frames, 'height': side, 'width': side}
  return {**size, 'batch_size': batch_size, 'weight': weight, 'source': source}
