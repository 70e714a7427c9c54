r"""Sound for videos and text: the audio model's pre-training, and :13b,finetune (§6).

python -m launch.train --config=configs/audio/audio.py:13b --workdir=runs/audio \
  --config.autoencoder=runs/codec --config.data.path=data/clips
python -m launch.train --config=configs/audio/audio.py:13b,finetune --workdir=runs/audio_finetuned \
  --config.autoencoder=runs/codec --config.data.path=data/cinematic --config.start_from=runs/audio
Sizes: debug, 300m, 3b, 9b, 13b; :13b,encoders reads T5's states of captions, not their bytes.
With --config.data.latents=... read what launch.encode encoded.
"""

from ml_collections import ConfigDict

from ..base import base, clips, encoding, masked_audio, sound_sampling
from ..text.encoders import AUDIO, places, split
from .sizes import model

SECONDS = 30.0  # 750 latents; longer sounds are cropped


def get_config(argument: str = '13b') -> ConfigDict:
  size, words = split(argument, 'finetune', 'encoders')
  config = base()
  config.component = 'audio'
  config.autoencoder = 'runs/codec'
  config.start_from = ''
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp_tp_cp'
  config.data = clips(fps=25)
  config.data.rate, config.data.channels = 48_000, 1
  config.model = model(f'{size},encoders' if 'encoders' in words else size, round(SECONDS * 25))
  config.text = places(AUDIO) if 'encoders' in words else ConfigDict()
  config.embeddings = ''  # of prompts, by that encoder; '' has them beside the latents
  config.objective, config.masking = masked_audio()
  config.encode = encoding()
  config.sample = sound_sampling()
  picture = {'height': 256, 'width': 256}
  config.optimizer.learning_rate = 1e-4
  config.optimizer.weight_decay = 0.1
  config.train.ema_decay = 0.999
  config.train.save_every = 1000
  config.train.evaluate_every = 1000
  if 'finetune' in words:
    buckets = {10.0: 5, 30.0: 1}  # batches of 10 s to batches of 30 s
    # By samples they would come as 3 : 3 where both buckets have as many, and as 1 : 5 where there
    # are five times as many of 30 s.
    config.data.share = 'given'
    config.optimizer.schedule = 'linear'
    config.optimizer.warmup = 5000  # not in public sources
    config.optimizer.final_fraction = 1e-4  # of the peak: 1e-8
    batch_size, config.train.steps = 256, 50_000
  else:
    buckets = {SECONDS: 1}
    config.optimizer.warmup = 5000
    batch_size, config.train.steps = 1536, 500_000
  config.buckets = ConfigDict(
    {
      f'seconds_{seconds:.0f}': {
        'seconds': seconds,
        **picture,
        'batch_size': batch_size,
        'weight': weight,
      }
      for seconds, weight in buckets.items()
    }
  )
  return config
