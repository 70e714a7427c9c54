r"""The text tower of Long-prompt MetaCLIP, which reads whole prompts (§3.1.4): 354M parameters.

python -m launch.weights import --config=configs/text/metaclip_text.py --input=c/ \
  --workdir=runs/metaclip_text
The folder is one of transformers, the file one of OpenCLIP or OpenAI; of both towers this takes its
own. The paper trained 256 positions where the published towers have 77, and its weights are not
public; nor is which of MetaCLIP's towers it was. Sizes here are those of the published ViT-H/14,
whose vectors of 1024 the paper names where it uses the vision tower (§6).
"""

from ml_collections import ConfigDict

from mgjax.models.clip.towers import ClipText

from ..base import encoder


def get_config() -> ConfigDict:
  config = encoder(
    'clip_text',
    ClipText,
    vocabulary=49408,
    dim=1024,
    depth=24,
    heads=16,
    mlp_dim=4096,
    positions=256,
    projection=1024,
    eos=49407,
    dtype='bfloat16',
  )
  config.tokenizer = 'file'  # beside the weights, or import's --tokenizer
  config.rows, config.length = 8, 256  # of launch.bench
  return config
