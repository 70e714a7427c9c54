"""A picture and a text to video from published weights of Wan.

python -m launch.weights import --config=configs/wan/image_to_video.py:5b --workdir=runs/animate \\
  --input=Wan2.2-TI2V-5B-Diffusers/
python -m launch.sample video --workdir=runs/animate --prompt='the cat yawns' \\
  --condition=first_frame=cat.png --out=cat.mp4

The sizes of 2.1 are 14b and both_ends, which has a first and a last frame; both read CLIP's states
of the pictures. Those of Wan 2.2 are a14b, of two experts, and 5b, which makes videos from text
alone as well. Words behind the size are those of configs/wan/text_to_video.py: '14b,lora,720p'.
Adapters and all weights are trained on clips, whose first frames are the pictures; CLIP stays as
it is.
"""

from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import defaults
from mgjax.models.clip.towers import ClipVision

from ..text.encoders import split
from . import text_to_video

# The size of text_to_video.py whose sizes it shares, and the sampler's shift and guidance.
SIZES: dict[str, dict[str, Any]] = {
  'debug': {'base': 'debug', 'shift': 5.0},
  '14b': {'base': '14b', 'shift': 5.0},
  'both_ends': {'base': '14b', 'shift': 16.0, 'guidance': 5.5},
  'a14b': {'base': 'a14b', 'shift': 5.0},
  '5b': {'base': '5b', 'shift': 5.0},
}
BOUNDARY = 0.1  # the flow time from which on the late expert of 2.2 is asked
# ViT-H/14 but for the last of its 32 layers, whose states are not read.
VISION = defaults(
  ClipVision,
  size=224,
  patch=14,
  dim=1280,
  depth=31,
  heads=16,
  mlp_dim=5120,
  projection=None,
  activation='exact_gelu',
)
STATES = 257  # of a picture: one for the whole, and those of 16 x 16 patches


def get_config(size: str = '5b') -> ConfigDict:
  size, words = split(size, *text_to_video.WORDS)
  if size not in SIZES:
    raise ConfigError(f'there is no size {size!r}; choose one of {", ".join(SIZES)}')
  fields = dict(SIZES[size])
  config = text_to_video.get_config(','.join([fields.pop('base'), *sorted(words)]))
  if size == '14b' and '720p' not in words:
    fields['shift'] = 3.0
  text_to_video.set_sampler(config, **fields)
  read = _conditionings(size)
  config.model.conditionings.update(read)
  config.objective.dropout.update(dict.fromkeys(read, 0.0))
  if size != '5b':
    config.sample.steps = 40
  if size == 'a14b':
    text_to_video.set_experts(config, words, BOUNDARY, (3.5, 3.5))
  if size == 'both_ends':
    config.model.picture_positions = 2 * STATES
  if 'picture' in read and 'lora' not in words:
    config.optimizer.rates = (('picture/vision/*', 0.0), ('*', 1.0))
  return config


def _conditionings(size: str) -> dict[str, dict[str, Any]]:
  """Returns what reads pictures, by name."""
  if size == '5b':
    return {'first': {'kind': 'first_latent', 'share': 0.5}}
  ends = size == 'both_ends'
  frames = {'kind': 'frame_channels', 'first': 1.0 - ends, 'ends': float(ends)}
  if size in ('debug', 'a14b'):
    return {'frames': frames}
  vision = {'kind': 'picture_tokens', 'count': 1 + ends, 'vision': VISION.to_dict()}
  return {'frames': frames, 'picture': vision}
