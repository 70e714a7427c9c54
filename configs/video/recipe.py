"""The paper's recipe: every stage from the weights of the one before (Movie Gen §3.2.2, §3.3).

python -m launch.train --config=configs/video/recipe.py:30b --workdir=runs/30b \\
  --config.autoencoder=runs/tae --config.path=data/clips --config.selected=data/selected

  t2i_256         1 x 16 x 16   batch 9,216   rate 1e-4   210,000 steps
  t2iv_256        32 x 32 x 32  batch 1,536   rate 6e-5   113,000 steps   time is new, space doubles
  t2iv_256_large  32 x 32 x 32  batch 3,072   rate 6e-5    72,000 steps
  t2iv_768        32 x 96 x 96  batch 1,536   rate 6e-5    34,800 steps   space triples
  t2iv_768_small  32 x 96 x 96  batch   512   rate 3e-5*   39,700 steps   both down to 1e-5
  finetune_1..3*  32 x 96 x 96  batch    64*  rate 1e-5*    5,000 steps*  cosine
  average

* not in public sources; nor are the number of finetunes, what they differ in (here the seed and the
rate) and the weights of their average. A stage that shall read latents from disk gets the name of
their folder, as in --config.stages.t2iv_256.data.latents=latents_256. The size is one of
configs/video/sizes.py; add --dry_run to see all stages and stop. A batch has these rows whatever it
holds, ten of videos to one of images: 394.8M samples at 256 px and 73.8M at 768 px, as in Table 3.
"""

import itertools

from ml_collections import ConfigDict

from . import finetune, t2i_256, t2iv_256, t2iv_768

RATES = (1e-5, 2e-5, 5e-6)  # of the finetunes; not in public sources


def get_config(size: str = '30b') -> ConfigDict:
  config = ConfigDict(
    {
      'autoencoder': 'runs/tae',
      'path': 'data/clips',
      'validation_path': '',  # fixed clips, whose loss decides when rates fall
      'selected': 'data/selected',  # by people, for the finetunes
    }
  )
  stages = {
    't2i_256': t2i_256.get_config(size),
    't2iv_256': t2iv_256.get_config(size),
    't2iv_256_large': t2iv_256.larger_batch(size),
    't2iv_768': t2iv_768.get_config(size),
    't2iv_768_small': t2iv_768.smaller_batch(size),
  }
  for earlier, later in itertools.pairwise(stages):
    stages[later].start_from = earlier
  for number, rate in enumerate(RATES, 1):
    stages[f'finetune_{number}'] = tuned = finetune.get_config(size)
    tuned.start_from = 't2iv_768_small'
    tuned.seed = number
    tuned.optimizer.learning_rate = rate
  for name, stage in stages.items():
    path = 'selected' if name.startswith('finetune') else 'path'
    stage.autoencoder = config.get_oneway_ref('autoencoder')
    stage.data.path = config.get_oneway_ref(path)
    stage.data.validation_path = config.get_oneway_ref('validation_path')
  finetunes = tuple(name for name in stages if name.startswith('finetune'))
  stages['average'] = ConfigDict({'component': 'average', 'of': finetunes, 'greedy': False})
  config.stages = stages
  config.order = tuple(stages)
  return config
