"""What the stages of pre-training share: data, buckets, objective, sharding (Movie Gen §3.2.2)."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from mgjax.data.buckets import Shape, rows_for

from ..base import base, clips, encoding, sampling
from ..text.encoders import VIDEO, places, split
from .sizes import model

FPS = 16  # of what is sampled; clips are taken at the rates below, which their prompts name

# The report's five durations (App. J.1): frames, and from the lowest to the highest rate. A clip of
# 16 s or more gives windows of 16 s; the first is for clips of just that length.
DURATIONS = {
  '11s': (256, (24, 24)),
  '16s': (256, (16, 16)),
  '12_16s': (256, (16, 21)),
  '8_12s': (192, (16, 24)),
  '4_8s': (128, (16, 32)),
}


def stage(size: str, positions: tuple[int, int, int]) -> ConfigDict:
  """Returns a stage without its buckets, learning rate and length."""
  config = base()
  config.component = 'video'
  config.autoencoder = 'runs/tae'
  config.start_from = ''
  # `launch.plan` says what fits a machine; the report has tensor = 4 and context up to 2.
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp_tp_cp'
  config.data = clips(fps=FPS)
  config.model = model(size, positions)
  config.text = places(VIDEO) if split(size, 'encoders')[1] else ConfigDict()
  config.embeddings = ''  # of prompts, by those encoders; '' has them beside the latents
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


def joint_buckets(
  ratios: Mapping[str, tuple[int, int]],
  batch_size: int,
  multiple: int = 512,
  durations: Mapping[str, tuple[int, tuple[int, int]]] = DURATIONS,
  images: bool = True,
) -> ConfigDict:
  """Returns buckets of videos of some durations and of images, for every (height, width).

  Batches cost about the same: those of shorter clips, and of images, have as many more rows. Ten
  batches of videos come to one of images (1 : 10 in the report); among each the buckets share the
  turns by what they hold (`data.share`). The five values of the aspect ratio are not in public
  sources.

  Args:
    ratios: name -> (height, width).
    batch_size: of the longest clips of the first ratio.
    multiple: of which all batch sizes are one, so that as many groups of devices can share them.
    durations: of videos, as `DURATIONS`.
    images: whether there are images.
  """
  longest = max(frames for frames, _ in durations.values())
  height, width = next(iter(ratios.values()))
  like = Shape(longest, height, width, (FPS, FPS))
  buckets = {}
  for name, (height, width) in ratios.items():
    for length, (frames, fps) in durations.items():
      shape = {'frames': frames, 'height': height, 'width': width, 'fps': fps}
      buckets[f'video_{name}_{length}'] = {**shape, 'weight': 10 / len(durations)}
    if images:
      shape = {'frames': 1, 'height': height, 'width': width}
      buckets[f'image_{name}'] = {**shape, 'weight': 1}
  for bucket in buckets.values():
    shape = Shape(bucket['frames'], bucket['height'], bucket['width'], (FPS, FPS))
    bucket['batch_size'] = rows_for(shape, like, batch_size, multiple)
  return ConfigDict(buckets)
