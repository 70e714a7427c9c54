r"""CLIP on images of the moving digits, 15 processor minutes.

python -m launch.train --config=configs/digits/clip.py --workdir=runs/clip
python -m launch.evaluate --workdir=runs/clip

Each tower alone, as a frozen encoder:
python -m launch.weights export --workdir=runs/clip --out=runs/clip_files --format=transformers
python -m launch.weights import --config=configs/digits/clip.py:text --input=runs/clip_files \
  --workdir=runs/clip_text
python -m launch.weights import --config=configs/digits/clip.py:vision --input=runs/clip_files \
  --workdir=runs/clip_vision
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import defaults
from mgjax.models.clip.towers import ClipText, ClipVision

from ..base import base, encoder
from . import autoencoder

TEXT = defaults(
  ClipText,
  vocabulary=384,  # of ByT5's bytes
  dim=64,
  depth=2,
  heads=2,
  mlp_dim=256,
  positions=40,
  projection=64,
  eos=1,
)
VISION = defaults(
  ClipVision, size=32, patch=4, dim=96, depth=3, heads=3, mlp_dim=384, projection=64
)


def get_config(part: str = 'both') -> ConfigDict:
  if part == 'text':
    config = encoder('clip_text', ClipText, **TEXT)
    config.tokenizer = 'bytes'
    # rows: of launch.bench
    config.rows = 8
    config.length = TEXT['positions']
    return config
  if part == 'vision':
    config = encoder('clip_vision', ClipVision, **VISION)
    config.rows = 8  # of launch.bench
    return config
  if part != 'both':
    raise ConfigError(f'part {part!r}: expected both, text or vision')
  config = base('clip')
  config.tokenizer = 'bytes'  # or a file or folder
  config.data = autoencoder.get_config().data
  config.data.digits.extras = ('view',)  # the same handwriting in another scene
  config.data.digits.jitter = 9.0  # anywhere in the frame, as digits that move are
  # Degrees, and of strokes: 30 and 1 make a tower that reads references of personalization.
  config.data.digits.turns, config.data.digits.weights = 0.0, 0.0
  config.buckets = ConfigDict(
    {'image': {'frames': 1, 'height': 32, 'width': 32, 'batch_size': 64, 'weight': 1}}
  )
  config.model = ConfigDict(
    {
      'text': TEXT.to_dict(),
      'vision': VISION.to_dict(),
      'temperature': 0.07,
      'identity': 64,  # 0: captions alone
    }
  )
  config.objective = ConfigDict({'identity_weight': 0.2})
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.final_fraction = 0.02
  config.optimizer.beta2 = 0.98  # CLIP's
  config.optimizer.weight_decay = 0.05
  config.train.steps = 1450
  config.train.ema_decay = 0.995
  config.train.log_every = 50
  config.train.evaluate_every = 200
  config.train.save_every = 200
  config.train.validation_batches = 8
  return config
