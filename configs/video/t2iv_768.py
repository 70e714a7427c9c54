"""Third stage: images and videos of 768 px together (Movie Gen §3.2.2, Table 3).

python -m launch.data encode --config=configs/video/t2iv_768.py:30b --output=data/latents_768 \\
  --config.autoencoder=runs/tae --config.data.path=data/clips
python -m launch.train --config=configs/video/t2iv_768.py:30b --workdir=runs/t2iv_768 \\
  --config.autoencoder=runs/tae --config.data.path=data/clips \\
  --config.data.latents=data/latents_768 --config.start_from=runs/t2iv_256

The size is one of configs/video/sizes.py. :30b reads bytes of text. :30b,encoders reads the paper's
encoders, which launch.weights imports and launch.data encode runs
(docs/reference/text_encoders.md). With :30b,equal_cost, batches of images and short clips have more
rows than the paper's. Add --dry_run to see the model's parameters and stop.
"""

from ml_collections import ConfigDict

from .stage import joint_buckets, stage

# (height, width) of at most 768 x 768 pixels, in multiples of 16, so that 256 frames are at most
# 32 x 48 x 48 = 73,728 tokens. 1024 x 576 is the report's (and as many), 4 : 3 is chosen.
RATIOS = {
  '1x1': (768, 768),
  '4x3': (640, 864),
  '3x4': (864, 640),
  '16x9': (576, 1024),
  '9x16': (1024, 576),
}

# The spatial tables of the stage before tripled, 3 x 32 = 96. 768 px use the first 48 = 3 x 16, the
# stretch of just those entries that 256 px used, and 1024 px use 64. The temporal one stays.
POSITIONS = (32, 96, 96)


def get_config(size: str = '30b') -> ConfigDict:
  config = stage(size, POSITIONS)
  config.mesh.context = 8  # 9,216 tokens of the longest clips on each
  config.buckets = joint_buckets(size, RATIOS, batch_size=1536)
  config.optimizer.learning_rate = 6e-5
  # The report halves the rate, down to 1e-5, whenever the validation loss is flat, which it was for
  # the first time after 10,000 steps. What counts as flat is not in public sources.
  config.optimizer.plateau.update(patience=5, lowest=1e-5 / 6e-5)
  # The report's: 74,500 steps and 73.8M samples in all, with batches of 1,536 and of 512. Ours, by
  # arithmetic: about 34,800 steps with this one and 39,700 with the small one.
  config.train.steps = 34_800
  return config


def smaller_batch(size: str = '30b') -> ConfigDict:
  """Returns how the paper goes on: with a third of the batch."""
  config = get_config(size)
  config.buckets = joint_buckets(size, RATIOS, batch_size=512)
  # Where the rate was by then is not in public sources.
  config.optimizer.learning_rate = 3e-5
  config.optimizer.plateau.lowest = 1e-5 / 3e-5
  config.train.steps = 39_700
  return config
