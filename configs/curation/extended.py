r"""The extended high-resolution set (App. J.1): 80% landscape, 60% with people or more.

python -m launch.curate --input=raw/ --output=runs/curation/extended \
  --config=configs/curation/extended.py

Your own function says which clips show people, --config.measure.people.python=...; without one
the share of people is left as it comes.
"""

from ml_collections import ConfigDict

from . import high_resolution


def get_config() -> ConfigDict:
  config = high_resolution.get_config()
  config.keep.update({'aspect': 0.0, 'landscape': 0.8, 'people': 0.6, 'person': 0.5})
  config.order = (*high_resolution.ORDER, 'mixture')
  return config
