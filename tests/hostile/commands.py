"""Tries of command lines: flags, and names of files."""

import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

from tests.hostile import adapters, kinds
from tests.hostile.driver import Chance, Try
from tests.hostile.ground import COMMANDS
from tests.tiny import CHECKOUT

NO_NUMBERS = ('nan', '-nan', 'inf', '-inf', 'x', '', '1e309', 'None', '[]', '1,', '٣')
BAD = {  # flags that a parser of their own reads: nonsense that must be refused
  'guidance': (
    *('nan', 'inf', '-inf', '1e309', 'x', '=', ',', 'text=nan', 'text=1,text=2'),
    *('3@nan-1', '3@0.9-0.1', '3@0-2', '3@-1-0.5'),
  ),
  'mesh': (
    *('context=0', 'x=1', '=', 'data=', 'data=nan', 'data=1.5', 'data=-2', 'data=1,data=1'),
    'data=99999999999999999999',
  ),
  'size': ('0,0', '-1,32', 'nan,nan', '32', '32,32,32', 'x', '9' * 30 + ',32', '1e3,1e3', '٣,٣'),
  'scale': ('nan', 'inf', '0', '-1', '-inf', '1e309', '1e308', 'x', '', '9' * 400),
  'known': ('nan-nan', '1-0', '0-inf', '-1-2', '0', 'x-y', '', '0-0', '1e308-1e309'),
  'process': ('1/0', '4/4', '-1/4', 'nan/nan', 'x', '1', '0/' + '9' * 30),
  'reencode': ('gop=nan', 'crf=nan', 'crf=52', 'side=-1', 'gop=0', 'x=1', 'gop=', 'crf=inf'),
  'references': ('margin=nan', 'margin=inf', 'smallest=2', 'side=0', 'x', 'smallest=nan'),
  'keep': ('latest=0', 'latest=nan', 'best=-1', 'x=1', 'latest=', 'corrupt=2', 'latest=1.5'),
  'shares': ('nan', 'inf', '-1', '0', 'x', '1,2,3,4', ''),
  'condition': ('x', 'first_frame=', '=picture.png', 'first_frame=no.png'),
}
NUMBERS = ('-1', '0', '2147483647', '2147483648', str(10**30), '1e308', '-1e308', '1e-320', '0.5')


@functools.cache
def flags() -> dict[str, dict[str, str]]:
  """Command -> flag -> the type of its values."""
  asked = [sys.executable, '-m', 'tests.hostile.within']
  return json.loads(subprocess.check_output(asked, cwd=CHECKOUT, text=True).splitlines()[-1])


def draw_flag(chance: Chance) -> Try:
  """A flag of a command whose value is none."""
  words = COMMANDS[chance.pick(sorted(COMMANDS))]
  known = {name: kind for name, kind in flags()[words[0]].items() if name not in _SWITCHES}
  numbers = [name for name, kind in known.items() if kind in _NUMERIC]
  name = chance.pick(numbers + [each for each in BAD if each in known] * 2 + sorted(known))
  kind = known[name]
  if name in BAD and chance.number(3):
    value, wrong = chance.pick(BAD[name]), True
  elif kind in _NUMERIC:
    wrong = bool(chance.number(2))
    value = chance.pick(NO_NUMBERS if wrong else NUMBERS)
  else:
    wrong = False
    value = chance.pick((*NO_NUMBERS, *NUMBERS, 'a' * 300, '\n', 'ü\u202e', "'", '../..'))
  changes = ['clips/**', '**/out*'] if name in ('out', 'output', 'sheet') else []
  return Try([*words, f'--{name}={value}'], wrong=wrong, changes=changes, seconds=30)


_NUMERIC = ('IntegerParser', 'FloatParser')
_SWITCHES = ('print_config', 'config', 'isolate', 'full', 'compile', 'search', 'address', 'cache')

# Names that a file may have, and names that none can have.
NAMES = (
  'a' * 250,
  'ü' * 120,
  'a\nb',
  ' a',
  'a ',
  '-a',
  '--x=y',
  "a'b",
  'a"b',
  'a`b',
  '%s%n%d',
  '$HOME',
  '~',
  '{x}',
  'a;b',
  'a|b',
  '*',
  '?',
  '[a]',
  '#',
  '\\',
  'a\tb',
  '\x1b[31mred',
  '\u202egpj',
  '\u200b',
  '.',
  '..',
  'CON',
  'a:b',
  'a@1',
  'e\u0301',
  '名前',
  '\udcff\udcfe',
  'a,b',
  'a=b',
  '\x7f',
  '.hidden',
  '1',
  'nan',
  '@',
)
IMPOSSIBLE = (
  'a' * 256,
  'a' * 300,
  'ü' * 200,
  'a/' * 3000,
  '/' + 'a' * 5000,
  '/proc/x',
  '/dev/null/x',
  '/proc/self/mem',
  'prompts.txt/x',
  '/sys/x',
)


def draw_name(chance: Chance) -> Try:
  """A file of another name, that is there or cannot be."""
  words = list(COMMANDS[chance.pick(sorted(COMMANDS))])
  places = [at for at, word in enumerate(words) if _path(word)]
  if not places:
    return draw_name(chance)
  at = chance.pick(places)
  flag, _, old = words[at].partition('=')
  name = chance.pick(NAMES + IMPOSSIBLE)
  suffix = pathlib.Path(old).suffix
  new = name if name in IMPOSSIBLE and chance.number(2) else name + suffix
  words[at] = f'{flag}={new}'

  def rename(folder: pathlib.Path) -> None:
    if name in NAMES and name not in ('.', '..') and (folder / old).exists():
      with contextlib.suppress(OSError):  # where no file has such a name, none is there
        os.rename(folder / old, folder / new)

  return Try(words, rename, changes=['**'] if flag in _WRITTEN else [f'{new}/**', new])


_WRITTEN = ('--out', '--output')
_READ = (
  '--workdir',
  '--input',
  '--records',
  '--study',
  '--csv',
  '--video',
  '--videos',
  '--suite',
  '--continue',
  '--reference',
)


def _path(word: str) -> bool:
  flag, equals, value = word.partition('=')
  return bool(equals) and flag in _WRITTEN + _READ and not value.startswith('digits/')


def draw_adapters(chance: Chance) -> Try:
  """A file of adapters with a bit, a header, a tensor or a setting that is another one."""
  name = chance.pick(sorted(kinds.ADAPTERS))
  kind, about = kinds.ADAPTERS[name], f'{name}, {chance.number(10**9)}'
  place = 'style' if kind.file else 'style.safetensors'

  def spoil(folder: pathlib.Path) -> None:
    file = folder / name / place / kind.file
    file.write_bytes(kind.damage(file.read_bytes(), Chance(about)))

  conditions = {'file': adapters.__file__}
  return Try(['adapters', f'{name}/{place}'], spoil, conditions=conditions, seconds=30, about=about)


CLASSES: dict[str, Callable[[Chance], Try]] = {
  'flags': draw_flag,
  'names': draw_name,
  'adapters': draw_adapters,
}
