r"""CLIP on pictures of solids, some minutes of two CPU cores.

python -m launch.train --config=configs/solids/clip.py --workdir=runs/solids_clip
python -m launch.evaluate --workdir=runs/solids_clip

It knows solids, floors, skies and styles by the captions of edits, so that it judges what an editor
made of a clip. With configs/solids/clip.py:objects it tells one object from others, by its pattern
and colours, in other surroundings.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.lab.worlds.solids.kinds import PATTERNS
from mgjax.lab.worlds.solids.scene import STYLES

from ..digits import clip

VISION = {**clip.VISION, 'size': 64, 'patch': 8}
LENGTH = 160  # bytes of the longest caption of two solids
OBJECTS = {
  'solids': (1, 1),
  'meetings': 0.0,
  'patterns': tuple(PATTERNS),
  'seconds': ('white', 'yellow', 'blue', 'red'),
}


def get_config(what: str = 'captions') -> ConfigDict:
  if what not in ('captions', 'objects'):
    raise ConfigError(f'{what!r}: expected captions or objects')
  config = clip.get_config()
  fields = {'solids': (1, 2), 'wording': 'scene', 'styles': tuple(STYLES), 'extras': ()}
  if what == 'objects':
    fields = {**OBJECTS, 'wording': 'plain', 'extras': ('view',)}
  config.data = ConfigDict(
    {'kind': 'solids', 'solids': fields, 'latents': '', 'fps': 8, 'threads': 2}
  )
  config.buckets.image.update(height=64, width=64)
  config.model.vision.update(size=64, patch=8)
  config.model.text.positions = LENGTH
  config.model.identity = 64 if what == 'objects' else 0
  return config
