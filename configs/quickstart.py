r"""The quickstart: an autoencoder and a model from nothing, then samples that are judged.

python -m launch.train --config=configs/quickstart.py --workdir=runs/quickstart
python -m launch.train --config=configs/quickstart.py:solids --workdir=runs/solids
python -m launch.train --config=configs/quickstart.py:sound --workdir=runs/sound
python -m launch.train --config=configs/quickstart.py:my_clips/ --workdir=runs/mine
python -m launch.train --config=configs/quickstart.py:fast,my_clips/ --workdir=runs/first

Without an argument the data are moving digits, made on the fly. With `solids` they are lit solids
of 64 px, which take seventy minutes of two CPU cores. With `sound` it trains a codec, and a model
that makes the audio of moving digits. Else they are your own: a folder of videos with
captions (clip.mp4 and clip.txt), or a .csv or .jsonl with the columns video and caption. With
`fast` a first picture of them comes in two minutes on two free cores. `make quickstart` runs these.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from .clips import autoencoder as clips_autoencoder
from .clips import video as clips_video
from .clips.fast import autoencoder as fast_autoencoder
from .clips.fast import video as fast_video
from .digits import audio, autoencoder, codec, video
from .solids import autoencoder as solids_autoencoder
from .solids import video as solids_video


def get_config(data: str = '') -> ConfigDict:
  if data in ('', 'sound'):
    parts = (codec, audio) if data else (autoencoder, video)
    return _quickstart(
      parts[0].get_config(), parts[1].get_config(), data or 'digits', samples=64 if data else 216
    )
  if data == 'solids':
    return _in_stages(
      solids_video.get_config('half'),
      _quickstart(solids_autoencoder.get_config(), solids_video.get_config(), 'solids', samples=72),
    )
  fast, path = data.startswith('fast,'), data.removeprefix('fast,')
  if path.startswith('sound,') or data.endswith(',sound'):
    raise ConfigError('sound is made for moving digits, not yet for clips; leave one out')
  parts = (fast_autoencoder, fast_video) if fast else (clips_autoencoder, clips_video)
  return _quickstart(parts[0].get_config(path), parts[1].get_config(path), 'clips', samples=12)


def _in_stages(half: ConfigDict, whole: ConfigDict) -> ConfigDict:
  """Puts a stage at half the size before the videos of a quickstart, which start from it."""
  half.autoencoder = 'autoencoder'
  half.data.latents = 'latents_half'
  whole.stages.half = half
  whole.stages.video.start_from = 'half'
  whole.order = ('autoencoder', 'half', *whole.order[1:])
  return whole


def _quickstart(first: ConfigDict, second: ConfigDict, judge: str, samples: int) -> ConfigDict:
  """An autoencoder, a flow model of its latents, and samples judged as `judge` says."""
  second.autoencoder = str(first.component)
  second.data.latents = 'latents'
  judged = ConfigDict(
    {'component': 'samples', 'of': str(second.component), 'judge': judge, 'samples': samples}
  )
  stages = {str(first.component): first, str(second.component): second, 'samples': judged}
  return ConfigDict({'stages': stages, 'order': tuple(stages)})
