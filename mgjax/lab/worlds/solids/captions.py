"""Captions of scenes, by construction: several sentences for one meaning, and what each says.

A plain caption says everything about a scene in one phrase and always the same way. A varied one is
drawn: a phrase or up to three sentences, other words, a material or a size left out, a count and a
relation added. `Caption.says` lists what it says, statement by statement, so that a judge asks for
that and nothing else. A motion of a solid or of the camera is always said: silence is stillness.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgjax.lab.worlds.solids.kinds import CAMERAS, MATERIALS, MOTIONS, PATTERNS, SIZES, SPEEDS
from mgjax.lab.worlds.solids.physics import ON_FLOOR, Contact
from mgjax.lab.worlds.solids.scene import STYLES, Scene, Solid

_SHAPES = {
  'ball': ('ball', 'sphere'),
  'cube': ('cube', 'block'),
  'cylinder': ('cylinder',),
  'cone': ('cone',),
}
_MATERIALS = {name: (material.word,) for name, material in MATERIALS.items()}
_MATERIALS['metal'] += ('metallic',)
_SIZES = {'small': ('small', 'little'), 'large': ('large', 'big')}
_DIRECTIONS = {
  '': ('',),
  'left': ('left', 'to the left'),
  'right': ('right', 'to the right'),
  'away': ('away', 'into the distance'),
  'closer': ('closer', 'towards the camera'),
}
_VERBS = {
  'rolls': ('rolls', 'is rolling'),
  'slides': ('slides', 'is sliding'),
  'bounces': ('bounces', 'is bouncing'),
  'falls': ('falls', 'drops to the floor'),
  'spins': ('spins', 'turns on the spot'),
  '': ('stands still', 'does not move', 'is at rest'),
}
_CAMERAS = {
  'stands still': ('stands still', 'does not move'),
  **{
    f'pans {way}': (f'pans {way}', f'turns {way}', f'pans to the {way}')
    for way in ('left', 'right')
  },
  **{f'tilts {way}': (f'tilts {way}', f'looks {way}') for way in ('up', 'down')},
  **{f'zooms {way}': (f'zooms {way}',) for way in ('in', 'out')},
  **{
    f'circles {way}': (f'circles {way}', f'moves around to the {way}') for way in ('left', 'right')
  },
  'follows': ('follows', 'goes along with'),
}
_HITS = ('hits', 'bumps into', 'runs into')
_NUMBERS = ('no', 'one', 'two', 'three', 'four')
_THINGS = ('objects', 'solids')


class Statement(NamedTuple):
  """One thing that a caption says: `what` about which solids, by their indices.

  Of a solid: 'size', 'colour', 'material', 'shape', 'pattern', 'motion' (of `kinds.MOTIONS`),
  'pace' ('slowly', 'quickly'); of two: 'hits', 'relation' ('left of', 'right of', 'in front of',
  'behind'); of none: 'count', 'camera' (of `kinds.CAMERAS`), 'amount' (degrees).
  """

  what: str
  solids: tuple[int, ...]
  value: str | int


class Caption(NamedTuple):
  """A text and what it says."""

  text: str
  says: tuple[Statement, ...]


def plain_caption(scene: Scene, moves: bool = True, named: bool = True) -> Caption:
  """Says everything in one phrase; without `moves`, what a picture shows.

  Unless `named`, the first solid is 'this object', of which nothing else is said but its motion.
  """
  teller = _Teller(scene, None, named)
  if not moves:
    names = [teller.name(index) for index in range(len(scene.solids))]
    return teller.caption(_listed(names))
  return teller.caption('; '.join([', '.join(teller.clauses()), *teller.camera(always=False)]))


def describe(solid: Solid) -> str:
  """'a large red metal ball', without its pattern."""
  return plain_caption(Scene((dataclasses.replace(solid, pattern='band', second=''),)), False).text


def scene_caption(scene: Scene) -> Caption:
  """Says what a picture shows, what is behind it and how it is shown, as captions of edits do."""
  text, says = plain_caption(scene, False)
  text = f'{text}, {scene.floor} floor, {scene.sky} sky'
  return Caption(f'{STYLES[scene.style]}: {text}' if scene.style else text, says)


def sound_caption(scene: Scene, contacts: Sequence[Contact]) -> Caption:
  """Describes the audio in order: 'metal rolls, then metal hits wood'; it has no statements."""
  clauses: dict[str, None] = {}
  for solid in scene.solids:
    verb = MOTIONS[solid.motion].verb
    if verb in ('rolls', 'slides'):
      clauses[f'{solid.material} {verb}'] = None
  landed: set[int] = set()
  for contact in contacts:
    first, second = contact.materials
    if contact.second != ON_FLOOR:
      clauses[f'{first} hits {second}'] = None
    else:
      clauses[f'{first} {"bounces" if contact.first in landed else "lands"}'] = None
      landed.add(contact.first)
  return Caption(', then '.join(clauses) or 'nothing is heard', ())


def varied_caption(
  scene: Scene, generator: np.random.Generator, moves: bool = True, named: bool = True
) -> Caption:
  """Describes a scene in randomly drawn words; otherwise like `plain_caption`."""
  teller = _Teller(scene, generator, named)
  count = teller.count() if generator.uniform() < 0.3 else []
  if not moves:
    names = [teller.name(index) for index in range(len(scene.solids))]
    return teller.caption(': '.join([*count, _listed(names)]))
  clauses = teller.clauses()
  if generator.uniform() < 0.4:
    text = _one_sentence(clauses) if generator.uniform() < 0.5 else ', '.join(clauses)
    return teller.caption('; '.join([': '.join([*count, text]), *teller.camera(always=False)]))
  sentences = [_one_sentence(clauses)]
  if len(clauses) > 1 and generator.uniform() < 0.5:
    sentences = [clauses[0], _one_sentence(clauses[1:])]
  if count:
    sentences[0] = f'{count[0]}: {sentences[0]}'
  relation = teller.relation() if len(sentences) < 2 and generator.uniform() < 0.6 else []
  parts = [*sentences, *relation, *teller.camera(always=bool(generator.uniform() < 0.3))]
  return teller.caption(' '.join(f'{sentence[0].upper()}{sentence[1:]}.' for sentence in parts))


class _Teller:
  """Finds the words for parts of a scene, and keeps what it said; without a generator the first."""

  def __init__(self, scene: Scene, generator: np.random.Generator | None, named: bool):
    self.scene, self.generator, self.first_is_named = scene, generator, named
    self.says: dict[Statement, None] = {}  # in their order, each once
    self.named: set[int] = set()

  def caption(self, text: str) -> Caption:
    return Caption(text, tuple(self.says))

  def one(self, words: Sequence[str]) -> str:
    return words[0] if self.generator is None else words[self.generator.integers(len(words))]

  def chance(self, share: float) -> bool:
    """True in a share of cases, never in a plain caption."""
    return self.generator is not None and bool(self.generator.uniform() < share)

  def say(self, what: str, solids: tuple[int, ...], value: str | int) -> None:
    self.says[Statement(what, solids, value)] = None

  def name(self, index: int) -> str:
    """'a large red metal ball', and 'the red ball' when it is named again."""
    if index == 0 and not self.first_is_named:
      return 'this object'
    solid = self.scene.solids[index]
    words = [solid.colour, self.one(_SHAPES[solid.shape])]
    if index in self.named:
      return ' '.join(['the', *words])
    self.named.add(index)
    self.say('colour', (index,), solid.colour)
    self.say('shape', (index,), solid.shape)
    if not self.chance(0.25):
      words.insert(1, self.one(_MATERIALS[solid.material]))
      self.say('material', (index,), solid.material)
    if not self.chance(0.25):
      size = size_word(solid)
      words.insert(0, self.one(_SIZES[size]))
      self.say('size', (index,), size)
    if solid.pattern != 'band' or solid.second:
      words.append(PATTERNS[solid.pattern].format(solid.second or 'light'))
      self.say('pattern', (index,), solid.pattern)
    return ' '.join(['a', *words])

  def motion(self, index: int) -> str:
    """'rolls slowly to the left'."""
    solid = self.scene.solids[index]
    verb, direction = MOTIONS[solid.motion]
    self.say('motion', (index,), solid.motion)
    words = [self.one(_VERBS[verb])]
    pace = pace_word(solid)
    if pace and self.chance(0.4):
      words.append(pace)
      self.say('pace', (index,), pace)
    return ' '.join([*words, self.one(_DIRECTIONS[direction])]).strip()

  def clauses(self) -> list[str]:
    """Returns one clause for each solid, or for two that meet."""
    meets = self.scene.meets
    clauses = []
    if meets:
      self.say('hits', meets, 'hits')
      clauses.append(self.meeting(*meets))
    for index in range(len(self.scene.solids)):
      if index not in meets:
        clauses.append(f'{self.name(index)} {self.motion(index)}')
    return clauses

  def meeting(self, first: int, second: int) -> str:
    if MOTIONS[self.scene.solids[second].motion].verb:
      if self.chance(0.4):
        hits = f'{self.name(first)} {self.motion(first)} and {self.one(_HITS)} {self.name(second)}'
        return f'{hits}, which {self.motion(second)}'
      motions = (
        f'{self.name(first)} {self.motion(first)}, {self.name(second)} {self.motion(second)}'
      )
      return f'{motions} and they {self.one(("collide", "meet"))}'
    if self.chance(0.25):
      hit = f'{self.name(second)} is hit by {self.name(first)}'
      return f'{hit} that {self.motion(first)}'
    return f'{self.name(first)} {self.motion(first)} and {self.one(_HITS)} {self.name(second)}'

  def count(self) -> list[str]:
    number = len(self.scene.solids)
    if number == 1:
      return []
    self.say('count', (), number)
    return [f'{_NUMBERS[number]} {self.one(_THINGS)}']

  def relation(self) -> list[str]:
    """How two solids stand that keep their places, if there are such."""
    still = [
      index
      for index, solid in enumerate(self.scene.solids)
      if not MOTIONS[solid.motion].direction and index not in self.scene.meets
    ]
    if len(still) < 2:
      return []
    first, second = still[:2]
    between = relation_of(self.scene, first, second)
    if not between:
      return []
    self.say('relation', (first, second), between)
    words = f'to the {between}' if between.split()[0] in ('left', 'right') else between
    return [f'{self.name(first)} is {words} {self.name(second)}']

  def camera(self, always: bool) -> list[str]:
    camera, index = self.scene.camera, self.scene.follows
    self.say('camera', (), camera.move)
    if camera.move == 'stands still' and not always:
      return []
    words = f'the camera {self.one(_CAMERAS[camera.move])}'
    if camera.move == 'follows':
      self.say('follows', (index,), 'follows')
      return [f'{words} {self.name(index)}']
    if CAMERAS[camera.move].sign and CAMERAS[camera.move].unit == 'degrees' and self.chance(0.3):
      self.say('amount', (), round(camera.amount))
      words += f' by {round(camera.amount)} degrees'
    return [words]


def size_word(solid: Solid) -> str:
  """'small' or 'large', whichever range of sizes is nearer."""
  middles = {word: sum(spans[0]) / 2 for word, spans in SIZES.items()}
  return min(middles, key=lambda word: abs(middles[word] - solid.size))


def pace_word(solid: Solid) -> str:
  """'slowly' or 'quickly' in the lowest and highest third of what speeds are in training, or ''."""
  verb, direction = MOTIONS[solid.motion]
  if not direction:
    return ''
  least, most = SPEEDS[verb][0]
  share = (float(np.hypot(*solid.velocity)) - least) / (most - least)
  return 'slowly' if share < 1 / 3 else 'quickly' if share > 2 / 3 else ''


def relation_of(scene: Scene, first: int, second: int) -> str:
  """Where the first solid stands, seen from the middle of the camera's way; '' if on a diagonal."""
  apart = np.subtract(scene.solids[first].place, scene.solids[second].place)
  right, forward = scene.camera.on_floor(apart)
  if abs(right) > 1.5 * abs(forward):
    return 'right of' if right > 0 else 'left of'
  if abs(forward) > 1.5 * abs(right):
    return 'behind' if forward > 0 else 'in front of'
  return ''


def _listed(words: list[str]) -> str:
  return words[0] if len(words) == 1 else f'{", ".join(words[:-1])} and {words[-1]}'


def _one_sentence(clauses: list[str]) -> str:
  return clauses[0] if len(clauses) == 1 else f'{", ".join(clauses[:-1])}, and {clauses[-1]}'
