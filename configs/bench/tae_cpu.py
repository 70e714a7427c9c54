"""The full-size temporal autoencoder in float32, to be timed on a CPU: minutes a program.

python -m launch.bench --config=configs/bench/tae_cpu.py --what=encode --video=1,33,128,128 \\
  --baseline=tests/oracles/torch_autoencoder.py --baseline=tests/oracles/diffusers_autoencoder.py
The same with --what=decode.
"""

from ml_collections import ConfigDict

from ..tae.tae import get_config as tae


def get_config() -> ConfigDict:
  config = tae()
  config.mesh.update(data=-1, fsdp=1)
  config.rules = 'single'
  config.buckets = ConfigDict(
    {'video': {'frames': 17, 'height': 128, 'width': 128, 'batch_size': 1, 'weight': 1}}
  )
  config.model.dtype = 'float32'
  config.objective.update(perceptual=0.0, adversarial=0.0)
  return config
