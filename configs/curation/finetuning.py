r"""Clips to fine-tune on (§3.3): strict thresholds, clear subjects, people who look at each clip.

python -m launch.curate --input=raw/ --output=runs/curation/finetuning \
  --config=configs/curation/finetuning.py --config.keep.seeds=seeds.csv
python -m launch.serve review --input=raw/ --output=runs/curation/finetuning --people=ann,ben

The first command ends before it cuts: people have to look at what it left. Given again when they
have, it cuts what they kept. Clips last 10.6 to 16 s, as published; how much stricter the other
thresholds are is not in public sources. seeds.csv has the columns concept and clip.
"""

from ml_collections import ConfigDict

from . import high_resolution

# People balance the concepts by seeds, so no lot is drawn.
ORDER = (
  *(name for name in high_resolution.ORDER if name not in ('duplicates', 'concepts')),
  'subject',
  'duplicates',
  'seeds',
)


def get_config() -> ConfigDict:
  config = high_resolution.get_config()
  config.measure.scorers = (*config.measure.scorers, 'subject')
  config.measure.clips.update({'shortest': 10.6})
  config.keep.update(
    {
      'clip_seconds': (10.6, 16.0),
      'text': 0.4,  # from here on not in public sources
      'borders': 0.0,
      'aesthetics': 5.0,
      'motion': 3.0,
      'vectors': (1.0, 6.0),
      'jitter': 0.3,
      'slides': 0.3,
      'copies': 0.98,
    }
  )
  config.order = ORDER
  config.review.undecided = 'wait'
  return config
