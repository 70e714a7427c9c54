"""What the stages of pre-training share: data, buckets, objective, sharding (Movie Gen §3.2.2)."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from configs.base import base, clips, encoding, sampling
from configs.video.sizes import model

FPS = 16  # of all clips here; the report keeps each clip's own rate, 16 to 32

# Frames of a clip: 32, 24 and 16 latent frames. The report has five durations, of which three give
# 256 frames and differ in frame rate alone.
LENGTHS = (256, 192, 128)


def stage(size: str, positions: tuple[int, int, int]) -> ConfigDict:
  """Returns a stage without its buckets, learning rate and length."""
  config = base()
  config.part = 'video'
  config.autoencoder = 'runs/tae'
  config.start_from = ''
  # `launch.plan` says what fits a machine; the report has tensor = 4 and context up to 2.
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp_tp_cp'
  config.data = clips(fps=FPS)
  config.model = model(size, positions)
  config.objective = ConfigDict(
    {
      'dropout': {'text': 0.1},  # not in public sources
      'time': {'name': 'logit_normal', 'mean': 0.0, 'std': 1.0},
    }
  )
  config.encode = encoding()
  config.sample = sampling()
  config.train.save_every = 1000
  config.train.evaluate_every = 1000
  return config


def joint_buckets(ratios: Mapping[str, tuple[int, int]], batch_size: int) -> ConfigDict:
  """Returns buckets of videos and images of every (height, width).

  The five values of the aspect ratio, and how much of the data has each, are not in public sources:
  all are equally frequent. Ten batches of videos come to one of images (1 : 10 in the report).
  """
  shared = {'batch_size': batch_size}
  buckets = {}
  for name, (height, width) in ratios.items():
    sizes = {'height': height, 'width': width, **shared}
    for frames in LENGTHS:
      buckets[f'video_{name}_{frames}'] = {'frames': frames, **sizes, 'weight': 10}
    buckets[f'image_{name}'] = {'frames': 1, **sizes, 'weight': len(LENGTHS)}
  return ConfigDict(buckets)
