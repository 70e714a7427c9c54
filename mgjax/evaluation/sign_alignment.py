"""Measures how well generated signs show the numbers that their prompts quote."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import UInt8
from mgjax.digits.sign_judge import SignReading, sign_labels, train_sign_judge
from mgjax.digits.signs import Signs, numbers, sign_caption
from mgjax.evaluation.alignment import LOOKS, world_of
from mgjax.evaluation.record.measured import Measured, mean_metric, share_metric
from mgjax.media.contact_sheet import contact_sheet
from mgjax.video.pipeline import VideoPipeline

REAL = 500  # signs that say what can be read of real ones
_ACROSS = 8  # images in a row of the sheet
_ROWS = 3  # of numbers seen in training, and as many of those held out
_NAMES = {'seen': 'seen in training', 'held_out': 'held out'}


@dataclasses.dataclass(frozen=True)
class SignAlignment:
  """Scores of `SignJudge.score`.

  Attributes:
    scores: of the model, for numbers 'seen' in training and 'held_out'.
    ceiling: of real signs in handwriting that the judge never saw.
    floor: of the same signs, each under the caption of the next.
    samples: signs of the model, of either kind of number.
    each: of the model, what `scores` are the means of, one number a sign.
    prompts: of its signs, for numbers 'seen' in training and 'held_out'.
  """

  scores: dict[str, dict[str, float]]
  ceiling: dict[str, float]
  floor: dict[str, float]
  samples: int
  each: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)
  prompts: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values; the model's scores go by the name `signs`."""
    values = dataclasses.asdict(self)
    del values['each'], values['prompts']
    return {'signs': values.pop('scores'), **values}

  def measured(self) -> Measured:
    """Returns the scores with their intervals, those of numbers seen in training first."""
    kinds = list(self.prompts)
    prompts = [prompt for kind in kinds for prompt in self.prompts[kind]]
    metrics = {}
    for place, kind in enumerate(kinds):
      for name, each in self.each[kind].items():
        before, count = place * len(each), len(prompts)
        spread = np.full(count, np.nan)
        spread[before : before + len(each)] = each
        made = mean_metric if name == 'characters' else share_metric
        beside = {'real signs': self.ceiling, 'shuffled': self.floor}
        metrics[f'signs/{kind}/{name}'] = made(
          spread,
          f'{name}, {_NAMES[kind]}',
          1,
          beside={title: found.get(name, math.nan) for title, found in beside.items()},
          shown=name in ('characters', 'number'),
        )
    return Measured(metrics, prompts)

  def table(self) -> str:
    """Formats the scores next to ceiling and floor, for people."""
    rows = [(_NAMES[captions], scores) for captions, scores in self.scores.items()]
    rows += [('real signs (ceiling)', self.ceiling), ('shuffled (floor)', self.floor)]
    lines = [f'{"":22}' + ''.join(f'{name:>11}' for name in self.ceiling)]
    for title, found in rows:
      values = [found.get(name, float('nan')) for name in self.ceiling]
      lines.append(f'{title:22}' + ''.join(f'{value:11.3f}' for value in values))
    return '\n'.join([*lines, f'{self.samples} signs of numbers of either kind'])


def judge_signs(
  pipeline: VideoPipeline, *, samples: int = 216, seed: int = 0
) -> tuple[SignAlignment, dict[str, tuple[UInt8[np.ndarray, 'b t h w 3'], list[SignReading]]]]:
  """Samples signs with numbers of two digits or more and reads them.

  Args:
    pipeline: of a model that was trained on signs.
    samples: signs with numbers seen in training, and as many with numbers held out.
    seed: of the noise.

  Returns:
    The alignment, and for 'seen' and 'held_out' the videos and what was asked of each.

  Raises:
    ConfigError: the model was trained on something else, or on single digits alone.
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
  alignment = SignAlignment(
    scores={
      kind: {name: float(np.nanmean(values)) for name, values in found.items()}
      for kind, found in each.items()
    },
    ceiling=judge.score(videos, labels),
    floor=judge.score(videos, labels[1:] + labels[:1]),
    samples=samples,
    each=each,
    prompts=asked,
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


def write_sheet(
  directory: str | os.PathLike[str],
  made: dict[str, tuple[UInt8[np.ndarray, 'b t h w 3'], list[SignReading]]],
) -> pathlib.Path:
  """Draws some of what `judge_signs` made, images side by side and videos below each other."""
  rows, titles = [], []
  for captions, (videos, labels) in made.items():
    across = 1 if videos.shape[1] > 1 else _ACROSS
    shown = np.linspace(0, len(labels) - 1, min(len(labels), across * _ROWS)).astype(int)
    for some in np.split(shown, range(across, len(shown), across)):
      rows.append(np.concatenate(videos[some]))
      titles.append(f'{_NAMES[captions]}: ' + ', '.join(labels[i].number for i in some))
  path = pathlib.Path(directory) / 'samples.png'
  contact_sheet(path, rows, titles, columns=_ACROSS)
  return path
