r"""The encoder of ByT5, which reads the quoted text of a prompt letter by letter (§3.1.4).

python -m launch.weights import --config=configs/text/byt5_large.py --input=b/ \
  --workdir=runs/byt5_large
Sizes are those of the published google/byt5-large; which ByT5 the paper's authors took is not
public.
"""

from ml_collections import ConfigDict

from .ul2 import get_config as ul2


def get_config() -> ConfigDict:
  config = ul2()
  config.keep_type = False
  config.tokenizer = 'bytes'
  config.length = 100  # not in public sources
  config.model.update(
    vocabulary=384, dim=1536, depth=36, head_size=64, mlp_dim=3840, activation='gelu'
  )
  return config
