r"""Solids that begin or end with a picture, or continue a clip; the quickstart's model goes on.

python -m launch.data encode --config=configs/solids/frames.py --output=runs/solids/latents_frames
python -m launch.train --config=configs/solids/frames.py --workdir=runs/solids/frames
python -m launch.sample video --workdir=runs/solids/frames --prompt='a red metal ball rolls left' \
  --condition=first_frame=picture.png --out=out.mp4
python -m launch.sample video --workdir=runs/solids/frames --prompt='a red metal ball rolls left' \
  --continue=clip.mp4 --frames=64 --out=long.mp4
"""

from ml_collections import ConfigDict

from . import video


def get_config() -> ConfigDict:
  config = video.get_config()
  config.start_from = 'runs/solids/video'
  config.data.latents = 'runs/solids/latents_frames'
  config.model.conditionings.frames = ConfigDict(
    {'kind': 'frames', 'stride': 8, 'first': 0.25, 'ends': 0.1, 'prefix': 0.45}
  )
  # A clip of which nothing is known is what a dropped one is: shares of `frames` drop enough.
  config.objective.dropout.frames = 0.0
  config.sample.guidance = (('frames', 1.0), ('text', 4.0))
  config.optimizer.learning_rate = 1e-3
  config.train.steps = 4000
  config.train.evaluate_every = config.train.save_every = 1000
  return config
