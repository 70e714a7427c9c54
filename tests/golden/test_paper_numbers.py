"""Every number of the report that our configurations claim, resolved, beside the report's.

paper_numbers.txt has a line for each: where the report has it (its section or table), what it is,
ours, the report's, and '=' or why they differ. What is said to be equal fails when it drifts,
whatever the file says, and so does a reason that nothing needs any more. When another line is meant
to change, write the file anew with
MGJAX_UPDATE_GOLDEN=1 python -m pytest tests/golden/test_paper_numbers.py
and let the difference be reviewed.
"""

import dataclasses
import functools
import math
import os
import pathlib
from typing import Any

import numpy as np

from configs.audio import audio, codec
from configs.editing import recipe as editing_recipe
from configs.personalization import recipe as personalization_recipe
from configs.tae import tae
from configs.video import recipe, t2i_1024
from configs.video.sizes import SIZES
from mgjax.data.batch_order import samples_seen
from mgjax.data.settings import audio_shapes, longest_audio_bucket
from mgjax.flow.path import SIGMA_MIN
from mgjax.flow.schedules import make_time_grid
from mgjax.models.conditioning.edit_task import EditTask
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.text.prompts import with_frame_rate
from mgjax.sections.audio.captions import EFFECTS_QUALITY, MUSIC_QUALITY
from mgjax.sections.audio.pipeline import count_candidates
from tests.turns import seen_in_stage, training_buckets

HERE = pathlib.Path(__file__).parent
FILE = HERE / 'paper_numbers.txt'
RESULTS = HERE.parent.parent / 'docs/results/scaling.md'


UNKNOWN = 'not in public sources'


@dataclasses.dataclass(frozen=True)
class About:
  """A number of which the report gives so many digits."""

  value: float

  def __str__(self):
    unit, name = (1e9, 'B') if self.value >= 1e9 else (1e6, 'M')
    return f'{self.value / unit:g}{name}'

  @property
  def digits(self) -> int:
    return len(f'{self.value:.10e}'.split('e')[0].replace('.', '').rstrip('0'))


@dataclasses.dataclass(frozen=True)
class Row:
  """One number: where the report has it, its name, ours, the report's, why they differ if so."""

  place: str
  name: str
  ours: Any
  report: Any
  reason: str = ''

  @property
  def equal(self) -> bool:
    if isinstance(self.report, About):
      return float(f'{self.ours:.{self.report.digits - 1}e}') == self.report.value
    if isinstance(self.report, float):
      return math.isclose(self.ours, self.report, rel_tol=1e-9)
    return self.ours == self.report

  def __str__(self):
    mark = '=' if self.equal else self.reason
    return '  '.join((self.place, self.name, shown(self.ours), shown(self.report), mark))


def shown(value: Any) -> str:
  if isinstance(value, tuple):
    return ', '.join(map(shown, value))
  if isinstance(value, int):
    return f'{value:,}'
  return f'{value:g}' if isinstance(value, float) else str(value)


def parameters(name: str) -> int:
  """The total of another golden file."""
  total = (HERE / f'parameters_{name}.txt').read_text().splitlines()[-1]
  return int(total.split()[-1].replace(',', ''))


@functools.cache
def stages():
  return recipe.get_config('30b,encoders').stages


