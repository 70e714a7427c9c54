"""How loss falls with size and data, of two blocks on the same latents (Movie Gen §3.6).

python -m launch.data encode --config=configs/scaling/isoflop.py:latents \
  --output=runs/isoflop/latents
python -m launch.scaling plan --config=configs/scaling/isoflop.py
python -m launch.scaling run --config=configs/scaling/isoflop.py --workdir=runs/isoflop/grid
python -m launch.scaling compare --records=runs/isoflop/grid/sweep.jsonl --first=llama --second=dit

Text to image on the digits, as the paper's sweep is, with the autoencoder and the text encoder of
`make quickstart`. That encoder is frozen, as the paper's are, or it would be most of the work of
the smallest models. With :rates it is a search for the learning rate, of a small and a large model
of one budget. With :videos, :videos_rates and :videos_latents it is text to video, which wants 16
times the compute. With :muon the second recipe is the first one trained with Muon in
place of AdamW, at a quarter of the four smaller budgets, which says whether what Muon saves grows
with compute.
"""

from ml_collections import ConfigDict

from ..digits import video
from ..video.sizes import DIT

BUDGETS = (2.5e11, 5e11, 1e12, 2e12, 4e12)
MORE = 16  # times these of videos
ENCODER = ('table', 'places', 'words', 'layer_0', 'layer_1', 'norm')  # all but the map to the width


def get_config(argument: str = '') -> ConfigDict:
  parts = argument.split('_')
  videos = 'videos' in parts
  llama = recipe(videos)
  if 'latents' in parts:
    return llama
  other = recipe(videos)
  if 'muon' in parts:
    other.optimizer.name = 'muon'
    config = ConfigDict({'recipes': {'adamw': llama, 'muon': other}, 'samples': 0})
  else:
    other.model.update(DIT)
    config = ConfigDict({'recipes': {'llama': llama, 'dit': other}, 'samples': 0})
  config.grid = ConfigDict(
    {
      'budgets': tuple(budget * (MORE if videos else 1) for budget in BUDGETS),
      'sizes': 5,
      'decades': 0.9,
      'centre': {'value': 5.4e4, 'compute': 1e12, 'by_compute': 0.5},
      # Heads of 8 and layers of a number: the ladder's own are too coarse for models so small.
      'head_dim': 8 if videos else 4,
      'depth': 3,
      # Found with :rates: the best of .4 to 6 times is near this for both blocks.
      'learning_rate': {'value': 1.7e-2, 'by_size': -0.15},
      'batch': {'value': 8.0 if videos else 16.0},
      'reference': {'size': 5.4e4, 'tokens': 3e6},
      'rates': (1.0,),
      'seeds': (0, 1, 2),
      'warmup': 0.05,
      'validations': 8,
    }
  )
  if 'muon' in parts:
    config.grid.budgets = tuple(budget / 4 for budget in config.grid.budgets[:-1])
  if 'rates' in parts:
    config.grid.update(budgets=config.grid.budgets[1:2], sizes=2, seeds=(0,), rates=(0.4, 1.0, 2.5))
  return config


def recipe(videos: bool) -> ConfigDict:
  config = video.get_config()
  name, clips = ('video', 220_000) if videos else ('image', 300_000)
  config.buckets = ConfigDict({name: config.buckets[name]})
  if not videos:
    config.model.update(patch=(1, 1, 1), positions=(1, 8, 8))
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.data.latents = 'runs/isoflop/latents'
  config.data.digits.length = clips  # as many as the longest run reads: none is seen twice
  config.start_from = ','.join(f'text/{name}=runs/quickstart/video:text/{name}' for name in ENCODER)
  config.optimizer.rates = (('text/project*', 1.0), ('text/*', 0.0))
  config.encode.train = clips
  config.encode.validation = 2048
  config.train.validation_batches = 256
  # By the times that training draws: of the last tenth, which it hardly sees, one run of 35 came to
  # a loss half as high again in its last steps, and no other number of it moved.
  config.objective.validation_time = ConfigDict(config.objective.time)
  config.objective.validation_time.name = 'stratified_logit_normal'
  return config
