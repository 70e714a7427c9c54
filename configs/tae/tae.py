"""The temporal autoencoder in the report's size: 8 x 8 x 8 compression, 16 channels (§3.1.1).

python -m launch.train --config=configs/tae/tae.py --workdir=runs/tae --config.data.path=data/clips
"""

from ml_collections import ConfigDict

from configs.base import base, clips


def get_config() -> ConfigDict:
  config = base()
  config.part = 'autoencoder'
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp'
  config.data = clips()
  # Sizes and batches are not in public sources; one batch of images comes to three of videos.
  config.buckets = ConfigDict(
    {
      'video': {'frames': 32, 'height': 256, 'width': 256, 'batch_size': 64, 'weight': 3},
      'image': {'frames': 1, 'height': 256, 'width': 256, 'batch_size': 512, 'weight': 1},
    }
  )
  config.model = ConfigDict(
    {
      'latent_channels': 16,
      # Widths, blocks a level and groups are not in public sources: those of Rombach et al. (2022),
      # whose architecture the report starts from.
      'widths': (128, 256, 512, 512),
      'strides': ((2, 2, 2), (2, 2, 2), (2, 2, 2)),
      'blocks': 2,
      'groups': 32,
      'patch': (1, 1, 1),
      'compute': 'bfloat16',
    }
  )
  config.objective = ConfigDict(
    {'squared_weight': 0.0, 'prior_weight': 1e-6}
  )  # the latter not public
  # None of what follows is in public sources.
  config.optimizer.kind = 'cosine'
  config.optimizer.peak = 1e-4
  config.optimizer.warmup = 1000
  config.optimizer.final = 0.1
  config.optimizer.weight_decay = 1e-4
  config.train.steps = 200_000
  config.train.save_every = 1000
  config.train.evaluate_every = 1000
  return config