def autoencoder() -> list[Row]:
  config = tae.get_config()
  model = make_autoencoder(config.model.to_dict())
  turns = samples_seen(training_buckets(config, 10**6), 4)
  images, videos = (
    turns[name] // config.buckets[name].batch_size for name in ('image', 'video')
  )  # batches
  weights, tiling = config.objective, config.tiling
  place, losses = '§3.1.1', '§3.1.1 losses'
  latent = model.latent_shape
  return [
    Row(
      place,
      'compression of time, height, width',
      tuple(int(n) for n in np.prod(config.model.strides, axis=0)),
      (8, 8, 8),
    ),
    Row(place, 'latent channels', model.latent_channels, 16),
    Row(place, 'latent frames of 256 frames', latent((256, 256, 256))[0], 32),
    Row(place, 'latent frames of an image', latent((1, 256, 256))[0], 1),
    Row(place, 'batches of images to batches of videos', (images, videos), (1, 3)),
    Row(losses, 'outlier penalty, deviations r', weights.outlier_sigmas, 3.0),
    Row(
      losses,
      'outlier penalty, weight',
      weights.outlier,
      1e5,
      'off: others could not reproduce it; measured in docs/experiments/outlier_penalty.md',
    ),
    Row(losses, 'weight of the KL term', weights.kl, UNKNOWN, "HunyuanVideo's"),
    Row(losses, 'weight of the perceptual term', weights.perceptual, UNKNOWN, "HunyuanVideo's"),
    Row(losses, 'weight of the adversarial term', weights.adversarial, UNKNOWN, "HunyuanVideo's"),
    Row('§3.1.1 tiles', 'frames of a tile', tiling.frames, 32),
    Row('§3.1.1 tiles', 'latent frames of a tile', latent((tiling.frames, 256, 256))[0], 4),
    Row('§3.1.1 tiles', 'overlap of tiles that are decoded', tiling.overlap, 16),
    Row('§3.1.1', 'learning rate', config.optimizer.learning_rate, UNKNOWN, 'chosen'),
  ]


def flow() -> list[Row]:
  config = stages().t2iv_768
  sample, time = config.sample, config.objective.time
  times = make_time_grid(steps=sample.steps, **sample.schedule.to_dict())
  emulated = sample.schedule.emulated
  linear = int(np.isclose(np.diff(times), 1 / emulated, rtol=1e-6).sum())
  place, sampler = '§3.1.2', '§3.4.2 sampler'
  return [
    Row(place, 'sigma_min', SIGMA_MIN, 1e-5),
    Row(place, 'flow times', time.name, 'logit_normal'),
    Row(place, 'their mean', time.mean, 0.0),
    Row(place, 'their standard deviation', time.std, 1.0),
    Row(place, 'captions dropped', config.objective.dropout.text, UNKNOWN, 'chosen'),
    Row(sampler, 'solver', sample.solver, 'euler'),
    Row(sampler, 'steps', sample.steps, 50),
    Row(sampler, 'guidance', dict(sample.guidance)['text'], 7.5),
    Row(sampler, 'schedule', sample.schedule.name, 'linear_quadratic'),
    Row(sampler, 'of them linear', linear, 25),
    Row(
      sampler,
      'linear steps emulated',
      emulated,
      '250 or 1,000',
      'accounts of the report disagree; 1,000 explains its figure and its speed-up of 20',
    ),
  ]


