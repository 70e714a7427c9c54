"""Judges edited clips of solids: whether all is as the instruction asks, and all else kept.

The judge of clips (`video.py`) reads which solids an edited clip shows, of which shape and
material, and where, beside what it reads in the true clip after the edit. How a floor, a sky or a
style looks is compared with the true clips before and after, pixel by pixel.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from scipy.ndimage import maximum_filter

from mgjax.core.typing import Bool
from mgjax.lab.worlds.judging import AskedEdit, Column, JudgedEdit, Videos
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.edits import OF_SEVERAL, TASKS, Edit
from mgjax.lab.worlds.solids.judges.video import SolidSeen, SolidsJudge, SolidsReading, make_judge

# Task -> what must be right.
PARTS = {
  'recolour': ('colour', 'gone', 'shape', 'kept'),
  'material': ('material', 'shape', 'kept'),
  'replace': ('colour', 'gone', 'shape', 'kept'),
  'remove': ('gone', 'kept'),
  'add': ('colour', 'shape', 'kept'),
  'background': ('look', 'kept'),
  'style': ('look',),
  'camera': ('camera', 'kept'),
  'mark': ('look',),
  'nothing': ('kept',),
}
_PLACE = 0.4  # units by which a solid that is kept may lie off; small ones are 0.88 wide
_CHANGED = 6  # of 255 levels, from which on an edit changes a pixel
_MARGIN = 2  # pixels around it that are not counted as kept: what decoders blur
_LEAST = 0.2  # of all pixels that must be left to say how well they are kept


@dataclasses.dataclass(frozen=True)
class SolidsEdits:
  """Asks for edits of held-out scenes and reads them, see `EditsJudge` of `lab/worlds/judging.py`.

  Raises ConfigError for a source of clips that the judge cannot look at.
  """

  source: Solids  # of training

  numbers: ClassVar[Mapping[str, Column]] = {'outside': Column('PSNR of what is kept, dB', 1, 1)}
  uncounted: ClassVar[tuple[str, ...]] = ('nothing',)
  tasks: ClassVar[tuple[str, ...]] = TASKS

  def __post_init__(self):
    self._judge  # noqa: B018  or says that there is none

  def asks(self, samples: int, tasks: Sequence[str]) -> list[AskedEdit]:
    requests = []
    for task in tasks:
      several = (max(2, self.source.solids[0]), max(2, self.source.solids[1]))
      source = dataclasses.replace(
        self.source,
        split='in_distribution',
        edits=(task,),
        meetings=0.0,
        solids=several if task in OF_SEVERAL else self.source.solids,
      )
      count = max(samples // len(tasks), 1)
      index = 0
      while count:
        edit = source.edit(source.scene(index))
        if edit.task == task:
          pair = source[index]
          requests.append(AskedEdit(task, edit, pair['source_video'], pair['video']))
          count -= 1
        index += 1
    return requests

  def read(self, requests: Sequence[AskedEdit], videos: Videos) -> list[JudgedEdit]:
    readings = self._judge.read(videos)
    expected = self._judge.read([request.after for request in requests])
    return [
      JudgedEdit(
        _parts(request, np.asarray(video), reading, true),
        {'outside': _outside(request, np.asarray(video))},
      )
      for request, video, reading, true in zip(requests, videos, readings, expected, strict=True)
    ]

  @property
  def _judge(self) -> SolidsJudge:
    return make_judge(dataclasses.replace(self.source, edits=()))


def _parts(
  request: AskedEdit, video: np.ndarray, reading: SolidsReading, true: SolidsReading
) -> dict[str, bool]:
  edit: Edit = request.edit
  old, new = (
    scene.solids[edit.solid] if edit.solid < len(scene.solids) else None
    for scene in (edit.before, edit.after)
  )
  changed = {'background', 'style', 'camera', 'nothing'}
  unchanged = [
    solid.colour
    for index, solid in enumerate(edit.after.solids)
    if edit.task in changed or index != edit.solid
  ]
  named = reading.solids.get(new.colour) if new else None
  expected = new and true.solids.get(new.colour)
  away = float(np.abs(video.astype(np.float32) - request.after).mean())
  parts = {
    'colour': named is not None,
    'gone': old is not None and old.colour not in reading.solids,
    'shape': named is not None and new is not None and _alike(named, new.shape, expected),
    'material': named is not None and new is not None and named.material == new.material,
    'kept': all(
      _is_unchanged(reading, true, colour, edit.task == 'camera') for colour in unchanged
    ),
    'look': away < float(np.abs(request.before.astype(np.float32) - request.after).mean()) / 2,
    'camera': reading.camera == edit.after.camera.move,
  }
  return {name: parts[name] for name in PARTS[edit.task]}


def _alike(reading: SolidSeen, shape: str, true: SolidSeen | None) -> bool:
  """Whether a shape is right; it may be misread in the same way as in the true clip."""
  return reading.shape == shape or (true is not None and reading.shape == true.shape)


def _is_unchanged(reading: SolidsReading, true: SolidsReading, colour: str, anywhere: bool) -> bool:
  """Whether a solid is there, and where it is in the true clip as far as that can be read."""
  here, there = reading.solids.get(colour), true.solids.get(colour)
  if here is None or there is None or anywhere:
    return here is not None or there is None
  return math.dist(here.place, there.place) < _PLACE


def _outside(request: AskedEdit, video: np.ndarray) -> float:
  """Returns the PSNR of the pixels that the edit leaves unchanged; NaN if there are too few."""
  same = ~_changed(request)
  if same.mean() < _LEAST:
    return math.nan
  errors = np.square(video.astype(np.float32) - request.after).mean(-1)[same]
  return float(10 * np.log10(255**2 / max(float(errors.mean()), 1e-6)))


def _changed(request: AskedEdit) -> Bool[np.ndarray, 't h w']:
  away = np.abs(request.before.astype(np.float32) - request.after).max(-1) > _CHANGED
  return maximum_filter(away, (1, 2 * _MARGIN + 1, 2 * _MARGIN + 1))
