"""What the stages of pre-training share: data, buckets, objective, sharding (Movie Gen §3.2.2)."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from mgjax.data.buckets import Shape, rows_for

from ..base import clips, flow_model
from ..text.encoders import VIDEO, places, split
from .sizes import WORDS, fields

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
  config = flow_model('video', **fields(size, positions))
  _, words = split(size, *WORDS)
  config.autoencoder = 'runs/tae'
  # `launch.plan` says what fits a machine; the report has tensor = 4 and context up to 2.
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp_tp_cp'
  config.data = clips(fps=FPS)
  config.text = places(VIDEO) if 'encoders' in words else ConfigDict()
  config.embeddings = ''  # of prompts, by those encoders; '' has them beside the latents
  if 'v_prediction' in words:
    set_v_prediction(config)
  config.train.save_every = 1000
  config.train.evaluate_every = 1000
  return config


def set_v_prediction(config: ConfigDict) -> None:
  """Sets the objective of the paper's other arm (Table 8): diffusion with no signal at its end.

  All beside the prediction and the zero terminal signal-to-noise ratio is not in public sources.
  """
  config.objective.time = ConfigDict({'name': 'uniform'})
  config.objective.prediction = ConfigDict(
    {'name': 'v_prediction', 'steps': 1000, 'first': 0.00085, 'last': 0.012}
  )


def joint_buckets(
  size: str,
  ratios: Mapping[str, tuple[int, int]],
  batch_size: int,
  multiple: int = 512,
  durations: Mapping[str, tuple[int, tuple[int, int]]] = DURATIONS,
  images: bool = True,
) -> ConfigDict:
  """Returns buckets of videos of some durations and of images, for every (height, width).

  The paper's are the batch sizes and 1 : 10, which leaves open of what; ours is to read it as
  batches of images to batches of videos. Every batch has the same rows, which is what makes the
  paper's samples (113K x 1,536 + 72K x 3,072 = 394.8M), so one row in eleven is an image. Behind
  `size`, 'equal_cost' makes batches of about as many latent places instead: a batch of images has
  32 times the rows of one of 256 frames, and a stage four times the samples.

  The buckets of images, and those of videos, share their turns by what they hold (`data.share`).
  The five values of the aspect ratio are not in public sources.

  Args:
    size: the argument of the configuration.
    ratios: name -> (height, width).
    batch_size: of every bucket; at equal cost of the longest clips of the first ratio.
    multiple: at equal cost, of which all batch sizes are one, so that as many groups of devices can
      share them.
    durations: of videos, as `DURATIONS`.
    images: whether there are images.
  """
  buckets = {}
  for name, (height, width) in ratios.items():
    shape = {'height': height, 'width': width, 'batch_size': batch_size}
    for length, (frames, fps) in durations.items():
      weight = 10 / len(durations)
      buckets[f'video_{name}_{length}'] = {'frames': frames, 'fps': fps, 'weight': weight, **shape}
    if images:
      buckets[f'image_{name}'] = {'frames': 1, 'weight': 1, **shape}
  if 'equal_cost' in split(size, *WORDS)[1]:
    longest = max(frames for frames, _ in durations.values())
    like = Shape(longest, *next(iter(ratios.values())), (FPS, FPS))
    for bucket in buckets.values():
      shape = Shape(bucket['frames'], bucket['height'], bucket['width'], (FPS, FPS))
      bucket['batch_size'] = rows_for(shape, like, batch_size, multiple)
  return ConfigDict(buckets)
