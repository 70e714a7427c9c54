"""A model of 44M parameters at 2 x 1,024 tokens, to be timed on a CPU.

python -m launch.bench --config=configs/bench/cpu.py --baseline=tests/oracles/torch_backbone.py
"""

from ml_collections import ConfigDict

from ..digits.video import get_config as digits


def get_config() -> ConfigDict:
  config = digits()
  config.buckets = ConfigDict(
    {'video': {'frames': 32, 'height': 256, 'width': 256, 'batch_size': 2, 'weight': 1}}
  )
  config.model.update(
    dim=512,
    depth=8,
    heads=8,
    mlp_dim=2048,
    positions=(4, 16, 16),
    unroll=8,
  )
  config.model.conditionings.text.length = 64
  return config
