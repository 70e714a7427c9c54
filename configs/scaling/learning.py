r"""What learns faster: optimizers, alignment to one's own features, targets and times, as arms.

python -m launch.scaling run --config=configs/scaling/learning.py:digits \
  --workdir=runs/learning/digits
python -m launch.scaling run --config=configs/scaling/learning.py:solids \
  --workdir=runs/learning/solids
python -m launch.scaling rank --records=runs/learning/digits/sweep.jsonl --score=validation_loss
and, at 64 px, from a model that ships with mgjax and has seen one solid, never two:
python -m launch.data encode --config=configs/solids/video.py --output=runs/learning/latents \
  --config.autoencoder=solids/autoencoder
python -m launch.scaling run --config=configs/scaling/learning.py:further \
  --workdir=runs/learning/further

AdamW at five rates, one seed each. Then Muon, alignment, both, and other weights and times, three
seeds each, at the rates that a configuration has (Muon's updates have AdamW's size). On solids,
alignment to a CLIP of solids as well. AdamW for other numbers of steps says what an arm saves. Muon
for twice the steps says whether it lasts. Digits on what `make quickstart` made, solids at 32 px on
what `make quickstart WORLD=solids WORKDIR=runs/solids` made. With a comma and rates
(learning.py:digits,rates) Muon has the five rates too. Ten to thirty minutes a run of one core;
several processes of one command share the runs.

With learning.py:race,align an arm runs in the speedrun (docs/results/speedrun.md), from nothing:
python -m launch.bench --what=speedrun --config=configs/scaling/learning.py:race,align \
  --rounds=1 --out=race.json
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from .. import quickstart
from ..digits import video as digits
from ..solids import video as solids

STEPS = {'digits': 2800, 'solids': 2000, 'further': 1000}
KNOWN = 'backbone=solids/personalization:backbone,text=solids/personalization:text'
RATES = (0.5, 0.75, 1.0, 1.5, 2.0)  # times that of the configuration
ARMS = (
  'adamw',
  'muon',
  'align',
  'align_decoder',
  'muon_align',
  'min_snr',
  'places',
  'x_prediction',
)
LENGTHS = (('adamw', 0.7), ('adamw', 1.5), ('adamw', 2.0), ('muon', 2.0))  # times the steps


def get_config(what: str = 'digits') -> ConfigDict:
  world, _, more = what.partition(',')
  if world == 'race' and more in ARMS:
    config = quickstart.get_config()
    _change(config.stages.video, more)
    return config
  if world not in STEPS or more not in ('', 'rates'):
    raise ConfigError(
      f'{what!r}: expected {" or ".join(STEPS)}, and behind a comma rates; or race,ARM'
    )
  config = ConfigDict({'arms': {}, 'seeds': {}, 'samples': 216 if world == 'digits' else 100})
  for optimizer in ('adamw', 'muon')[: 2 if more else 1]:
    for rate in RATES:
      name = f'{optimizer}_{rate:g}'.replace('.', '_')
      config.arms[name] = arm(world, optimizer, rate)
      config.seeds[name] = (0,)
  arms = ARMS if world == 'digits' else (*ARMS, 'align_clip')  # digits come with no CLIP
  for name in () if more else arms:
    config.arms[name] = arm(world, name)
    config.seeds[name] = (0, 1, 2)
  for optimizer, length in () if more else LENGTHS:
    name = f'{optimizer}_steps_{length:g}'.replace('.', '_')
    config.arms[name] = arm(world, optimizer, length=length)
    config.seeds[name] = (0, 1, 2)
  return config


def arm(world: str, name: str, rate: float = 1.0, length: float = 1.0) -> ConfigDict:
  if world == 'digits':
    config = digits.get_config()
    config.autoencoder = 'runs/quickstart/autoencoder'
    config.data.latents = 'runs/quickstart/latents'
  elif world == 'solids':
    config = solids.get_config('half')
  else:
    config = solids.get_config()
    config.autoencoder = 'solids/autoencoder'
    config.data.latents = 'runs/learning/latents'
    config.start_from = KNOWN
  config.train.steps = config.train.save_every = round(length * STEPS[world])
  config.train.evaluate_every = config.train.steps // 4
  config.optimizer.learning_rate *= rate
  _change(config, name)
  return config


def _change(config: ConfigDict, name: str) -> None:
  if name.startswith('muon'):
    config.optimizer.name = 'muon'
  if 'align' in name:
    known = {'align_decoder': 'decoder', 'align_clip': 'solids/objects'}
    features = known.get(name, 'latents')
    layer = config.model.depth // 2
    config.objective.alignment = ConfigDict({'features': features, 'layer': layer, 'weight': 0.5})
  elif name == 'min_snr':
    config.objective.min_snr = 5.0
  elif name == 'places':
    shape, patch = config.model.positions, config.model.patch
    config.objective.time_places = shape[0] * shape[1] * shape[2] * patch[0] * patch[1] * patch[2]
  elif name == 'x_prediction':
    config.objective.prediction = ConfigDict({'name': 'x_prediction'})
