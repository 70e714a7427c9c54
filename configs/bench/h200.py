r"""The 30B model at 73,728 tokens a sample (768 px) or at 8,192 (256 px), on one H200.

XLA_CLIENT_MEM_FRACTION=.95 python -m launch.bench --config=configs/bench/h200.py:73728 \
  --what=blocks --layers=0 --out=blocks.json
XLA_CLIENT_MEM_FRACTION=.95 python -m launch.bench --config=configs/bench/h200.py:73728 \
  --what=step --layers=0 --out=step.json
XLA_PYTHON_CLIENT_PREALLOCATE=false python -m launch.bench --config=configs/bench/h200.py:73728 \
  --what=attention --baseline=jax.nn --baseline=tests/oracles/torch_attention.py \
  --out=attention.json
XLA_CLIENT_MEM_FRACTION=.5 python -m launch.bench --config=configs/bench/h200.py:73728 \
  --what=blocks --layers=2 --baseline=tests/oracles/torch_backbone.py --out=baseline.json

The same with h200.py:8192. On eight of them, which share a sample: --config.mesh.context=8.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..video.t2iv_768 import get_config as stage

# Tokens of a sample: (height and width in pixels, rows of a batch).
SAMPLES = {'73728': (768, 1), '8192': (256, 4)}


def get_config(tokens: str = '73728') -> ConfigDict:
  if tokens not in SAMPLES:
    raise ConfigError(f'{tokens} tokens: expected one of {", ".join(SAMPLES)}')
  side, rows = SAMPLES[tokens]
  config = stage('30b')
  config.buckets = ConfigDict(
    {'video': {'frames': 256, 'height': side, 'width': side, 'batch_size': rows, 'weight': 1}}
  )
  # With context = 8, fsdp is what eight devices leave: 1. Weights are cut over both.
  config.mesh = ConfigDict({'fsdp': -1, 'context': 1})
  config.rules = 'fsdp_cp'
  return config
