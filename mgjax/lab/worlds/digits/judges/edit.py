"""Judges edited synthetic clips: whether all is as the instruction asks, and all else kept.

The scenes before and after an edit are known pixel by pixel, so that each part is read where it
must show. The judge of digits (`judge.py`) reads the digit, its colour and its path. The tint of
the wall and its pixels are read outside of the ink of both scenes, and a mark between the strokes.
What a clip has under a mark is read with the layer taken off again.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import maximum_filter

from mgjax.core.settings import Positive
from mgjax.core.typing import Float
from mgjax.lab.worlds.digits import render
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.edits import OF_MOTION, TASKS, Edit
from mgjax.lab.worlds.digits.judges.digit import (
  SIDE,
  THRESHOLD,
  DigitJudge,
  Sight,
  find_digit,
  train_judge,
)
from mgjax.lab.worlds.digits.judges.video import held_out_labels, indices_of, looks_of
from mgjax.lab.worlds.digits.scene import COLOURS, TINTS, Scene
from mgjax.lab.worlds.judging import AskedEdit, Column, JudgedEdit, Videos

_ALL = ('digit', 'colour', 'wall', 'path', 'mark')
# Task -> what must be right: in a clip that keeps all else. Where a digit is added it is free to
# move and be anywhere, and how a wall of another tint looks tile by tile does not count.
PARTS: dict[str, tuple[str, ...]] = {
  **dict.fromkeys(TASKS, _ALL),
  'replace': ('digit', 'colour', 'wall', 'path'),  # another hand's strokes lie elsewhere
  'remove': ('gone', 'wall'),
  'add': ('digit', 'colour', 'wall'),
  'background': ('digit', 'colour', 'tint', 'path'),
}
KEEP_THE_HAND = tuple(task for task in TASKS if task not in ('replace', 'remove', 'add'))
KEEP_THE_PATH = tuple(task for task in TASKS if 'path' in PARTS[task])
_MARGIN = 2  # pixels of 32 around ink that are not counted as wall: what decoders blur
_INK = 0.02  # opacity from which on a pixel is not wall alone
_HAND = 1.5  # pixels of 32 by which the middle of one hand lies off that of another


NEW_COLOUR = 'recolour, new colour'  # a row: colours that training never showed
SPLIT = 'judge'  # of the clips' handwriting, so that what was filtered by 'filter' knows none of it


@dataclasses.dataclass(frozen=True)
class EditJudge:
  """Judges edited clips of any size and frame count; made by `train_edit_judge`."""

  digits: DigitJudge
  # Mean error of a wall that is kept, of 255 levels, at most: autoencoders leave up to 4, a wall
  # painted over in its mean colour has 5.5 or more.
  wall: Positive = 5.0
  # Root mean square error of a path that is kept, pixels of 32, at most: autoencoders leave less in
  # 98 of 100 clips, a path played backwards has 10.
  path: Positive = 1.5

  def judge(self, video: np.ndarray, edit: Edit) -> JudgedEdit:
    """Judges which parts of an edited clip are right. Raises DataError unless uint8 (t h w 3)."""
    find_digit(video)  # refuses what is no video
    task, after = edit.task, edit.after
    frames = len(video)
    size = video.shape[1:3]
    truth = render.render(after, frames, size)
    wall = _wall(edit, video, truth)
    mark = _mark(video, edit) if 'mark' in PARTS[task] else ''
    sight = find_digit(_unmarked(video, after, mark))
    expected = find_digit(_unmarked(truth, after, after.mark))
    path_error = _path_error(sight, expected, task) if task in KEEP_THE_PATH else math.nan
    errors = np.abs(video.astype(np.float32) - truth).mean(-1)
    wall_error = _mean(errors, wall)
    leftover = _leftover(edit, frames, size)
    # A ghost would be lost in the mean over all of the wall.
    if task != 'replace' and leftover.any():
      wall_error = max(wall_error, _mean(errors, leftover))
    same_hand = task in KEEP_THE_HAND
    parts = {
      'gone': not sight.colour,
      'digit': bool(sight.colour) and self._is_digit(sight, expected, after, same_hand),
      'colour': sight.colour == after.colour,
      'tint': _tint(video, after, wall) == after.tint,
      'wall': wall_error <= self.wall,
      'path': path_error <= self.path,
      'mark': mark == after.mark,
    }
    numbers = {
      'handwriting': float(sight.crop @ expected.crop) if same_hand else math.nan,
      'path_error': path_error,
      'flicker': _flicker(video, wall),
      'wall_error': wall_error,
    }
    return JudgedEdit({name: parts[name] for name in PARTS[task]}, numbers)

  def _is_digit(self, sight: Sight, expected: Sight, after: Scene, same_hand: bool) -> bool:
    """Whether the digit is right; if its handwriting stays, the reference may be misread alike."""
    predicted, reference = self.digits.classify(np.stack([sight.crop, expected.crop])).tolist()
    return predicted == int(after.number) or (same_hand and predicted == reference)


@dataclasses.dataclass(frozen=True)
class DigitsEdits:
  """Asks for edits of held-out captions and reads them, see `EditsJudge` of `judging.py`.

  `path_error` is the root mean square distance from the path of the scene after the edit, in pixels
  of 32. `flicker` is the mean |x_{t-1} - 2 x_t + x_{t+1}| of the wall. `wall_error` is the wall's
  mean distance from that of the scene after the edit, in levels of uint8.
  """

  source: Digits  # of training
  reader: EditJudge | None = None

  numbers: ClassVar[Mapping[str, Column]] = {
    'handwriting': Column('handwriting kept', 1, 1),
    'path_error': Column('error of the path, pixels', 1, -1),
    'flicker': Column('flicker of the wall', 1, 0),
    'wall_error': Column('error of the wall', 1, -1),
  }
  uncounted: ClassVar[tuple[str, ...]] = ('nothing', NEW_COLOUR)

  @property
  def tasks(self) -> tuple[str, ...]:
    return tuple(task for task in TASKS if self.source.frames > 1 or task not in OF_MOTION)

  def asks(self, samples: int, tasks: Sequence[str]) -> list[AskedEdit]:
    fresh = [name for name in COLOURS if name not in self.source.colours]
    rows = [*tasks, *([NEW_COLOUR] if 'recolour' in tasks and fresh else [])]
    count = max(samples // len(rows), 1)
    labels = held_out_labels(looks_of(self.source), count)[:count]
    where = (self.source.frames, self.source.size)
    requests = []
    for row in rows:
      fields = self.source.validation(self.source.frames) | {'empty': 0.0, 'extras': ()}
      fields |= {'edits': ('recolour' if row == NEW_COLOUR else row,), 'split': SPLIT}
      source = dataclasses.replace(self.source, **fields)
      for number, index in enumerate(indices_of(source, labels)):
        edit = source.edit(source.scene(index))
        if row == NEW_COLOUR:
          recoloured = dataclasses.replace(edit.after, colour=fresh[number % len(fresh)])
          edit = edit._replace(after=recoloured)
        videos = [render.render(scene, *where) for scene in (edit.before, edit.after)]
        requests.append(AskedEdit(row, edit, *videos))
    return requests

  def read(self, requests: Sequence[AskedEdit], videos: Videos) -> list[JudgedEdit]:
    pairs = zip(requests, videos, strict=True)
    return [self._judge.judge(np.asarray(video), request.edit) for request, video in pairs]

  @functools.cached_property  # several ways to edit the same clips are judged
  def _judge(self) -> EditJudge:
    return self.reader or train_edit_judge(**looks_of(self.source))


def train_edit_judge(split: str = 'train', **options: Any) -> EditJudge:
  """Trains a judge of edits, in seconds; `options` are those of `train_judge`.

  It learns handwriting of `split`: one half of what is held out to filter, the other to evaluate.
  """
  return EditJudge(train_judge(split=split, **options))


def _wall(edit: Edit, video: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Where neither scene has ink or a mark, and (t h w) is therefore wall."""
  where = len(video), video.shape[1:3]
  covered = np.zeros(video.shape[:3], np.float32)
  for scene in (edit.before, edit.after):
    covered = np.maximum(covered, render.mask(scene, *where))
    if scene.mark:
      covered = np.maximum(covered, render.box(scene, *where))
  if edit.task in ('add', 'replace'):  # wherever its strokes are
    away = np.abs(video.astype(np.float32) - truth).max(-1) / 255
    covered = np.maximum(covered, away > THRESHOLD)
  return _around(covered) < _INK


