r"""The high-resolution set with the published thresholds (App. J.1, Table 44): 768 px, landscape.

python -m launch.curate --input=raw/ --output=runs/curation/high \
  --config=configs/curation/high_resolution.py

The numbers in `keep` up to `copies` are those of Table 44. The aesthetic score is off until a
function of yours computes it: --config.measure.aesthetics.python=package.module:function. What is
not written here has the defaults of mgjax/lab/curation/settings.py.
"""

from ml_collections import ConfigDict

ORDER = (
  'duration',
  'resolution',
  'aspect',
  'text',
  'borders',
  'scenes',
  'aesthetics',
  'static',
  'slides',
  'motion',
  'jitter',
  'duplicates',
  'concepts',
)


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.measure = ConfigDict(
    {
      'scorers': (
        'text',
        'borders',
        'motion',
        'jitter',
        'stillness',
        'fingerprint',
        'aesthetics',
        'copies',
        'people',
        'concepts',
        'camera',
      ),
      'clips': {'shortest': 4.0, 'longest': 16.0, 'most': 2, 'first': 1.0},
      'aesthetics': {'python': '', 'weights': '', 'frames': 1},
      'copies': {'python': '', 'weights': '', 'frames': 4},
      'people': {'python': '', 'weights': '', 'frames': 4},
      'concepts': {'python': '', 'weights': '', 'frames': 8},
      'subject': {'python': '', 'weights': '', 'frames': 4},
      'sound': {'rate': 48_000, 'block': 0.1, 'silent': -60.0},
      'sound_events': {'python': '', 'weights': ''},
      'sound_cosine': {'python': '', 'weights': '', 'frames': 8},
      'sound_quality': {'python': '', 'weights': ''},
    }
  )
  config.keep = ConfigDict(
    {
      'seconds': (4.0, 120.0),
      'side': 768,
      'aspect': 1.0,  # width / height
      'text': 0.6,
      'clip_seconds': (12.0, 16.0),
      'aesthetics': 4.0,
      'motion': 2.0,
      'vectors': (0.5, 7.0),
      'jitter': 0.85,
      'copies': 0.99,
      'resample': 0.94 / 1.15,
      'borders': 0.01,  # from here on not in public sources
      'still': 0.9,
      'slides': 0.5,
      'hashes': 10,
      'merge': 0.95,
      'seed': 0,
      'subject': 0.05,
      'seeds': '',
      'neighbours': 100,
      'alike': 0.0,
      'sound': {
        'diegetic': 0.2,  # Table 24
        'diegetic_music': 0.3,
        'apart': 0.1,
        'between': (0.1, 0.25),
        'heard': 0.5,  # from here on not in public sources
        'silence': 0.5,
        'loudness': (-50.0, 0.0),
        'places': ('diegetic', 'non-diegetic', 'mixed'),
      },
    }
  )
  config.order = ORDER
  config.captions = ConfigDict(
    {
      'kind': 'existing',  # or endpoint, rules, package.module:Class
      'endpoint': {'model': '', 'url': 'http://127.0.0.1:8000/v1', 'key_variable': ''},
      'frames': 8,
      'side': 512,
      'words': 100,
      'template': '{camera} {shot} {caption}',
      'prefix': 0.6,
    }
  )
  config.review = ConfigDict({'undecided': 'keep'})  # keep, wait or drop
  # Whether what a probe drops, by its length and size, is not decoded.
  config.gate = False
  config.cut = ConfigDict({'anew': False, 'gop': 16, 'crf': 20.0, 'clips_per_shard': 32})
  # What one video, or one clip, may cost before it is given up.
  config.limits = ConfigDict(
    {'gigabytes': 6.0, 'processor_seconds': 900, 'wall_seconds': 1800.0, 'tries': 3}
  )
  return config
