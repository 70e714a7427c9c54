"""Tries of what is around a command: full disks, clocks that jump."""

import os
import pathlib
from collections.abc import Callable

from tests.hostile.driver import Chance, Try
from tests.hostile.ground import COMMANDS

# Commands that write, and into what.
_WRITERS = {
  'convert': 'converted',
  'convert anew': 'converted',
  'curate': 'curated',
  'evaluate': 'a',
  'analyse': 'votes',
  'import votes': 'votes',
  'export votes': 'place',
  'export': 'place',
  'import': 'imported',
  'plot': 'laws',
  'average': 'averaged',
  'prune': 'run',
  'sample a video': 'place',
  'sample a soundtrack': 'place',
  'go on with a sound': 'place',
  'enlarge': 'place',
  'find references': 'people',
  'inspect': 'place',
  'train a little': 'new',
  'serve votes': 'votes',
  'sample a suite': 'place',
  'verify': 'run',
}


def draw_disk(chance: Chance) -> Try:
  """A disk that is full, or that nobody may write to."""
  name = chance.pick(sorted(_WRITERS))
  place = _WRITERS[name]
  words = [
    word.replace('--out=', '--out=place/') if place == 'place' else word for word in COMMANDS[name]
  ]
  if name == 'inspect':
    words.append('--sheet=place/clips.png')
  how = chance.pick(('4k', '12k', '40k', '100k', '200k', '400k', 'read-only', 'user'))
  disk = (
    {'place': place, 'size': how}
    if how[0].isdigit()
    else {'place': place if how != 'user' else '.'}
  )

  def spoil(folder: pathlib.Path) -> None:
    (folder / place).mkdir(exist_ok=True)
    for path in (folder, folder / place) if how == 'user' else ():
      path.chmod(0o555)

  conditions = {'disk': disk} if how != 'user' else {'user': True}
  return Try(words, spoil, conditions=conditions, seconds=90, changes=[f'{place}/**'], about=how)


def draw_clock(chance: Chance) -> Try:
  """A clock that jumps, and files from before and after all times."""
  name = chance.pick(sorted(COMMANDS))
  seconds = chance.pick((0, 3600, -3600, 1e9, 1e11, -3e9))
  age = chance.pick((None, 0, -1, 2**31, 2**33, 10**11, -(10**9)))

  def spoil(folder: pathlib.Path) -> None:
    for path in folder.rglob('*') if age is not None else ():
      os.utime(path, (age, age))

  changes, about = _MAY_CHANGE.get(name, ()), f'clock {seconds:g}, files of {age}'
  conditions = {'clock': seconds}
  return Try(COMMANDS[name], spoil, False, changes, conditions, seconds=90, about=about)


_MAY_CHANGE = {'analyse': ('votes/analysis.*',), 'prune': ('run/**',), 'serve votes': ('votes/**',)}
CLASSES: dict[str, Callable[[Chance], Try]] = {'disks': draw_disk, 'clocks': draw_clock}
