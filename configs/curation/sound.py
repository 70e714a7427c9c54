r"""Clips to train the model of sound on (§6): no silence, 480 px or more, of the scene or not.

python -m launch.curate --input=raw/ --output=runs/curation/sound \
  --config=configs/curation/sound.py \
  --config.measure.sound_events.python=heard:events \
  --config.measure.sound_cosine.python=heard:cosine

The thresholds of Table 24 need both functions, of your own; without them the filter is off. The
caption of a record is that of Table 27.
"""

from ml_collections import ConfigDict

from . import high_resolution

ORDER = (
  'duration',
  'resolution',
  'silence',
  'loudness',
  'text',
  'static',
  'diegetic',
  'duplicates',
)


def get_config() -> ConfigDict:
  config = high_resolution.get_config()
  config.measure.scorers = ('text', 'stillness', 'fingerprint', 'copies', 'sound')
  config.measure.clips.update({'longest': 30.0, 'first': 0.0})
  config.keep.update({'side': 480, 'aspect': 0.0, 'clip_seconds': (4.0, 30.0)})
  config.order = ORDER
  config.captions.template = '{sound}'
  return config
