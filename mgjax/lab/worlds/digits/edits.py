"""Edits of synthetic clips: scenes before and after, the instruction and the one that undoes it.

Both scenes share the hand, the path and the wall but for what the instruction names, so that what
an edit must change and what it must keep are known pixel by pixel.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.lab.worlds.digits.captions import scene_caption
from mgjax.lab.worlds.digits.handwriting import identities_of
from mgjax.lab.worlds.digits.scene import TINTS, Scene

_WORDS: dict[str, Callable[[Scene], str]] = {
  'recolour': lambda after: f'make the digit {after.colour}',
  'replace': lambda after: f'turn it into a {after.number}',
  'remove': lambda after: 'remove the digit',
  'add': lambda after: f'add a {after.colour} digit {after.number}',
  'background': lambda after: f'make the wall {after.tint}',
  'still': lambda after: 'freeze it',
  'reverse': lambda after: 'play it backwards',
  'mark': lambda after: f'mark the digit in {after.mark}',
  'nothing': lambda after: 'leave it as it is',
}
TASKS = tuple(_WORDS)
OF_MOTION = ('still', 'reverse')  # pictures cannot show these
_UNDO = {'remove': 'add', 'add': 'remove', 'still': '', 'mark': ''}  # '' cannot be undone


class Edit(NamedTuple):
  """What is asked for, one of `TASKS`, and the scenes before and after it."""

  task: str
  before: Scene
  after: Scene

  @property
  def instruction(self) -> str:
    """Says what to do, as in 'make the digit red'."""
    return _WORDS[self.task](self.after)

  @property
  def source_caption(self) -> str:
    """Says what a picture shows before."""
    return scene_caption(dataclasses.replace(self.before, motion=''))

  @property
  def target_caption(self) -> str:
    """Says what a picture shows after; of a mark it says nothing."""
    return scene_caption(dataclasses.replace(self.after, motion=''))

  @property
  def undone(self) -> 'Edit | None':
    """The edit that leads back; None if no instruction can say it."""
    task = _UNDO.get(self.task, self.task)
    return Edit(task, self.after, self.before) if task else None


class Palette(NamedTuple):
  """What edits choose from: colours of digits and marks, and handwriting of a split.

  `allows` says which (digit, colour, motion) a clip may show together.
  """

  colours: tuple[str, ...]
  split: str
  allows: Callable[[int, str, str], bool]


def draw_edit(task: str, scene: Scene, palette: Palette, generator: np.random.Generator) -> Edit:
  """Returns an edit that leads to a scene or starts from it, whichever the task changes less.

  The result shows the scene's combination of words if there is still a digit to show it, so that
  validation tests the combinations that are held out of training.
  """
  replace = dataclasses.replace
  digit = int(scene.number)
  before = scene
  after = scene

  def one(choices):
    return choices[generator.integers(len(choices))]

  if task == 'recolour':
    colours = [c for c in palette.colours if palette.allows(digit, c, scene.motion)]
    before = replace(scene, colour=one([c for c in colours if c != scene.colour]))
  elif task == 'replace':
    digits = [d for d in range(10) if d != digit and palette.allows(d, scene.colour, scene.motion)]
    before = replace(scene, identities=(one(identities_of(palette.split, one(digits))),))
  elif task == 'remove':
    after = replace(scene, hidden=True)
  elif task == 'add':
    before = replace(scene, hidden=True)
  elif task == 'background':
    before = replace(scene, tint=one([tint for tint in TINTS if tint != scene.tint]))
  elif task == 'still':
    after = replace(scene, play='frozen')
  elif task == 'reverse':
    after = replace(scene, play='backward')
  elif task == 'mark':
    after = replace(scene, mark=one(palette.colours))
  return Edit(task, before, after)


def all_instructions(tasks: tuple[str, ...], colours: tuple[str, ...]) -> Iterator[str]:
  """Yields every instruction of some tasks, each once."""
  by_colour = [{'colour': colour, 'mark': colour} for colour in colours]
  by_digit = [{'digit': digit} for digit in range(10)]
  ways: dict[str, list[JSON]] = {
    'recolour': by_colour,
    'replace': by_digit,
    'add': [digit | colour for digit in by_digit for colour in by_colour],
    'background': [{'tint': tint} for tint in TINTS],
    'mark': by_colour,
  }
  for task in tasks:
    yield from (_say(task, **fields) for fields in ways.get(task, [{}]))


def _say(task: str, digit: int = 0, **fields: str) -> str:
  fields = {'colour': 'red', **fields}
  return _WORDS[task](Scene((identities_of('train', digit)[0],), motion='', **fields))
