"""Text to video from published weights of Wan: five seconds of 480 x 832 pixels.

python -m launch.weights import --config=configs/wan/text_to_video.py:1.3b \\
  --input=Wan2.1-T2V-1.3B-Diffusers/ --workdir=runs/wan
python -m launch.sample video --workdir=runs/wan --prompt='a cat walks on grass' --out=cat.mp4
python -m launch.train --config=configs/wan/text_to_video.py:1.3b,lora --workdir=runs/style \\
  --config.start_from=runs/wan --config.autoencoder=runs/wan/autoencoder \\
  --config.data.path=data/clips

The sizes are 1.3b, 14b, 5b and a14b, whose two experts are trained one at a time: behind the size,
'early' or 'late' is the one of more or less noise. 'lora' trains adapters, without it all weights
are trained. '720p' has 720 x 1280 pixels. Shift, guidance and steps are those of the authors'
sampler, which the published files do not hold. Pictures are read by configs/wan/image_to_video.py.
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
SIZES['5b'] = {'dim': 3072, 'depth': 30, 'heads': 24, 'mlp_dim': 14336, 'channels_out': 48}
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
  config.data = clips(fps=24 if size == '5b' else 16)
  frames, height, width = 81, 480, 832
  if size == '5b':
    frames, height, width = 121, 704, 1280
  elif '720p' in words:
    height, width = 720, 1280
  config.buckets = ConfigDict(
    {'video': {'frames': frames, 'height': height, 'width': width, 'batch_size': 1, 'weight': 1}}
  )
  two_experts = size == 'a14b'
  set_sampler(config, shift=12.0 if two_experts else 5.0)
  if two_experts:
    config.sample.steps = 40
    set_experts(config, words, BOUNDARY, (4.0, 3.0))
  config.optimizer.learning_rate = 1e-5
  config.train.steps = 2000
  if 'lora' in words:
    config.lora.update(rank=32, targets=('backbone/layers/*',))
    config.optimizer.learning_rate = 1e-4
  return config


def set_sampler(config: ConfigDict, *, shift: float, guidance: float = 5.0) -> None:
  """Sets the sampler of the authors, and shifts the times of training as much."""
  config.sample.schedule = ConfigDict({'name': 'wan', 'shift_factor': shift})
  config.sample.update(solver='unipc', guidance=(('text', guidance),), known_steps=0)
  config.objective.time.mean = -math.log(shift)


def set_experts(
  config: ConfigDict, words: set[str], since: float, scales: tuple[float, float]
) -> None:
  """Sets the guidance of both experts, and draws times of one alone: of the late one from `since`.

  Args:
    words: behind the size; 'late' is the late expert.
    scales: of the early and the late expert.
  """
  early, late = scales
  scale = early if early == late else ((early, (0.0, since)), (late, (since, 1.0)))
  config.sample.guidance = (('text', scale),)
  if 'late' in words:
    config.objective.time.low = since
  else:
    config.objective.time.high = since
