r"""The stages of personalization, each from the one before (Movie Gen §4).

python -m launch.recipe --config=configs/personalization/recipe.py:30b --workdir=runs/personal \
  --config.autoencoder=runs/tae --config.paired=data/paired --config.cross=data/cross \
  --config.start_from==runs/t2iv_768,identity/vision=runs/metaclip_vision

Add --dry_run to see all stages and stop. The size is one of configs/video/sizes.py.
"""

from ml_collections import ConfigDict

from . import personalization


def get_config(size: str = '30b') -> ConfigDict:
  config = ConfigDict(
    {
      'autoencoder': 'runs/tae',
      'start_from': '=runs/t2iv_768,identity/vision=runs/metaclip_vision',
      'paired': 'data/paired',
      'cross': 'data/cross',
      'selected_paired': 'data/selected_paired',
      'selected_cross': 'data/selected_cross',
    }
  )
  stages = {name: personalization.get_config(f'{size},{name}') for name in personalization.STEPS}
  before = ''
  for name, stage in stages.items():
    stage.autoencoder = config.get_oneway_ref('autoencoder')
    stage.start_from = before or config.get_oneway_ref('start_from')
    before = name
  for name, path in (
    ('identity', 'paired'), ('long', 'paired'), ('naturalness', 'cross'),
    ('finetune', 'selected_cross'),
  ):  # fmt: skip
    stages[name].data.path = config.get_oneway_ref(path)
  stages['finetune'].data.sources.paired.path = config.get_oneway_ref('selected_paired')
  config.stages = stages
  config.order = tuple(stages)
  return config