def backbone() -> list[Row]:
  config, five = stages().t2iv_768, SIZES['5b']
  model = config.model
  longest = max(config.buckets.values(), key=lambda bucket: bucket.frames)
  latent = make_autoencoder(tae.get_config().model.to_dict()).latent_shape
  shape = latent((longest.frames, longest.height, longest.width))[:3]
  tokens = math.prod(n // p for n, p in zip(shape, model.patch, strict=True))
  tables = [stages()[name].model.positions for name in ('t2i_256', 't2iv_256', 't2iv_768')]
  text = model.conditionings.text.encoders
  named = (HERE / 'parameters_30b.txt').read_text().splitlines()
  biases = sum('layers' in line and 'bias' in line for line in named)
  place = 'Table 1'
  encoders = 'text encoder '
  return [
    Row(place, '30B: layers', model.depth, 48),
    Row(place, '30B: width', model.dim, 6144),
    Row(place, '30B: FFN width', model.mlp_dim, 16384),
    Row(place, '30B: heads', model.heads, 48),
    Row(place, '30B: head size', model.dim // model.heads, 128),
    Row(place, '30B: parameters', parameters('30b_encoders'), About(30e9)),
    Row('Table 9', '30B: biases in its layers', biases, 0),
    Row(place, 'epsilon of the norms', model.epsilon, UNKNOWN, "NeMo's"),
    Row('§3.1.3', 'patch', model.patch, (1, 2, 2)),
    Row('§3.1.3', 'tokens of 256 frames of 768 px', tokens, 73_728),
    Row(
      '§3.2.2',
      'spatial positions from 256 px images to joint, times',
      tables[1][1] // tables[0][1],
      2,
    ),
    Row('§3.2.2', 'spatial positions from 256 to 768 px, times', tables[2][1] // tables[1][1], 3),
    Row('§3.2.2', 'temporal positions', tables[1][0], 32),
    Row('§3.1.4', f'{encoders}Long-prompt MetaCLIP: tokens', text.metaclip.length, 256),
    Row('§3.1.4', f'{encoders}UL2: tokens', text.ul2.length, UNKNOWN, "MindONE's"),
    Row('§3.1.4', f'{encoders}ByT5: tokens', text.byt5.length, UNKNOWN, "MindONE's"),
    Row('§3.1.4', 'prefix of a prompt at 16 frames a second', with_frame_rate('x', 16), 'FPS-16 x'),
    Row('§3.1.5', '7B: parameters', parameters('7b'), About(7e9)),
    Row(
      '§3.1.5',
      '7B: layers, width, FFN width, heads',
      tuple(SIZES['7b'][key] for key in ('depth', 'dim', 'mlp_dim', 'heads')),
      UNKNOWN,
      'chosen',
    ),
    Row('§3.6.2', '5B: layers', five['depth'], 32),
    Row('§3.6.2', '5B: width', five['dim'], 3072),
    Row('§3.6.2', '5B: FFN width', five['mlp_dim'], 8192),
    Row('§3.6.2', '5B: heads', five['heads'], 24),
    Row('§3.6.2', '5B: parameters', parameters('5b'), About(5e9)),
  ]


def pre_training() -> list[Row]:
  rows, joint = [], ('256 px joint', '768 px joint')
  images = stages().t2i_256
  names = {
    '256 px joint': ('t2iv_256', 't2iv_256_large'),
    '768 px joint': ('t2iv_768', 't2iv_768_small'),
  }
  place = 'Table 3'
  rows += [
    Row(place, '256 px images: rows of a batch', images.buckets.image.batch_size, 9216),
    Row(place, '256 px images: learning rate', images.optimizer.learning_rate, 1e-4),
    Row(place, '256 px images: steps', images.train.steps, 210_000),
    Row(place, '256 px images: samples seen', sum(seen_in_stage(images).values()), About(1.94e9)),
  ]
  batches = {'256 px joint': (1536, 3072), '768 px joint': (1536, 512)}
  steps, samples = (185_000, 74_500), (About(394.8e6), About(73.8e6))
  rates = {'256 px joint': (6e-5, 6e-5), '768 px joint': (6e-5, 'between 6e-05 and 1e-05')}
  for stage, total, seen in zip(joint, steps, samples, strict=True):
    parts = [stages()[name] for name in names[stage]]
    for part, batch, rate in zip(parts, batches[stage], rates[stage], strict=True):
      which = f'{stage}, batch {batch:,}'
      sizes = {bucket.batch_size for bucket in part.buckets.values()}
      rows += [
        Row(place, f'{which}: rows of every batch', tuple(sorted(sizes)), (batch,)),
        Row(
          place,
          f'{which}: learning rate',
          part.optimizer.learning_rate,
          rate,
          '' if rate == 6e-5 else 'where the rate was by then is not in public sources',
        ),
        Row(
          place,
          f'{which}: steps',
          part.train.steps,
          UNKNOWN,
          'by arithmetic of batches, steps and samples',
        ),
      ]
    everything = sum(sum(seen_in_stage(part).values()) for part in parts)
    turns = samples_seen(training_buckets(parts[0], 10**6), 11)
    first = parts[0].buckets
    came = [
      name.split('_')[0] for name in turns for _ in range(turns[name] // first[name].batch_size)
    ]
    lengths = {bucket.frames for bucket in parts[0].buckets.values()}
    rows += [
      Row(place, f'{stage}: steps', sum(part.train.steps for part in parts), total),
      Row(place, f'{stage}: samples seen', everything, seen),
      Row(
        place,
        f'{stage}: videos to images, in batches as they come',
        (came.count('video'), came.count('image')),
        (10, 1),
      ),
      Row(place, f'{stage}: frames at most', max(lengths), 256),
    ]
  last = stages().t2iv_768_small.optimizer
  half = stages().t2iv_768.optimizer.plateau.factor
  rows += [
    Row(place, '768 px joint: lowest rate', last.learning_rate * last.plateau.lowest, 1e-5),
    Row('§3.2.2', 'the rate when the loss is flat, times', half, 0.5),
    Row(place, 'mesh, tensor', stages().t2iv_768.mesh.tensor, 4, '`launch.plan` says what fits'),
    Row(
      place,
      'mesh, context',
      stages().t2iv_768.mesh.context,
      'up to 2',
      '`launch.plan` says what fits',
    ),
  ]
  buckets = stages().t2iv_256.buckets
  found = {
    name.removeprefix('video_1x1_'): (bucket.frames, *bucket.fps)
    for name, bucket in buckets.items()
    if name.startswith('video_1x1')
  }
  frames = {
    '11s': (256, 24, 24),
    '16s': (256, 16, 16),
    '12_16s': (256, 16, 21),
    '8_12s': (192, 16, 24),
    '4_8s': (128, 16, 32),
  }
  shapes = {(bucket.height, bucket.width) for bucket in buckets.values()}
  rows += [Row('Table 2', 'aspect ratios', len(shapes), 5)]
  rows += [Row('Table 2', 'durations', len(found), 5)]
  rows += [
    Row('Appendix J.1', f'clips of {name}: frames, lowest and highest rate', found[name], expected)
    for name, expected in frames.items()
  ]
  weight_decay = stages().t2iv_768.optimizer.weight_decay
  rows += [Row('§3.2.2', 'weight decay', weight_decay, UNKNOWN, "NeMo's")]
  return rows


def fine_tuning() -> list[Row]:
  config = stages().finetune_1
  rates = {(bucket.frames, *bucket.fps) for bucket in config.buckets.values()}
  image, tuned = (t2i_1024.get_config(f'30b{word}') for word in ('', ',tuning'))
  place, pictures = '§3.3', '§3.7'
  return [
    Row(pictures, 'side of a square image', image.buckets.image_1x1.height, 1024),
    Row(
      pictures,
      'spatial positions from 768 px, times',
      image.model.positions[1] / stages().t2iv_768.model.positions[1],
      UNKNOWN,
      '1024 / 768',
    ),
    Row(
      pictures,
      'learning rates, and of tuning',
      (image.optimizer.learning_rate, tuned.optimizer.learning_rate),
      UNKNOWN,
      'chosen',
    ),
    Row(place, 'schedule', config.optimizer.schedule, 'cosine'),
    Row(
      place,
      'clips of 10.6 s, frames and rate',
      (256, 24) if (256, 24, 24) in rates else (),
      (256, 24),
    ),
    Row(
      place,
      'clips of 16 s, frames and rate',
      (256, 16) if (256, 16, 16) in rates else (),
      (256, 16),
    ),
    Row(place, 'learning rate', config.optimizer.learning_rate, UNKNOWN, 'chosen'),
    Row(place, 'rows of a batch', config.buckets.video_1x1_16s.batch_size, UNKNOWN, 'chosen'),
    Row(place, 'steps', config.train.steps, UNKNOWN, 'chosen'),
    Row(place, 'runs averaged', len(stages().average.of), UNKNOWN, 'chosen'),
  ]


def personalization() -> list[Row]:
  config = personalization_recipe.get_config('30b')
  stages = {name: config.stages[name] for name in config.order}
  training = [stage for name, stage in stages.items() if name != 'finetune']
  steps = sum(stage.train.steps for stage in training)
  clips = sum(sum(seen_in_stage(stage).values()) for stage in training)
  batches = {bucket.batch_size for stage in training for bucket in stage.buckets.values()}
  short = {bucket.frames for bucket in stages['identity'].buckets.values()}
  frozen = [name for name, stage in stages.items() if stage.optimizer.rates[0][1] == 0]
  turns = samples_seen(training_buckets(stages['finetune'], 10**6), 100)
  paired = sum(count for name, count in turns.items() if name.endswith('_paired'))
  settings, place = stages['identity'].references, '§4'
  return [
    Row(place, 'steps of the three stages', steps, 30_000),
    Row(place, 'rows of a batch', tuple(batches), (512,)),
    Row(place, 'clips seen', clips, About(15.36e6)),
    Row(place, 'frames of the first stage', tuple(short), (64,)),
    Row(place, 'stages whose tower is frozen', tuple(frozen), ('identity', 'long')),
    Row(place, 'references of a clip', settings.per_clip, 5),
    Row(
      place,
      'paired to real cross-paired in fine-tuning',
      paired / (sum(turns.values()) - paired),
      1.0,
    ),
    Row(
      place,
      'steps of each stage',
      tuple(stage.train.steps for stage in stages.values()),
      UNKNOWN,
      'chosen',
    ),
    Row(place, 'learning rate', stages['identity'].optimizer.learning_rate, UNKNOWN, 'chosen'),
    Row(
      place, 'references dropped', stages['identity'].objective.dropout.identity, UNKNOWN, 'chosen'
    ),
    Row(
      place,
      'tokens of the tower',
      stages['identity'].model.conditionings.identity.tokens,
      UNKNOWN,
      'chosen',
    ),
  ]


def editing() -> list[Row]:
  config = editing_recipe.get_config('30b')
  stages = {name: config.stages[name] for name in config.order}
  turns = samples_seen(training_buckets(stages['images'], 10**6), 6000)
  batches = {name: turns[name] // stages['images'].buckets[name].batch_size for name in turns}
  edits = sum(count for name, count in batches.items() if name.startswith('pictures'))
  shares = samples_seen(training_buckets(stages['frames'], 10**6), 6000)
  parts = tuple(
    sum(count for name, count in shares.items() if name.startswith(kind)) / sum(shares.values())
    for kind in ('animated', 'marked')
  )
  made, first = stages['backtranslation'].backtranslation, stages['images']
  pictures = {first.buckets[name].frames for name in turns if name.startswith('pictures')}
  place, guidance = '§5', dict(first.sample.guidance)
  known = make_flow_model(first.model.to_dict()).conditionings
  (task,) = (each for each in known if isinstance(each, EditTask))
  return [
    Row(place, 'frames of a picture that is edited', tuple(pictures), (1,)),
    Row(
      place,
      'batches of edits to one of text to video, images',
      edits / (sum(batches.values()) - edits),
      5.0,
    ),
    Row(place, 'places of pictures drawn at random', first.edits.random_place, True),
    Row(place, 'tokens of the task', task.tokens, 4),
    Row(place, 'steps, images', first.train.steps, UNKNOWN, 'from memory'),
    Row(place, 'steps, frames', stages['frames'].train.steps, 1000),
    Row(
      place, 'steps, backtranslation', stages['backtranslation'].train.steps, UNKNOWN, 'from memory'
    ),
    Row(place, 'editor of the pairs', made.editor, 'frames'),
    Row(place, 'shares of animated pairs and of marked clips, frames', parts, UNKNOWN, 'chosen'),
    Row(place, 'learning rate of editing', first.optimizer.learning_rate, UNKNOWN, 'chosen'),
    Row(place, 'tasks', len(task.tasks), UNKNOWN, 'chosen'),
    Row(place, 'source video dropped', first.objective.dropout.source_video, UNKNOWN, 'chosen'),
    Row(place, 'task dropped', first.objective.dropout.task, UNKNOWN, 'chosen'),
    Row(place, 'guidance of the source video', guidance['source_video'], UNKNOWN, 'chosen'),
    Row(place, 'guidance of the instruction', guidance['text'], UNKNOWN, 'chosen'),
    Row(place, 'least directional similarity', made.direction, UNKNOWN, 'chosen'),
    Row(place, 'least structural similarity', made.structure, UNKNOWN, 'chosen'),
    Row(place, 'noise of the edited clip', made.noise, UNKNOWN, 'chosen'),
  ]


def sound() -> list[Row]:
  config, tuned = audio.get_config('13b,encoders'), audio.get_config('13b,encoders,finetune')
  model, sample, masking = config.model, config.sample, config.masking
  dropout, optimizer = config.objective.dropout, config.optimizer
  settings, coder = model.conditionings, codec.get_config()
  hop = math.prod(coder.model.strides)
  bucket = config.buckets[longest_audio_bucket(audio_shapes(config.buckets.to_dict()))]
  rows = {each.batch_size for each in config.buckets.values()}
  turns = samples_seen(training_buckets(tuned, 10**6), 6)
  batches = tuple(turns[name] // tuned.buckets[name].batch_size for name in sorted(turns))
  both = audio.get_config('13b,encoders,finetune,hq_audio')
  counts = samples_seen(training_buckets(both, 10**6), 66)
  mixed = tuple(
    sum(counts[name] // both.buckets[name].batch_size for name in counts if name.startswith(which))
    for which in ('seconds', 'hq_audio')
  )
  candidates = count_candidates(None, None, pictures=True)
  place, pre, fine = '§6', '§6 pre-training', '§6 fine-tuning'
  return [
    Row('§6 codec', 'samples a second', config.data.rate, 48_000),
    Row('§6 codec', 'latents a second', config.data.rate / hop, 25.0),
    Row('§6 codec', 'latent channels', coder.model.latent_channels, 128),
    Row('§6 codec', 'samples of a latent', hop, 1920),
    Row(place, '13B: layers', model.depth, 36),
    Row(place, '13B: width', model.dim, 4608),
    Row(place, '13B: FFN width', model.mlp_dim, 18_432),
    Row(
      place,
      '13B: parameters',
      parameters('audio_13b_encoders'),
      About(13e9),
      'layers, width and FFN of the report make 12.2B in its matrices',
    ),
    Row(place, '13B: heads', model.heads, UNKNOWN, 'of 128, as the video model'),
    Row(place, 'features of a frame', settings.video.features, 1024),
    Row(place, 'T5: width of a state', settings.text.encoders.t5.features, 768),
    Row(place, 'T5: tokens', settings.text.encoders.t5.length, 512),
    Row(place, 'latents at most', model.positions[0], 750),
    Row(place, 'seconds at most', bucket.seconds, 30.0),
    Row('§6 masking', 'all masked, probability', masking.full_mask_probability, 0.5),
    Row('§6 masking', 'masked otherwise, least', masking.min_masked_fraction, 0.75),
    Row('§6 masking', 'all conditions dropped', config.objective.drop_all_probability, 0.2),
    Row('§6 masking', 'text dropped', dropout.text, 0.1),
    Row('§6 masking', 'video dropped', dropout.video, 0.1),
    Row(place, 'flow times, mean', config.objective.time.mean, 0.0),
    Row(place, 'flow times, standard deviation', config.objective.time.std, 1.0),
    Row(pre, 'rows of every batch', tuple(sorted(rows)), (1536,)),
    Row(pre, 'seconds at least', min(each.seconds for each in config.buckets.values()), 4.0),
    Row(pre, 'lengths of sounds', len(config.buckets), UNKNOWN, 'chosen'),
    Row(pre, 'steps', config.train.steps, 500_000),
    Row(pre, 'samples seen', sum(seen_in_stage(config).values()), 768_000_000),
    Row(pre, 'learning rate', optimizer.learning_rate, 1e-4),
    Row(pre, 'schedule', optimizer.schedule, 'constant'),
    Row(pre, 'warm-up', optimizer.warmup, 5000),
    Row(pre, 'weight decay', optimizer.weight_decay, 0.1),
    Row(pre, 'average of parameters', config.train.ema_decay, 0.999),
    Row(fine, 'rows of a batch', tuned.buckets.seconds_10.batch_size, 256),
    Row(fine, 'steps', tuned.train.steps, 50_000),
    Row(fine, 'samples seen', sum(seen_in_stage(tuned).values()), 12_800_000),
    Row(fine, 'highest learning rate', tuned.optimizer.learning_rate, 1e-4),
    Row(fine, 'schedule', tuned.optimizer.schedule, 'linear'),
    Row(
      fine,
      'last learning rate',
      tuned.optimizer.learning_rate * tuned.optimizer.final_fraction,
      1e-8,
    ),
    Row(fine, 'batches of 10 s to batches of 30 s, as they come', batches, (5, 1)),
    Row(fine, 'batches of Cin-AV to batches of HQ-A, as they come, of 66', mixed, (60, 6)),
    Row(fine, 'warm-up', tuned.optimizer.warmup, UNKNOWN, 'chosen'),
    Row('§6 sampler', 'solver', sample.solver, 'midpoint'),
    Row('§6 sampler', 'steps', sample.steps, 64),
    Row('§6 sampler', 'guidance of text', dict(sample.guidance)['text'], 3.0),
    Row('§6 sampler', 'guidance of video', dict(sample.guidance)['video'], 3.0),
    Row('§6 sampler', 'candidates', candidates, 8),
    Row('Table 27', 'quality asked for, sound effects', EFFECTS_QUALITY, 7.0),
    Row('Table 27', 'quality asked for, with music', MUSIC_QUALITY, 8.0),
  ]


def rows() -> list[Row]:
  parts = (autoencoder, flow, backbone, pre_training, fine_tuning, personalization, editing, sound)
  return [row for part in parts for row in part()]


def test_every_number_is_the_reports_or_says_why_not():
  drifted = [str(row) for row in rows() if row.equal == bool(row.reason)]
  assert not drifted, '\n'.join(['place  name  ours  the report', *drifted])


def test_the_numbers_are_the_golden_ones():
  names = [(row.place, row.name) for row in rows()]
  assert len(set(names)) == len(names)
  text = '\n'.join(map(str, rows())) + '\n'
  if os.environ.get('MGJAX_UPDATE_GOLDEN'):
    FILE.write_text(text)
  assert text == FILE.read_text(), f'{FILE.name} differs; see the docstring of {__name__}'


def test_a_number_that_is_near_the_reports_is_not_taken_for_it():
  assert Row('', '', 394_752_000, About(394.8e6)).equal
  assert not Row('', '', 394_700_000, About(394.8e6)).equal
  assert not Row('', '', 1_597_000_000, About(394.8e6)).equal
  assert Row('', '', 29_302_628_352, About(30e9)).equal
  assert not Row('', '', 6.1e-5, 6e-5).equal


def test_the_table_of_stages_in_the_results_is_what_the_loader_counts():
  page = RESULTS.read_text()
  for name, stage in stages().items():
    if name == 'average':
      continue
    seen = seen_in_stage(stage)
    images = sum(count for bucket, count in seen.items() if bucket.startswith('image'))
    counts = (stage.train.steps, sum(seen.values()), images)
    line = ' | '.join((f'`{name}`', *(f'{count:,}' for count in counts)))
    assert f'| {line} |' in page, line
