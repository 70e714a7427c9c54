"""Second stage: images and videos of 256 px together (Movie Gen §3.2.2, Table 3).

python -m launch.train --config=configs/video/t2iv_256.py:30b --workdir=runs/t2iv_256 \\
  --config.autoencoder=runs/tae --config.data.path=data/clips --config.start_from=runs/t2i_256

The size is one of configs/video/sizes.py. :30b reads bytes of text. :30b,encoders reads the paper's
encoders, which launch.weights imports and launch.data encode runs
(docs/reference/text_encoders.md). With :30b,equal_cost, batches of images and short clips have more
rows than the paper's. Add --dry_run to see the model's parameters and stop.
"""

from ml_collections import ConfigDict

from .stage import joint_buckets, stage

# (height, width) of about 256 x 256 pixels, in multiples of 16: a patch of 2 x 2 latent places of
# 8 x 8 pixels. 352 x 192 is the size of the report's ablations, the rest is chosen.
RATIOS = {
  '1x1': (256, 256),
  '4x3': (224, 288),
  '3x4': (288, 224),
  '16x9': (192, 352),
  '9x16': (352, 192),
}

# The spatial tables of the first stage doubled, 2 x 16 = 32: wide clips need 352 / 16 = 22 entries.
# The temporal one is new, 256 frames / 8 = 32: the single entry of the first stage repeated.
POSITIONS = (32, 32, 32)


def get_config(size: str = '30b') -> ConfigDict:
  config = stage(size, POSITIONS)
  config.buckets = joint_buckets(size, RATIOS, batch_size=1536)
  config.optimizer.learning_rate = 6e-5
  # The report has 185,000 steps and 394.8M samples in all. That the batch doubled after 113,000 is
  # what these two numbers say; an account of it says 123,000, which would make 379.4M.
  config.train.steps = 113_000
  return config


def larger_batch(size: str = '30b') -> ConfigDict:
  """Returns how the paper goes on: twice the devices and the batch, 394.8M samples in all."""
  config = get_config(size)
  config.buckets = joint_buckets(size, RATIOS, batch_size=3072)
  config.train.steps = 72_000
  return config
