r"""The stages of editing, each from the one before (Movie Gen §5).

python -m launch.train --config=configs/editing/recipe.py:30b --workdir=runs/edit \
  --config.autoencoder=runs/tae --config.start_from=runs/t2iv_768 --config.clips=data/clips \
  --config.pictures=data/image_edits.jsonl --config.marked=data/marked_clips.jsonl \
  --config.recogniser=runs/metaclip

Add --dry_run to see all stages and stop. The size is one of configs/video/sizes.py. The pairs of
the last stage are made before it by the model of the second.
"""

from ml_collections import ConfigDict

from . import editing


def get_config(size: str = '30b') -> ConfigDict:
  config = ConfigDict(
    {
      'autoencoder': 'runs/tae',
      'start_from': 'runs/t2iv_768',
      'clips': 'data/clips',
      'pictures': 'data/image_edits.jsonl',
      'marked': 'data/marked_clips.jsonl',
      'recogniser': 'runs/metaclip',
    }
  )
  stages = {name: editing.get_config(f'{size},{name}') for name in editing.STEPS}
  before = ''
  for name, stage in stages.items():
    stage.autoencoder = config.get_oneway_ref('autoencoder')
    stage.start_from = before or config.get_oneway_ref('start_from')
    before = name
    stage.data.path = config.get_oneway_ref('clips')
    stage.data.latents = f'latents_{name}'
    for source, data in stage.data.get('sources', {}).items():
      data.path = config.get_oneway_ref(source)
      data.latents = f'latents_{name}'
  made = stages['backtranslation'].backtranslation
  made.editor = 'frames'
  made.recogniser = config.get_oneway_ref('recogniser')
  config.stages = stages
  config.order = tuple(stages)
  return config
