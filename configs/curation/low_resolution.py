r"""The low-resolution set (App. J.1): shorter side of 720 px or more, 60% landscape.

python -m launch.curate --input=raw/ --output=runs/curation/low \
  --config=configs/curation/low_resolution.py
"""

from ml_collections import ConfigDict

from . import high_resolution


def get_config() -> ConfigDict:
  config = high_resolution.get_config()
  config.keep.update({'side': 720, 'aspect': 0.0, 'landscape': 0.6, 'clip_seconds': (4.0, 16.0)})
  config.order = (*high_resolution.ORDER, 'mixture')
  return config
