"""The encoder of UL2, which reads whole prompts (§3.1.4): 8.7B parameters.

python -m launch.weights import --config=configs/text/ul2.py --input=ul2/ --workdir=runs/ul2
python -m launch.plan --config=configs/text/ul2.py --topology=v5p:2x2x1
The folder is one of transformers, config.json and weights; a decoder among them is left out. Sizes
are those of the published google/ul2; which UL2 the paper's authors took is not public.
"""

from ml_collections import ConfigDict

from mgjax.models.text.t5 import T5Encoder

from ..base import encoder


def get_config() -> ConfigDict:
  config = encoder(
    't5',
    T5Encoder,
    vocabulary=32128,
    dim=4096,
    depth=32,
    heads=16,
    head_size=256,
    mlp_dim=16384,
    activation='silu',
    dtype='bfloat16',
  )
  config.keep_type = True
  config.tokenizer = 'file'  # beside the weights, or import's --tokenizer
  config.rows, config.length = 8, 512  # of a plan and of launch.bench; length not in public sources
  return config
