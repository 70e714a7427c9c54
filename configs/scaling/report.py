"""The paper's own sweep: four sizes on text to image at 256 px (Movie Gen §3.6.2, Table 10).

python -m launch.scaling plan --config=configs/scaling/report.py --topology=v5p:8x8x8

5B, 9B, 17B and 30B at 1e22 to 1.7e22 FLOPs. The widths and depths of 9B and 17B are those of the
ladder: not in public sources, as is which size had which budget.
"""

from ml_collections import ConfigDict

from ..video import t2i_256


def get_config() -> ConfigDict:
  config = ConfigDict({'recipes': {'llama': t2i_256.get_config('5b')}, 'samples': 0})
  config.grid = ConfigDict(
    {
      'budgets': (1e22, 1.7e22),
      'heads': (24, 31, 39, 48),
      'head_dim': 128,
      'learning_rate': {'value': 1e-4},
      'batch': {'value': 9216.0},
      'reference': {'size': 3e10, 'tokens': 5e11},
      'rates': (1.0,),
      'seeds': (0,),
      'warmup': 0.01,
      'validations': 8,
    }
  )
  return config
