"""The encoder of T5-base, which reads the captions of audio (§6): 110M parameters.

python -m launch.weights import --config=configs/text/t5_base.py --input=t5/ --workdir=runs/t5_base
python -m launch.bench --config=configs/text/t5_base.py --what=encode \\
  --config.model.dtype=float32 --config.length=128 --baseline=tests/oracles/transformers_t5.py
Sizes are those of the published google-t5/t5-base; T5 1.1 of this size has model.mlp_dim = 2048,
model.activation = 'gelu' and model.gated = True. Which of them the paper's authors took is not
public.
"""

from ml_collections import ConfigDict

from .ul2 import get_config as ul2


def get_config() -> ConfigDict:
  config = ul2()
  config.keep_type = False
  config.model.update(
    dim=768, depth=12, heads=12, head_size=64, mlp_dim=3072, activation='relu', gated=False
  )
  return config
