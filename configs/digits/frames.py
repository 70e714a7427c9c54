r"""Digits that begin or end with a picture, or continue a clip; the quickstart's model goes on.

python -m launch.data encode --config=configs/digits/frames.py --output=runs/frames/latents
python -m launch.train --config=configs/digits/frames.py --workdir=runs/frames/video
python -m launch.sample --workdir=runs/frames/video --prompt='the red digit 7 moves left' \
  --condition=first_frame=picture.png --out=out.mp4
"""

from ml_collections import ConfigDict

from . import video


def get_config() -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.start_from = 'runs/quickstart/video'
  config.data.latents = 'runs/frames/latents'
  # A digit that crosses the frame once has nowhere to go on to; one that bounces has.
  config.data.digits.update(motions=('left', 'right', 'up', 'down', 'bounce'), laps=0.5)
  config.model.conditionings.frames = ConfigDict(
    {'kind': 'frames', 'stride': 4, 'first': 0.2, 'ends': 0.1, 'prefix': 0.5}
  )
  # A clip of which nothing is known is what a dropped one is: shares of `frames` drop enough.
  config.objective.dropout.frames = 0.0
  config.sample.guidance = (('frames', 1.0), ('text', 4.0))
  config.encode.train = 12_288
  config.optimizer.learning_rate = 1.5e-3
  config.train.steps = 4000
  return config
