r"""The vision tower of MetaCLIP, which reads faces and frames (§4, §6): 632M parameters.

python -m launch.weights import --config=configs/text/metaclip_vision.py --input=c/ \
  --workdir=runs/metaclip_vision
Which of MetaCLIP's towers the paper trained further is not public. Sizes here are those of the
published ViT-H/14, whose vectors have the 1024 numbers that the paper names.
"""

from ml_collections import ConfigDict

from mgjax.models.clip.towers import ClipVision

from ..base import encoder


def get_config() -> ConfigDict:
  config = encoder(
    'clip_vision',
    ClipVision,
    size=224,
    patch=14,
    dim=1280,
    depth=32,
    heads=16,
    mlp_dim=5120,
    projection=1024,
    dtype='bfloat16',
  )
  config.rows = 8  # of launch.bench
  return config
