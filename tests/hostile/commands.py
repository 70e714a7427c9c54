"""Tries of command lines: flags, names of files, settings, tables, weights and studies."""

import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from mgjax.core.config import flatten
from mgjax.core.config_files import load_config
from tests.hostile import damage
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
NAMES = ('a' * 250, 'ü' * 120, 'a\nb', ' a', 'a ', '-a', '--x=y', "a'b", 'a"b', 'a`b', '%s%n%d',
  '$HOME', '~', '{x}', 'a;b', 'a|b', '*', '?', '[a]', '#', '\\', 'a\tb', '\x1b[31mred', '\u202egpj',
  '\u200b', '.', '..', 'CON', 'a:b', 'a@1', 'e\u0301', '名前', '\udcff\udcfe', 'a,b', 'a=b', '\x7f',
  '.hidden', '1', 'nan', '@')  # fmt: skip
IMPOSSIBLE = ('a' * 256, 'a' * 300, 'ü' * 200, 'a/' * 3000, '/' + 'a' * 5000, '/proc/x',
  '/dev/null/x', '/proc/self/mem', 'prompts.txt/x', '/sys/x')  # fmt: skip


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
_READ = ('--workdir', '--input', '--records', '--study', '--csv', '--video', '--videos', '--suite',
  '--continue', '--reference')  # fmt: skip


def _path(word: str) -> bool:
  flag, equals, value = word.partition('=')
  return bool(equals) and flag in _WRITTEN + _READ and not value.startswith('digits/')


CONFIGS = ('digits/video', 'digits/autoencoder', 'digits/audio', 'digits/codec', 'digits/upsampler',
  'digits/personalization', 'digits/editing', 'digits/signs', 'digits/frames', 'digits/clip',
  'digits/few_steps', 'digits/guidance', 'digits/distribution_matching', 'video/t2iv_256',
  'tae/tae', 'audio/codec', 'text/ul2')  # fmt: skip
VALUES = (float('nan'), float('inf'), float('-inf'), -1, 0, 1, 2, 2**31, 10**30, -(10**30), 1e308,
  -1e308, 1e-320, 0.5, 'x', '', 'a' * 5000, '../../x', True, False, None, [], [1], [None], (), {},
  {'x': 1}, [1, 2, 3, 4, 5])  # fmt: skip
NONSENSE = (float('nan'), float('-inf'), 10**30, -(10**30), -1e308, [None], {'x': 1})


@functools.cache
def fields(name: str) -> dict[str, Any]:
  """The fields of a configuration, by their place."""
  return flatten(load_config(name).to_dict())


def draw_setting(chance: Chance) -> Try:
  """A field of a configuration with a value that is none, as a file of Python has it."""
  name = chance.pick(CONFIGS)
  known = fields(name)
  numeric = [key for key, value in known.items() if _number(value)]
  key, value = chance.pick(numeric * 3 + sorted(known)), chance.pick(VALUES)
  wrong = _number(known[key]) and any(repr(value) == repr(each) for each in NONSENSE)
  wrong = wrong and (key, value) != ('optimizer.clip', 10**30)  # as inf, it never clips

  def write(folder: pathlib.Path) -> None:
    (folder / 'odd.py').write_text(
      f'from configs.{name.replace("/", ".")} import get_config as whole\n'
      'from ml_collections import ConfigDict\nnan, inf = float("nan"), float("inf")\n\n'
      'def get_config():\n  fields = whole().to_dict()\n'
      '  fields |= {"autoencoder": "digits/autoencoder"} if "autoencoder" in fields else {}\n'
      f'  group = fields\n  for key in {key.split(".")[:-1]!r}:\n    group = group[key]\n'
      f'  group[{key.split(".")[-1]!r}] = {value!r}\n  return ConfigDict(fields)\n'
    )

  words = ['train', '--config=odd.py', '--workdir=new', '--dry_run']
  return Try(words, write, wrong, about=f'{name} {key} = {value!r:.60}')


def _number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def draw_table(chance: Chance) -> Try:
  """Records of runs with numbers, columns and arms that no runs have."""
  command = chance.pick(('fit', 'predict', 'compare', 'plot', 'compare seeds'))
  words = COMMANDS[command]
  file = next(word.partition('=')[2] for word in words if word.startswith('--records'))
  cells = ('nan', 'inf', '-1', '0', '1e-320', '1e308', '1e309', '', 'x', '9' * 5000, '1e-30',
    '1e40', '"', '1')  # fmt: skip
  seed = chance.number(1 << 30)

  def spoil(folder: pathlib.Path) -> None:
    again = Chance(seed)
    path = folder / file
    if file.endswith('.jsonl'):
      path.write_bytes(damage.lines(damage.damage_json)(path.read_bytes(), again))
      return
    rows = [line.split(',') for line in path.read_text().splitlines()]
    for _ in range(1 + again.number(3)):
      row, column = again.number(len(rows)), again.number(len(rows[0]))
      match again.pick(('cell', 'cell', 'cell', 'column', 'drop', 'rows', 'name', 'same', 'bytes')):
        case 'cell':
          rows[row][column % len(rows[row])] = again.pick(cells)
        case 'column':
          value = again.pick(cells)
          rows[1:] = [
            [value if at == column else each for at, each in enumerate(cs)] for cs in rows[1:]
          ]
        case 'drop':
          rows = [[each for at, each in enumerate(cs) if at != column] for cs in rows]
        case 'rows':
          del rows[1 + again.number(6) :]
        case 'name':
          rows[0][column % len(rows[0])] = again.pick(
            ('', 'arm', 'loss', 'flops', 'run', 'seed', 'learning_rate')
          )
        case 'same':
          rows[1:] = [rows[-1]] * len(rows[1:])
    data = '\n'.join(map(','.join, rows)).encode()
    path.write_bytes(data if again.number(5) else damage.damage_bytes(data, again))

  return Try(words, spoil, about=f'table {seed}', changes=[file])


