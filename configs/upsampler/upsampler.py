r"""The spatial upsampler: 2x, clips of 14 HD frames at 24 frames a second (Movie Gen §3.1.5).

python -m launch.data encode --config=configs/upsampler/upsampler.py --output=data/hd_latents \
  --config.autoencoder=runs/image_autoencoder --config.data.path=data/hd \
  --config.pairs.temporal_autoencoder=runs/tae --config.pairs.reconstructed=0.25
python -m launch.train --config=configs/upsampler/upsampler.py --workdir=runs/upsampler \
  --config.autoencoder=runs/image_autoencoder --config.data.latents=data/hd_latents \
  --config.start_from=runs/t2i_1024
python -m launch.sample upsample --workdir=runs/upsampler --video=768px.mp4 --factor=1.9

The size is one of configs/video/sizes.py, 7b in the paper, which starts from a text-to-image run
of that size (configs/video/t2i_1024.py:7b). Latents of launch.data encode are several times
faster than clips that are degraded during training, and a fraction of them can be the temporal
autoencoder's reconstructions, which need it.
"""

from ml_collections import ConfigDict

from mgjax.core.settings import defaults
from mgjax.sections.upsampler.geometry import Windows
from mgjax.sections.upsampler.section import Pairs

from ..video.stage import stage
from ..video.t2i_1024 import POSITIONS

FRAMES, FPS = 14, 24


def get_config(size: str = '7b') -> ConfigDict:
  config = stage(size, POSITIONS)
  config.component = 'upsampler'
  config.autoencoder = 'runs/image_autoencoder'
  config.data.path = 'data/hd'  # 400,000 videos in the report
  config.data.fps = FPS
  config.mesh.context = 4
  # The size of crops and the batch are not in public sources.
  shape = {'frames': FRAMES, 'height': 1024, 'width': 1024}
  config.buckets = ConfigDict({'video': {**shape, 'batch_size': 256, 'weight': 1}})
  config.model.conditionings.low_resolution = ConfigDict({'kind': 'low_resolution'})
  config.objective.dropout.low_resolution = 0.0
  # Four variants of a clip, which is not in public sources, degraded as Real-ESRGAN does it
  # (mgjax/sections/upsampler/recipe.py has the fields).
  config.pairs = defaults(Pairs, variants=4, degradation={})
  config.windows = defaults(Windows, feather=128)  # not in public sources
  config.sample.steps = 20
  config.sample.guidance = (('text', 1.0),)  # not in public sources
  config.optimizer.learning_rate = 3e-5  # not in public sources
  config.train.steps = 50_000  # not in public sources
  return config
