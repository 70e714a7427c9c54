r"""Video editing by instruction: the three stages of training (Movie Gen §5).

python -m launch.data encode --config=configs/editing/editing.py:30b,images \
  --output=data/edit_images_latents --config.autoencoder=runs/tae
python -m launch.train --config=configs/editing/editing.py:30b,images --workdir=runs/edit_images \
  --config.autoencoder=runs/tae --config.start_from=runs/t2iv_768 \
  --config.data.latents=data/edit_images_latents \
  --config.data.sources.pictures.latents=data/edit_images_latents
Then :30b,frames in the same way, from runs/edit_images into runs/edit_frames, and after the pairs
:30b,backtranslation into runs/edit_backtranslation:
python -m launch.data pairs --config=configs/editing/editing.py:30b,backtranslation \
  --output=data/backtranslated --config.autoencoder=runs/tae
python -m launch.sample edit --workdir=runs/edit_backtranslation --video=in.mp4 \
  --prompt='make the car red' --out=out.mp4

The size is one of configs/video/sizes.py, and the stage one of those below; recipe.py has all of
them in a row. No pair of videos is needed.

  images            pairs of pictures, and text to video from black
  frames            the same pairs animated, things that are marked in clips, and text to video
  backtranslation   from what the second model made of clips, back to the clips
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import defaults
from mgjax.sections.editing.section import Edits

from ..video.stage import DURATIONS, joint_buckets, stage
from ..video.t2iv_768 import POSITIONS, RATIOS

# How long the first is we know from memory; that the others are short the report says.
STEPS = {'images': 30_000, 'frames': 1_000, 'backtranslation': 1_000}
# Not in public sources. More are added at the end.
TASKS = (
  'recolour',
  'replace',
  'remove',
  'add',
  'background',
  'style',
  'motion',
  'text',
  'mark',
  'nothing',
)
CLIPS = {name: DURATIONS[name] for name in ('16s', '12_16s')}
EDITS = 5.0  # batches of pairs to one of text to video


def get_config(argument: str = '30b,images') -> ConfigDict:
  size, _, name = argument.rpartition(',')
  if name not in STEPS or not size:
    raise ConfigError(
      f'{argument!r}: expected a size and a stage of {", ".join(STEPS)}, as in 30b,images'
    )
  config = stage(size, POSITIONS)
  config.component = 'editing'
  config.mesh.context = 8
  config.model.conditionings.update(
    {
      'source_video': {'kind': 'source_video'},
      'task': {'kind': 'edit_task', 'tasks': TASKS},
      'place': {'kind': 'temporal_place'},
    }
  )
  # Not in public sources.
  config.objective.dropout.update(source_video=0.1, task=0.1, place=0.0)
  config.objective.drop_all_probability = 0.05
  config.sample.guidance = (('source_video', 1.5), ('text', 7.5))  # not in public sources
  config.edits = defaults(Edits)
  config.optimizer.learning_rate = 1e-5  # not in public sources
  config.train.steps = STEPS[name]
  videos = joint_buckets(size, RATIOS, 64, durations=CLIPS, images=False)
  if name == 'images':
    config.data.sources = ConfigDict({'pictures': _pairs('data/image_edits.jsonl')})
    config.buckets = ConfigDict({**_weighted(_pictures(), EDITS), **_weighted(videos, 1.0)})
  elif name == 'frames':
    marked = _pairs('data/marked_clips.jsonl')
    pictures = _pairs('data/image_edits.jsonl')
    config.data.sources = ConfigDict({'pictures': pictures, 'marked': marked})
    animated = _of('animated', 'pictures', videos)
    config.edits.animated = tuple(animated)
    config.buckets = ConfigDict(
      {
        **_weighted(animated, 2.0),
        **_weighted(_of('marked', 'marked', videos), 1.0),
        **_weighted(videos, 1.0),
      }
    )
  else:
    config.buckets = ConfigDict(_weighted(videos, 1.0))
    config.backtranslation = ConfigDict(
      {
        'editor': 'runs/edit_frames',
        'recogniser': 'runs/metaclip',
        'clips': 100_000,  # of a bucket
        'validation': 1_000,
        # Not in public sources: the report filters by ViCLIP.
        'direction': 0.2,
        'structure': 0.3,
        'noise': 0.1,
        'own_edits': False,
        'writer': {'model': 'llama', 'url': 'http://127.0.0.1:8000/v1'},
        'seed': 0,
      }
    )
  return config


def _pairs(path: str) -> dict[str, str]:
  """Pairs of a manifest: video, source_video, caption, task."""
  return {'kind': 'clips', 'path': path, 'latents': ''}


def _pictures() -> dict[str, dict]:
  shapes = {name: {'height': height, 'width': width} for name, (height, width) in RATIOS.items()}
  common = {'frames': 1, 'batch_size': 512, 'weight': 1.0, 'source': 'pictures'}
  return {f'pictures_{name}': {**shape, **common} for name, shape in shapes.items()}


def _of(prefix: str, source: str, buckets) -> dict[str, dict]:
  return {
    f'{prefix}_{name}': {**bucket.to_dict(), 'source': source} for name, bucket in buckets.items()
  }


def _weighted(buckets, total: float) -> dict[str, dict]:
  """Buckets whose weights sum to a total."""
  fields = {name: dict(bucket) for name, bucket in buckets.items()}
  weights = sum(bucket['weight'] for bucket in fields.values())
  return {
    name: {**bucket, 'weight': total * bucket['weight'] / weights}
    for name, bucket in fields.items()
  }
