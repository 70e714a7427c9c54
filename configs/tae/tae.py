"""The temporal autoencoder in the paper's size: 8 x 8 x 8 compression, 16 channels (§3.1.1).

python -m launch.train --config=configs/tae/tae.py --workdir=runs/tae --config.data.path=data/clips
A curriculum, from small and short to large: `:128`, then `:256` and `:512`, each with
--config.start_from=<the previous work directory>. The first may start from an image autoencoder
that launch.weights imported.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import defaults
from mgjax.models.tae.tiling import Tiling

from ..base import autoencoder, clips

# Sizes, batches and steps are not in public sources; HunyuanVideo also goes from small to large. An
# image is decoded as the 8 frames that its latent frame stands for, so batches cost about the same.
STAGES = {
  '128': {'frames': 16, 'side': 128, 'videos': 256, 'images': 512, 'steps': 100_000},
  '256': {'frames': 32, 'side': 256, 'videos': 64, 'images': 256, 'steps': 200_000},
  '512': {'frames': 64, 'side': 512, 'videos': 16, 'images': 128, 'steps': 50_000},
}


def get_config(stage: str = '256') -> ConfigDict:
  if stage not in STAGES:
    raise ConfigError(f'there is no stage {stage!r}; choose one of {", ".join(STAGES)}')
  fields = STAGES[stage]
  # Widths, blocks a level and groups are not in public sources: those of Rombach et al. (2022),
  # whose architecture the report starts from. model.quant_convolutions is True for weights of
  # Stable Diffusion 1, 2 and XL.
  config = autoencoder(dtype='bfloat16')
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp'
  config.data = clips()
  config.data.intervals = tuple(range(1, 9))  # HunyuanVideo's
  shape = {'height': fields['side'], 'width': fields['side']}
  config.buckets = ConfigDict(  # one batch of images comes to three of videos
    {
      'video': {'frames': fields['frames'], **shape, 'batch_size': fields['videos'], 'weight': 3},
      'image': {'frames': 1, **shape, 'batch_size': fields['images'], 'weight': 1},
    }
  )
  config.objective.update(perceptual=0.1, adversarial=0.05)  # HunyuanVideo's
  config.discriminator.start = fields['steps'] // 10
  # Of time as in the report; of space None: 32 frames of 768 x 768 fit a chip.
  config.tiling = defaults(Tiling)
  # None of what follows is in public sources.
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup = 1000
  config.optimizer.final_fraction = 0.1
  config.optimizer.weight_decay = 1e-4
  config.train.steps = fields['steps']
  config.train.save_every = 1000
  config.train.evaluate_every = 1000
  return config
