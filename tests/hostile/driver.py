"""Tries bad input on every command, class by class, and counts what comes of it.

python -m tests.hostile.driver --tries=1500 --seed=0 --out=/tmp/hostile
python -m tests.hostile.driver --tries=100 --classes=flags,names

What the commands read is made once in a folder, `--out`, and found there by the next driver.

A try is a command line in a folder of its own, in a fork of a process that has imported what
commands do. Whatever it is, it has to end: done, or refused by a documented exit code and a
sentence; or it is at work and says so. `failures.txt` has a line for each that did not, with its
command line; what it printed is beside it.
"""

import argparse
import collections
import fnmatch
import functools
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mgjax.lab.report.tables import aligned
from tests import binaries
from tests.folders import files_of
from tests.hostile import damage, ground, within

CODES = (2, 3, 4, 5)  # of refusals, as docs/reference/exit_codes.md lists them
LONGEST = 4000  # characters of a line
FINE = 'refused', 'done', 'at work', 'skipped'
WRONG = 'traceback', 'crash', 'hang', 'silent wrong', 'data lost', 'no sentence'
_TRACE = re.compile(
  r'Traceback \(most recent call last\)|Fatal Python error|^Exception ignored', re.M
)
_NO_NUMBER = re.compile(r'(?<![\w/.=])[-+]?(nan|inf)(?![\w/=])', re.I)


class Chance(damage.Draw):
  """Choices of a seed, where hypothesis would draw."""

  def __init__(self, seed: Any):
    self._random = random.Random(str(seed))

  def pick(self, options: Sequence[Any]) -> Any:
    return self._random.choice(options)

  def number(self, below: int) -> int:
    return self._random.randrange(max(below, 1))

  def bytes(self, most: int) -> bytes:
    return self._random.randbytes(self.number(most + 1))


def nothing(folder: pathlib.Path) -> None:
  """Spoils nothing."""


class Try(NamedTuple):
  """A command and what is bad about it.

  Attributes:
    words: of the command line.
    spoil: what is done before to the files that it reads, a copy.
    wrong: whether it must be refused, since no answer can be right.
    changes: patterns of files that the command is to change.
    conditions: of `tests.hostile.within`.
    seconds: after which it is at work if it says so, and hangs if not.
  """

  words: Sequence[str]
  spoil: Callable[[pathlib.Path], None] = nothing
  wrong: bool = False
  changes: Sequence[str] = ()
  conditions: Mapping[str, Any] = {}
  seconds: float = 60.0
  about: str = ''

  def perform(self, source: pathlib.Path, folder: pathlib.Path) -> tuple[str, str]:
    """Makes the try on a copy of the ground, and returns what came of it and what was said."""
    ground.copied(source, folder)
    self.spoil(folder)
    before = files_of(folder)
    conditions = {'folder': str(folder), **self.conditions}
    limit = self.seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    done, silent = binaries.start(
      'tests.hostile.within', json.dumps(conditions), *self.words, timeout=limit
    )
    return judge(self, done, silent < limit / 2, folder, before)


def judge(
  attempt: Try,
  done: subprocess.CompletedProcess,
  tells: bool,
  folder: pathlib.Path,
  before: dict[str, bytes],
) -> tuple[str, str]:
  """Returns which of FINE and WRONG a try is, and what it said."""
  said = done.stderr.strip()
  last = said.splitlines()[-1] if said else ''
  after = files_of(folder)
  changed = [name for name, data in before.items() if after.get(name) != data]
  meant = {name for pattern in attempt.changes for name in fnmatch.filter(changed, pattern)}
  lost = [name for name in changed if name not in meant]
  if _TRACE.search(said):
    return 'traceback', said
  if done.returncode is None:
    return ('at work' if tells else 'hang'), last
  if lost:
    return 'data lost', f'{lost}; {last}'
  if done.returncode == within.SKIPPED:
    return 'skipped', ''
  if done.returncode == 0:
    if attempt.wrong:
      return 'silent wrong', f'accepted; {done.stdout[-300:]}'
    named = _NO_NUMBER.search(' '.join(map(str, (*attempt.words, attempt.about))))  # not a result
    if not named and (found := _NO_NUMBER.search(done.stdout)):
      return 'silent wrong', f'prints {found[0]}: {done.stdout[:300]}'
    return 'done', done.stdout[-200:]
  if done.returncode not in CODES and not (attempt.words[0] == 'doctor' and done.returncode == 1):
    return 'crash', f'exit code {done.returncode}; {said[-1500:]}'
  said = said or done.stdout.strip()
  longest = max(map(len, said.splitlines()), default=0)
  if not (0 < longest < LONGEST and said.replace('\n', '').replace('\t', '').isprintable()):
    return 'no sentence', f'{len(said)} characters: {said[:300]!a}'
  return 'refused', last


