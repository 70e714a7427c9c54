r"""The encoder of UMT5-xxl, which reads the prompts of Wan: 5.7B parameters.

python -m launch.weights import --config=configs/text/umt5_xxl.py \
  --input=Wan2.1-T2V-1.3B-Diffusers/text_encoder --workdir=runs/wan/text \
  --tokenizer=Wan2.1-T2V-1.3B-Diffusers/tokenizer
The folder is one of transformers. The file models_t5_umt5-xxl-enc-bf16.pth of the original code is
read as well, with --tokenizer=google/umt5-xxl. Sizes are those of the published google/umt5-xxl.
"""

from ml_collections import ConfigDict

from .ul2 import get_config as ul2


def get_config() -> ConfigDict:
  config = ul2()
  config.model.update(
    vocabulary=256_384,
    depth=24,
    heads=64,
    head_size=64,
    mlp_dim=10_240,
    activation='gelu',
    bias_in_every_layer=True,
  )
  return config