def draw_weights(chance: Chance) -> Try:
  """Weights whose header lies: shapes, places and types that the file does not have."""
  seed = chance.number(1 << 30)

  def spoil(folder: pathlib.Path) -> None:
    again, path = Chance(seed), folder / 'run.safetensors'
    data = path.read_bytes()
    length = int.from_bytes(data[:8], 'little')
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = again.pick(sorted(set(header) - {'__metadata__'}))
    tensor = header[name]
    big = again.pick(
      (-1, 0, 1, len(body), len(body) + 1, 2**31, 2**63, 2**64, 10**30, 0.5, None, 'x', True)
    )
    match again.pick(('begin', 'end', 'both', 'shape', 'dtype', 'name', 'twice', 'length', 'gap',
      'over', 'metadata', 'extra', 'cut', 'deep')):  # fmt: skip
      case 'begin':
        tensor['data_offsets'][0] = big
      case 'end':
        tensor['data_offsets'][1] = big
      case 'both':
        tensor['data_offsets'] = again.pick(
          ([big, big], [], None, 'x', [0], [1, 2, 3], tensor['data_offsets'][::-1])
        )
      case 'shape':
        tensor['shape'] = again.pick(
          ([big], [big, big], [2**32, 2**32], [2**40, 0], [], None, [[1]], [-1, -1])
        )
      case 'dtype':
        tensor['dtype'] = again.pick(
          ('F64', 'F8_E4M3', 'BOOL', 'I4', 'U64', '', None, 7, 'x' * 10**5, 'f32')
        )
      case 'name':
        header[
          again.pick(('', 'x' * 10**5, '../../x', '\x1b[31m', name + ' ', '\u202e', '__metadata__'))
        ] = header.pop(name)
      case 'gap':
        body = body[:8] + bytes(16) + body[8:]
      case 'over':
        other = again.pick(sorted(set(header) - {'__metadata__'}))
        tensor['data_offsets'] = header[other]['data_offsets']
      case 'metadata':
        header['__metadata__'] = again.pick(
          (None, [], 'x', {'mgjax': 7}, {'mgjax': '{'}, {'mgjax': '[]'}, {}, {'x': 'y' * 10**6})
        )
      case 'extra':
        header['x' + name] = tensor
      case 'cut':
        body = body[: again.number(len(body))]
      case 'deep':
        header[name] = json.loads('[' * 500 + ']' * 500)
    text = json.dumps(header).encode()
    size = len(text)
    if not again.number(6):
      size = again.pick((0, 1, 7, 2**31, 2**63, 2**64 - 1, size - 1, size + 1, len(body)))
    if not again.number(10):
      text = text[:-1] + b',' + text[1:]  # each name twice
      size = len(text)
    path.write_bytes((size % 2**64).to_bytes(8, 'little') + text + body)

  return Try(COMMANDS['import'], spoil, about=f'header {seed}')


def draw_study(chance: Chance) -> Try:
  """A study, its votes, or a table of votes that somebody spoilt."""
  command, file = chance.pick((('analyse', 'votes/study.json'), ('analyse', 'votes/votes.jsonl'),
    ('export votes', 'votes/votes.jsonl'), ('power', 'votes/votes.jsonl'), ('import votes',
    'table.csv'), ('import votes', 'votes/votes.jsonl'), ('serve votes', 'votes/study.json'),
    ('serve votes', 'votes/votes.jsonl')))  # fmt: skip
  seed = chance.number(1 << 30)
  how = {
    '.json': damage.damage_json,
    '.jsonl': damage.lines(damage.damage_json),
    '.csv': damage.lines(),
  }

  def spoil(folder: pathlib.Path) -> None:
    path = folder / file
    path.write_bytes(how[path.suffix](path.read_bytes(), Chance(seed)))

  changes = ['votes/votes.jsonl', 'votes/invitations.txt']
  return Try(COMMANDS[command], spoil, changes=changes, about=f'{file} {seed}')


CLASSES: dict[str, Callable[[Chance], Try]] = {'flags': draw_flag, 'names': draw_name,
  'settings': draw_setting, 'tables of runs': draw_table, 'headers of weights': draw_weights,
  'studies': draw_study}  # fmt: skip