def classes() -> dict[str, Callable[[Chance], Try]]:
  """Returns the classes of tries, each with what draws one of it."""
  from tests.hostile import commands, published, services, surroundings, videos

  return {
    **commands.CLASSES,
    'page of votes': functools.partial(services.draw_page, 'votes'),
    'page of a review': functools.partial(services.draw_page, 'review'),
    'service of videos': functools.partial(videos.draw_video, False),
    'service on a full disk': functools.partial(videos.draw_video, True),
    'service of two owners': videos.draw_second,
    **surroundings.CLASSES,
    **published.CLASSES,
  }


def run(
  tries: int, seed: int, out: pathlib.Path, names: Sequence[str] = (), tell: Any = print
) -> dict[str, collections.Counter[str]]:
  """Makes so many tries, of all classes in turn, and returns class -> what came of them."""
  source, place = out / 'ground', out / 'of/its/own'  # where ../.. is in it as well
  if not (source / 'runs.csv').exists():  # which is made last
    shutil.rmtree(out, ignore_errors=True)
    ground.make(source)
  known = classes()
  makers = {name: known[name] for name in names or known}
  found = {name: collections.Counter() for name in makers}
  logs = {name: out / name for name in ('tries.jsonl', 'failures.txt')}
  for log in logs.values():
    log.write_text('')
  seen: set[str] = set()
  for number in range(tries):
    name = list(makers)[number % len(makers)]
    attempt = _fresh(makers[name], f'{seed} {name} {number}', seen)
    began = time.monotonic()
    try:
      verdict, said = attempt.perform(source, place)
    except OSError as error:  # of what spoils: no such file can be made here
      verdict, said = 'skipped', repr(error)
    seconds = time.monotonic() - began
    found[name][verdict] += 1
    line = shlex.join(attempt.words)
    row = {
      'class': name,
      'verdict': verdict,
      'words': line,
      'about': attempt.about,
      'seconds': round(seconds, 2),
      'said': said[-3000:],
    }
    with logs['tries.jsonl'].open('a') as log:
      print(json.dumps(row), file=log)
    if verdict in WRONG:
      tell(f'{verdict}: {ascii(line)[:300]} {attempt.about}')
      with logs['failures.txt'].open('a') as log:
        print(f'{name} {number}: {verdict}: {line!a} {attempt.about}\n{said!a}\n', file=log)
  shutil.rmtree(out / 'of', ignore_errors=True)
  return found


def _fresh(make: Callable[[Chance], Try], seed: str, seen: set[str]) -> Try:
  """Draws a try that was not made before, if there is one."""
  for again in range(50):
    attempt = make(Chance(f'{seed} {again}'))
    key = repr((attempt.words, attempt.about, attempt.conditions))
    if key not in seen:
      break
  seen.add(key)
  return attempt


def table(found: dict[str, collections.Counter[str]]) -> list[str]:
  """Formats what came of the tries, a line a class."""
  columns = (*FINE, *WRONG)
  total = sum(found.values(), collections.Counter())
  rows = [('class', 'tries', *columns)]
  for name, counts in (*found.items(), ('all', total)):
    rows.append((name, str(counts.total()), *(str(counts[each]) for each in columns)))
  return aligned(rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--tries', type=int, default=1500)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('/tmp/hostile'))
  parser.add_argument('--classes', default='')
  given = parser.parse_args()
  names = given.classes.split(',') if given.classes else ()
  found = run(given.tries, given.seed, given.out.resolve(), names)
  print(*table(found), sep='\n')
