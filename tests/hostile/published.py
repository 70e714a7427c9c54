"""Tries of runs that somebody else published: their config.json, and their files of weights.

The command stands under an audit hook: it ends at once where it opens a file that is neither in its
folder nor of the installation, or connects to anything.
"""

import functools
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from mgjax.training.checkpoints.find_run import SHIPPED
from mgjax.training.checkpoints.run_references import LIST
from mgjax.training.checkpoints.weights_file import WEIGHTS_FILE
from tests.hostile.driver import Chance, Try

# A run that ships, and the word and flags that sample it.
RUNS = {
  'digits/few_steps': ('video',),
  'digits/audio': ('audio', '--seconds=1', '--candidates=1'),
  'digits/editing': (
    'edit',
    '--video=clips/0.mp4',
  ),
  'digits/personalization': (
    'personalize',
    '--reference=picture.png',
  ),
  'digits/upsampler': (
    'upsample',
    '--video=clips/0.mp4',
  ),
}
ELSEWHERE = (  # places that no published run may lead to
  '/etc/hostname',
  '../../clips',
  '../again',
  'run',
  'file:///etc',
  'http://127.0.0.1:9/internal',
  'http://127.0.0.1:9/internal#' + '0' * 64,
  's3://bucket/run',
)
VALUES = (None, True, -1, 0, 1, 3, 2**30, 2**63, 10**30, 1e300, -1e-9, 0.5, float('nan'))
VALUES += ('', 'x', 'a' * 5000, '\u202e', [], [1], ['a'], [[1]], {}, {'a': 1}, {'kind': 'x'})
READ = ('model', 'objective', 'sample', 'buckets', 'autoencoder', 'data', 'windows', 'vision')
NAMING = (
  'autoencoder',
  'vision',
  'text',
  'embeddings',
  'sample.expert',
  'sample.lora',
  'start_from',
)


def draw_config(chance: Chance) -> Try:
  """A change of a published run's config.json: of one value, of a name, or of a place."""
  name = chance.pick(sorted(RUNS))
  config = json.loads((SHIPPED / name / 'config.json').read_text())
  if chance.number(3):
    every = [path for path in _paths(config) if path]
    read = [path for path in every if path[0] in READ]
    told = _change(config, chance.pick(read if chance.number(5) else every), chance)
  else:
    told = _lead_away(config, chance)
  spoil = functools.partial(_publish, name=name, config=json.dumps(config))
  return _try(name, spoil, told)


def draw_weights(chance: Chance) -> Try:
  """One byte of a file of weights that ships."""
  name = chance.pick(sorted(RUNS))
  size = (SHIPPED / name / WEIGHTS_FILE).stat().st_size
  place = chance.number(min(size, 20_000) if chance.number(2) else size)
  change = 1 + chance.number(255)
  spoil = functools.partial(_publish, name=name, byte=(place, change))
  return _try(name, spoil, f'byte {place} ^ {change}', wrong=True)


def _try(name: str, spoil: Any, about: str, wrong: bool = False) -> Try:
  words = ['sample', *RUNS[name], '--workdir=pulled', '--prompt=the red digit 7 bounces']
  words += ['--out=out.wav' if name == 'digits/audio' else '--out=out.mp4']
  if name != 'digits/few_steps':
    words.append('--steps=1')
  about = f'{name}: {about}'
  conditions = {'audit': True, 'changes': about}
  return Try(words, spoil, wrong=wrong, conditions=conditions, seconds=90, about=about)


def _publish(
  folder: pathlib.Path, name: str, config: str = '', byte: tuple[int, int] | None = None
) -> None:
  pulled = folder / 'pulled'
  shutil.copytree(SHIPPED / name, pulled)
  (pulled / LIST).write_text('{"files": {}}')
  if config:
    (pulled / 'config.json').write_text(config)
  if byte:
    data = bytearray((pulled / WEIGHTS_FILE).read_bytes())
    data[byte[0]] ^= byte[1]
    (pulled / WEIGHTS_FILE).write_bytes(data)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
  yield path
  if isinstance(value, dict | list):
    for key in value if isinstance(value, dict) else range(len(value)):
      yield from _paths(value[key], (*path, key))


def _change(config: dict[str, Any], path: tuple[Any, ...], chance: Chance) -> str:
  place = config
  for key in path[:-1]:
    place = place[key]
  key, how = path[-1], chance.number(10)
  name = '.'.join(map(str, path))
  if how == 0:
    del place[key]
    return f'{name} deleted'
  if how == 1 and isinstance(place, dict):
    place[f'{key}x'] = place.pop(key)
    return f'{name} renamed'
  if how < 5 and isinstance(place[key], int | float) and not isinstance(place[key], bool):
    place[key] *= chance.pick((-1, 2, 1000, 10**9, 0.5))
  else:
    place[key] = chance.pick(VALUES)
  return f'{name} = {place[key]!r:.60}'


def _lead_away(config: dict[str, Any], chance: Chance) -> str:
  name, value = chance.pick(NAMING), chance.pick(ELSEWHERE)
  outer, _, key = name.rpartition('.')
  place = config[outer] if outer else config
  if name == 'text':
    value = {'t5': {'workdir': value, 'reads': 'prompt'}}
  place[key] = f'{value}@0.5' if key == 'expert' else value
  return f'{name} = {value!r:.80}'


CLASSES = {'published configurations': draw_config, 'weights by byte': draw_weights}
