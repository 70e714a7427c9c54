"""Measures how well generated signs show the numbers that their prompts quote."""

import math
import pathlib

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import UInt8
from mgjax.evaluation.alignment import LOOKS, world_of
from mgjax.evaluation.record.measured import Grid, Measured, mean_metric, share_metric
from mgjax.media.contact_sheet import contact_sheet
from mgjax.video.pipeline import VideoPipeline
from mgjax.worlds.digits.sign_judge import SignReading, sign_labels, train_sign_judge
from mgjax.worlds.digits.signs import Signs, numbers, sign_caption

REAL = 500  # signs that say what can be read of real ones
_ACROSS = 8  # images in a row of the sheet
_ROWS = 3  # of numbers seen in training, and as many of those held out
_NAMES = {'seen': 'seen in training', 'held_out': 'held out'}


Made = dict[str, tuple[UInt8[np.ndarray, 'b t h w 3'], list[SignReading]]]


def judge_signs(
  pipeline: VideoPipeline, *, samples: int = 216, seed: int = 0
) -> tuple[Measured, Made]:
  """Samples signs with numbers of two digits or more and reads them, see `SignJudge.score`.

  Beside the numbers stand those of real signs in handwriting that the judge never saw, and of the
  same signs each under the caption of the next. There are `samples` of numbers seen in training,
  and as many of numbers held out. Returns the numbers, and for 'seen' and 'held_out' the videos and
  what was asked of each. Raises ConfigError if training had single digits alone.
  """
  world = world_of(pipeline, 'signs', (*LOOKS, 'lengths'))
  several = tuple(length for length in world['lengths'] if length > 1)
  if not several:
    raise ConfigError(
      f'data.signs.lengths={world["lengths"]}: no number is held out; train on more digits'
    )
  motions = world['motions'] if world['frames'] > 1 else ('',)
  judge = train_sign_judge(**world)
  made, each, asked = {}, {}, {}
  for place, captions in enumerate(_NAMES):
    labels = _spread(captions, several, samples, world['colours'], motions)
    prompts = [sign_caption(*label) for label in labels]
    videos = pipeline.generate(prompts, seed=seed, first=place * samples)
    made[captions], asked[captions] = (videos, labels), prompts
    each[captions] = judge.read_all(videos, labels)
  unseen = Signs(split='test', captions='all', length=REAL, **world | {'lengths': several})
  real = list(unseen)
  labels, videos = sign_labels(real), [sample['video'] for sample in real]
  scores = {}
  for kind, found in each.items():
    scores[kind] = {name: float(np.nanmean(values)) for name, values in found.items()}
  ceiling, floor = judge.score(videos, labels), judge.score(videos, labels[1:] + labels[:1])
  metrics = {}
  for place, (kind, found) in enumerate(each.items()):
    for name, values in found.items():
      spread = np.full(len(each) * samples, np.nan)
      spread[place * samples :][:samples] = values
      metrics[f'signs/{kind}/{name}'] = (mean_metric if name == 'characters' else share_metric)(
        spread,
        f'{name}, {_NAMES[kind]}',
        1,
        beside={'real signs': ceiling.get(name, math.nan), 'shuffled': floor.get(name, math.nan)},
        shown=name in ('characters', 'number'),
      )
  rows = {_NAMES[kind]: found for kind, found in scores.items()}
  rows |= {'real signs (ceiling)': ceiling, 'shuffled (floor)': floor}
  rows = {title: [found.get(name) for name in ceiling] for title, found in rows.items()}
  alignment = Measured(
    metrics,
    [prompt for prompts in asked.values() for prompt in prompts],
    record={'signs': scores, 'ceiling': ceiling, 'floor': floor, 'samples': samples},
    table=[Grid(list(ceiling), rows), f'{samples} signs of numbers of either kind'],
  )
  return alignment, made


def _spread(captions, lengths, samples, colours, motions) -> list[SignReading]:
  """Numbers of every length alike, evenly spread, in colours and motions by turns."""
  labels = []
  for index in range(samples):
    turn, place = divmod(index, len(lengths))
    known = numbers(lengths[place], captions)
    turns = -(-(samples - place) // len(lengths))
    number = known[turn * len(known) // turns % len(known)]
    colour, motion = colours[turn % len(colours)], motions[turn // len(colours) % len(motions)]
    labels.append(SignReading(number, colour, motion))
  return labels


def write_sheet(directory: pathlib.Path, made: Made) -> pathlib.Path:
  """Draws some of what `judge_signs` made, images side by side and videos below each other."""
  rows, titles = [], []
  for captions, (videos, labels) in made.items():
    across = 1 if videos.shape[1] > 1 else _ACROSS
    shown = np.linspace(0, len(labels) - 1, min(len(labels), across * _ROWS)).astype(int)
    for some in np.split(shown, range(across, len(shown), across)):
      rows.append(np.concatenate(videos[some]))
      titles.append(f'{_NAMES[captions]}: ' + ', '.join(labels[i].number for i in some))
  path = directory / 'samples.png'
  contact_sheet(path, rows, titles, columns=_ACROSS)
  return path
