r"""The stages of personalization, each from the one before (Movie Gen §4).

python -m launch.train --config=configs/personalization/recipe.py:30b --workdir=runs/personal \
  --config.autoencoder=runs/tae --config.people=data/people --config.selected=data/selected \
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
      'people': 'data/people',
      'selected': 'data/selected',  # by people, for the fine-tuning
    }
  )
  stages = {name: personalization.get_config(f'{size},{name}') for name in personalization.STEPS}
  before = ''
  for name, stage in stages.items():
    stage.autoencoder = config.get_oneway_ref('autoencoder')
    stage.start_from = before or config.get_oneway_ref('start_from')
    before = name
    stage.data.path = config.get_oneway_ref('selected' if name == 'finetune' else 'people')
  stages['finetune'].data.sources.paired.path = config.get_oneway_ref('selected')
  config.stages = stages
  config.order = tuple(stages)
  return config
