r"""Does one learning rate serve all widths: three widths, five rates, as they are and scaled.

python -m launch.scaling run --config=configs/scaling/widths.py --workdir=runs/widths
python -m launch.scaling rank --records=runs/widths/sweep.jsonl --score=validation_loss

Text to video on moving digits, on what `make quickstart` made, one seed an arm. With `scaled` the
kernels that read the model's width learn at a rate that falls with it: 128 / width of the
configuration's, by `optimizer.rates`. So does the maximal update parametrisation for Adam (Yang et
al. 2022, arXiv 2203.03466). Initial weights have it already: kernels begin at a variance
of one over their inputs, and the last one at zero. With widths.py:muon updates are Muon's.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import video

WIDTHS = (64, 128, 256)
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)  # times that of the configuration
TUNED = 128  # the width of the configuration
STEPS = 1400
READ = ('backbone/layers/*kernel', 'backbone/patch_out/kernel', 'backbone/time/*kernel')


def get_config(optimizer: str = 'adamw') -> ConfigDict:
  if optimizer not in ('adamw', 'muon'):
    raise ConfigError(f'{optimizer!r}: expected adamw or muon')
  config = ConfigDict({'arms': {}, 'seeds': {}, 'samples': 108})
  for rule in ('plain', 'scaled') if optimizer == 'adamw' else ('plain',):
    for width in WIDTHS:
      for rate in RATES:
        name = f'{rule}_{width}_{rate:g}'.replace('.', '_')
        config.arms[name] = arm(optimizer, rule, width, rate)
        config.seeds[name] = (0,)
  return config


def arm(optimizer: str, rule: str, width: int, rate: float) -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.data.latents = 'runs/quickstart/latents'
  config.model.update(dim=width, heads=width // 32, mlp_dim=3 * width)
  config.train.steps = config.train.evaluate_every = config.train.save_every = STEPS
  config.optimizer.learning_rate *= rate
  config.optimizer.name = optimizer
  if rule == 'scaled' and width != TUNED:
    config.optimizer.rates = tuple((name, TUNED / width) for name in READ)
  return config
