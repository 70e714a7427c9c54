"""Speed of the data: clips against other loaders.

python -m launch.bench --config=configs/bench/data.py:footage/ --what=data \\
  --baseline=tests/oracles/torch_loader.py --baseline=tests/oracles/decord_loader.py
footage/ holds videos; up to `seconds` of each are encoded with a key frame every `gops` frames.
"""

from ml_collections import ConfigDict


def get_config(path: str = 'footage') -> ConfigDict:
  """Returns the configuration; `path` is a folder of videos."""
  config = ConfigDict()
  config.component = 'data'
  config.path = path
  config.seconds = 10.0
  config.gops = (16, 250)
  config.windows = 256  # read in one run
  config.frames = 16
  config.fps = 16
  config.height = 256
  config.width = 256
  config.batch_size = 8
  config.threads = 0  # of our loader; 0 is one a core, as baselines have a worker a core
  return config
