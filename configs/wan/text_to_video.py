"""Text to video from published weights of Wan: five seconds of 480 x 832 pixels.

python -m launch.weights import --config=configs/wan/text_to_video.py:1.3b \\
  --input=Wan2.1-T2V-1.3B-Diffusers/ --workdir=runs/wan
python -m launch.sample --workdir=runs/wan --prompt='a cat walks on grass' --out=cat.mp4
python -m launch.train --config=configs/wan/text_to_video.py:1.3b,lora --workdir=runs/style \\
  --config.start_from=runs/wan --config.autoencoder=runs/wan/autoencoder \\
  --config.data.path=data/clips

The sizes are 1.3b, 14b and a14b, whose two experts are trained one at a time: behind the size,
'early' or 'late' is the one of more or less noise. 'lora' trains adapters, without it all weights
are trained. '720p' has 720 x 1280 pixels. Shift, guidance and steps are those of the authors'
sampler, which the published files do not hold.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.models.wan.transformer import WanTransformer

from ..base import clips, flow_model
from ..text.encoders import split

SIZES: dict[str, dict[str, Any]] = {
  # Small enough to run anywhere; learns nothing worth looking at.
  'debug': {'dim': 48, 'depth': 2, 'heads': 2, 'mlp_dim': 96, 'text_dim': 32},
  '1.3b': {'dim': 1536, 'depth': 30, 'heads': 12, 'mlp_dim': 8960},
  '14b': {'dim': 5120, 'depth': 40, 'heads': 40, 'mlp_dim': 13824},
}
SIZES['a14b'] = SIZES['14b']
WORDS = ('lora', 'early', 'late', '720p')
BOUNDARY = 0.125  # the flow time from which on the late expert of 2.2 is asked


def get_config(size: str = '1.3b') -> ConfigDict:
  size, words = split(size, *WORDS)
  if size not in SIZES:
    raise ConfigError(f'there is no size {size!r}; choose one of {", ".join(SIZES)}')
  fields = SIZES[size]
  width = fields.get('text_dim', 4096)
  text = {'kind': 'text_states', 'encoder': 'umt5', 'features': width, 'length': 512}
  config = flow_model('video', WanTransformer, conditionings={'text': text}, **fields)
  config.model.update(kind='wan', dtype='bfloat16', remat='attention')
  config.autoencoder = 'runs/wan/autoencoder'
  config.text = ConfigDict({'umt5': {'workdir': 'runs/wan/text', 'reads': 'plain_text'}})
  config.embeddings = ''
  config.keep_type = False  # of imported weights; True keeps the type of the files
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp_tp_cp'
  config.data = clips(fps=16)
  height, width = (720, 1280) if '720p' in words else (480, 832)
  config.buckets = ConfigDict(
    {'video': {'frames': 81, 'height': height, 'width': width, 'batch_size': 1, 'weight': 1}}
  )
  two_experts = size == 'a14b'
  _set_sampler(config, shift=12.0 if two_experts else 5.0)
  if two_experts:
    config.sample.update(steps=40, guidance=(('text', 3.0 if 'late' in words else 4.0),))
    _set_expert(config, words)
  config.optimizer.learning_rate = 1e-5
  config.train.steps = 2000
  if 'lora' in words:
    config.lora.update(rank=32, targets=('backbone/layers/*',))
    config.optimizer.learning_rate = 1e-4
  return config


def _set_sampler(config: ConfigDict, shift: float) -> None:
  """Sets the sampler of the authors, and shifts the times of training as much."""
  config.sample.schedule = ConfigDict({'name': 'wan', 'shift_factor': shift})
  config.sample.update(solver='unipc', guidance=(('text', 5.0),), known_steps=0)
  config.objective.time.mean = -math.log(shift)


def _set_expert(config: ConfigDict, words: tuple[str, ...]) -> None:
  """Draws times of one expert alone."""
  if 'late' in words:
    config.objective.time.low = BOUNDARY
  else:
    config.objective.time.high = BOUNDARY
