r"""Sound for videos and text: the audio model's pre-training, and :13b,finetune (§6).

python -m launch.train --config=configs/audio/audio.py:13b --workdir=runs/audio \
  --config.autoencoder=runs/codec --config.data.path=data/clips
python -m launch.train --config=configs/audio/audio.py:13b,finetune --workdir=runs/audio_finetuned \
  --config.autoencoder=runs/codec --config.data.path=data/cinematic --config.start_from=runs/audio
Sizes: debug, 300m, 3b, 9b, 13b; :13b,encoders reads T5's states of captions, not their bytes, and
MetaCLIP's embeddings of frames, not their pixels, both made by launch.data encode
(docs/how_to/make_audio.md). :13b,finetune,hq_audio has ten batches of --config.data.path, the
paper's Cin-AV, to one of audio without pictures, its HQ-A, at
--config.data.sources.hq_audio.path. With --config.data.latents=... read what launch.data encode
encoded.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import audio_model, clips
from ..text.encoders import AUDIO, FRAMES, places, split
from .sizes import fields

SECONDS = 30.0  # 750 latents; longer sounds are cropped
# Of the buckets of pre-training: which the report has is not in public sources, but that its sounds
# last from 4 s on. A sound goes to the longest that it fills, so less than a third of it is lost.
LENGTHS = (4.0, 6.0, 8.0, 10.0, 15.0, 20.0, SECONDS)


def get_config(argument: str = '13b') -> ConfigDict:
  size, words = split(argument, 'finetune', 'encoders', 'hq_audio')
  size_fields = fields(f'{size},encoders' if 'encoders' in words else size, round(SECONDS * 25))
  config = audio_model(**size_fields)
  config.autoencoder = 'runs/codec'
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp_tp_cp'
  config.data = clips(fps=25)
  config.data.rate, config.data.channels = 48_000, 1
  config.text = places(AUDIO) if 'encoders' in words else ConfigDict()
  config.embeddings = ''  # of prompts, by that encoder; '' has them beside the latents
  if 'encoders' in words:
    config.vision = f'runs/{FRAMES[0]}'
  config.train.save_every = 1000
  config.train.evaluate_every = 1000
  picture = {'height': 256, 'width': 256}
  if 'finetune' in words:
    # Batches of 10 s to batches of 30 s, each cut from all sounds that last as long. By 'samples' a
    # sound would have one of the two buckets, and they would come as often as what they hold.
    lengths = {10.0: 5, 30.0: 1}
    config.data.share = 'given'
    config.optimizer.schedule = 'linear'
    config.optimizer.warmup = 5000  # not in public sources
    config.optimizer.final_fraction = 1e-4  # of the peak: 1e-8
    batch_size, config.train.steps = 256, 50_000
  else:
    lengths = dict.fromkeys(LENGTHS, 1)
    config.optimizer.warmup = 5000
    batch_size, config.train.steps = 1536, 500_000
  config.buckets = _buckets('seconds', lengths, batch_size=batch_size, **picture)
  if 'hq_audio' in words:
    if 'finetune' not in words:
      raise ConfigError(f'{argument!r}: hq_audio is for fine-tuning; take {size},finetune,hq_audio')
    config.data.sources = {'hq_audio': {'kind': 'sounds', 'path': 'data/hq_audio'}}
    tenth = {seconds: weight / 10 for seconds, weight in lengths.items()}
    config.buckets.update(_buckets('hq_audio', tenth, batch_size=batch_size, source='hq_audio'))
  return config


def _buckets(name: str, lengths: Mapping[float, float], **fields: Any) -> ConfigDict:
  """Returns a bucket for each length in seconds, with its weight."""
  return ConfigDict(
    {
      f'{name}_{seconds:.0f}': {'seconds': seconds, 'weight': weight, **fields}
      for seconds, weight in lengths.items()
    }
  )
