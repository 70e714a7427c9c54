"""Moving digits in one to eight steps without guidance, learnt from guided ones.

python -m launch.train --config=configs/digits/few_steps.py --workdir=runs/few_steps
python -m launch.sample --workdir=runs/few_steps --steps=4 --prompt="a red seven moving up"
python -m launch.evaluate --workdir=runs/few_steps --steps=1

Goes on from the model of `make quickstart`, which is the teacher.
"""

from ml_collections import ConfigDict

from . import video

GRID = {'name': 'linear', 'shift_factor': 4.0}  # many steps near the noise, where motion is settled


def get_config() -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.data.latents = 'runs/quickstart/latents'
  config.start_from = 'runs/quickstart/video'
  config.model.conditionings.step_size = ConfigDict({'kind': 'step_size'})
  config.objective.dropout.step_size = 0.0
  config.objective.few_steps = ConfigDict(
    {
      'teacher': config.start_from,
      'guidance': config.sample.guidance,
      'schedule': GRID,
      'steps': 32,
    }
  )
  config.sample.schedule = ConfigDict(GRID)
  config.sample.update(steps=4, guidance=(('text', 1.0),))
  config.optimizer.learning_rate = 5e-4
  config.train.steps = 4000
  config.train.evaluate_every = config.train.save_every = 1000
  return config
