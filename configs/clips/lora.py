r"""Adapters (LoRA) of a trained model on 20 to 60 clips of your own, minutes of two CPU cores.

python -m launch.train --config=configs/clips/lora.py:my_clips/ --workdir=runs/style
python -m launch.train --config=configs/clips/lora.py:my_clips/,digits/video --workdir=runs/style
python -m launch.sample video --workdir=digits/video --lora=runs/style:0.8 \
  --prompt='the red digit 3 moves left'
python -m launch.weights export --workdir=runs/style --format=kohya --out=style.safetensors

Behind the folder stands the model that they change, by default digits/video.
Clips are a folder of videos with captions (clip.mp4 and clip.txt), or a .csv or .jsonl with the
columns video and caption. Name in captions what is new by a word of its own. Pictures of samples
in the work directory show the model without the adapters too, at the same noise.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.training.checkpoints.workdir import read_config

from ..base import base, clips

BASE = 'digits/video'


def get_config(what: str = '') -> ConfigDict:
  path, comma, model = what.partition(',')
  model = model if comma else BASE
  config = read_config(model)
  if config.component != 'video':
    raise ConfigError(f'{model!r} is {config.component}; expected a model of text to video')
  name = max(config.buckets, key=lambda each: config.buckets[each].frames)
  config.data = clips(path, fps=config.data.fps, threads=4)
  config.buckets = ConfigDict({name: config.buckets[name].to_dict() | {'batch_size': 8}})
  config.start_from = model
  usual = base('video')
  config.lora = usual.lora
  config.lora.update(rank=8, targets=('backbone/layers/*', 'text/*'))
  config.optimizer = usual.optimizer
  config.optimizer.update(learning_rate=2e-3, warmup=20, schedule='cosine')
  config.train = usual.train
  config.train.update(steps=400, ema_decay=0.99, evaluate_every=100, save_every=100)
  return config