def _leftover(edit: Edit, frames: int, size: tuple[int, int]) -> np.ndarray:
  """Returns where the digit was and no trace of it should remain (t h w)."""
  before, after = (render.mask(scene, frames, size) for scene in (edit.before, edit.after))
  return (before > 0.5) & (_around(after) < _INK)


def _around(covered: Float[np.ndarray, 't h w']) -> Float[np.ndarray, 't h w']:
  reach = 2 * round(_MARGIN * min(covered.shape[1:]) / SIDE) + 1
  return maximum_filter(covered, (1, reach, reach))


def _mean(values: Float[np.ndarray, 't h w'], there: np.ndarray) -> float:
  return float(values[there].mean()) if there.any() else math.nan


def _tint(video: np.ndarray, after: Scene, wall: np.ndarray) -> str:
  """Returns the tint whose wall, in this scene, has the mean colour nearest to the clip's."""
  broadcast = np.broadcast_to
  mean = video[wall].mean(0)

  def distance(tint: str) -> float:
    behind = render.background(dataclasses.replace(after, tint=tint), video.shape[1:3])
    return float(np.sum((broadcast(behind, video.shape)[wall].mean(0) - mean) ** 2))

  return min(TINTS, key=distance)


def _mark(video: np.ndarray, edit: Edit) -> str:
  """The colour of the layer over the digit's box, where there is no ink; '' for none.

  The mean difference from the wall is compared with that of a layer of each colour, and of none.
  """
  after = edit.after
  frames = len(video)
  size = video.shape[1:3]
  between = (render.box(after, frames, size) == 1) & (render.mask(after, frames, size) < _INK)
  if not between.any():
    return ''
  behind = np.broadcast_to(render.background(after, size) / np.float32(255), video.shape)[between]
  shift = video[between] / np.float32(255) - behind
  layers = {'': 0.0, **{name: render.LAYER * (np.array(c) - behind) for name, c in COLOURS.items()}}
  return min(layers, key=lambda name: float(np.sum((shift - layers[name]).mean(0) ** 2)))


def _unmarked(video: np.ndarray, scene: Scene, mark: str) -> np.ndarray:
  """Takes the layer over a scene's box off a clip."""
  if not mark:
    return video
  layer = render.LAYER * render.box(scene, len(video), video.shape[1:3])[..., None]
  bare = (video - layer * np.array(COLOURS[mark], np.float32) * 255) / (1 - layer)
  return np.clip(np.rint(bare), 0, 255).astype(np.uint8)


def _path_error(sight: Sight, expected: Sight, task: str) -> float:
  away = (sight.path - expected.path)[np.isfinite(sight.path).all(1)]
  if not len(away):
    return math.nan
  if task == 'replace':
    away = away - np.clip(away.mean(0), -_HAND, _HAND)
  return float(np.sqrt(np.square(away).sum(1).mean()))


def _flicker(video: np.ndarray, wall: np.ndarray) -> float:
  if len(video) < 3:
    return math.nan
  second = np.abs(np.diff(video.astype(np.float32), n=2, axis=0)).mean(-1)
  return _mean(second, wall[:-2] & wall[1:-1] & wall[2:])
