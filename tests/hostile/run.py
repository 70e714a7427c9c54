"""Tries hostile inputs in a process of their own, and says what became of each."""

import collections
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.hostile.families import FAMILIES
from tests.hostile.family import Family, Silent
from tests.hostile.mutations import pick

Report = dict[str, collections.Counter]
_LONGEST = 3000  # characters of a message to a person


def try_inputs(
  names: list[str], count: int, seed: int, failures: Path | None = None
) -> tuple[Report, list[str]]:
  """Tries `count` damaged inputs of each family.

  Args:
    names: of the families.
    count: inputs of each.
    seed: of all damage; input number i of a family is the same whatever `count` is.
    failures: where inputs with a forbidden outcome are kept; None keeps none.

  Returns:
    How often each outcome came, by family, and a line for each forbidden one.
  """
  report: Report = {name: collections.Counter() for name in names}
  lines = []
  with tempfile.TemporaryDirectory() as folder:
    todo = [(name, number) for name in names for number in range(count)]
    while todo:
      for (name, number), outcome, message in _worker(todo, seed, Path(folder), failures):
        report[name][outcome] += 1
        if outcome not in ('read', 'refused'):
          lines.append(f'{name} {number} (seed {seed}): {outcome}: {message}')
        todo.remove((name, number))
  return report, lines


def _worker(todo, seed: int, folder: Path, failures: Path | None) -> Iterator:
  """Runs inputs until the process ends, which it should not before the last one."""
  words = [sys.executable, '-m', 'tests.hostile.run', str(seed), str(folder), str(failures or '')]
  with (folder / 'errors.txt').open('wb') as errors:
    process = subprocess.Popen(
      words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
      start_new_session=True, env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    )  # fmt: skip
  assert process.stdin is not None and process.stdout is not None
  process.stdin.write(json.dumps(todo).encode())
  process.stdin.close()
  current, deadline, pending = None, time.monotonic() + 300, b''
  try:
    while True:
      ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
      if not ready:
        if current is None:
          raise RuntimeError(f'the process of the inputs did not start, or a seed of {todo[0]}')
        yield current, 'hang', 'no answer in time'
        return
      pending += (chunk := os.read(process.stdout.fileno(), 1 << 16))
      *whole, pending = pending.split(b'\n')
      for line in whole:
        said = json.loads(line)
        if 'begin' in said:
          current, deadline = tuple(said['begin']), time.monotonic() + said['seconds']
        elif 'preparing' in said:
          current, deadline = None, time.monotonic() + 300
        else:
          yield current, said['outcome'], said['message']
          current, deadline = None, time.monotonic() + 300
      if not chunk:
        if current is not None:
          yield current, 'crash', f'exit code {process.wait()}'
        elif process.wait():
          said = (folder / 'errors.txt').read_text(errors='replace')[-2000:]
          raise RuntimeError(f'the process of the inputs ended with {process.returncode}: {said}')
        return
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)  # what it started goes with it
    process.wait()
    process.stdout.close()


def _serve(seed: int, folder: Path, failures: Path | None) -> None:
  """The process that damages and reads: answers with lines of JSON."""
  out = os.fdopen(os.dup(sys.stdout.fileno()), 'w', buffering=1)
  os.dup2(2, 1)  # what a reader prints is not an answer
  say = lambda **fields: print(json.dumps(fields), file=out, flush=True)  # noqa: E731
  families = {family.name: family for family in FAMILIES}
  for name, number in json.load(sys.stdin):
    family = families[name]
    place = folder / name
    if not place.exists():
      say(preparing=name)
      place.mkdir()
      (place / 'seeds.json').write_text(
        json.dumps([os.fspath(each) for each in family.seeds(place)])
      )
    seeds = [Path(each) for each in json.loads((place / 'seeds.json').read_text())]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    source = pick(rng, seeds)
    target = folder / 'damaged' / f'{number}' / source.name
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir(parents=True)
    family.mutate(source, rng, target)
    say(begin=[name, number], seconds=family.seconds + 5)
    outcome, message = _outcome(family, target)
    if failures and outcome not in ('read', 'refused'):
      kept = failures / name / str(number)
      with contextlib.suppress(shutil.Error):  # of pipes, which cannot be copied
        shutil.copytree(target.parent, kept, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(target.parent, ignore_errors=True)
    say(outcome=outcome, message=message)


def _outcome(family: Family, target: Path) -> tuple[str, str]:
  from mgjax.core.errors import MgjaxError

  size = _size(target)
  _reset_peak()
  before, began = _memory('VmRSS'), time.monotonic()
  try:
    family.read(target)
    outcome, message = 'read', ''
  except MgjaxError as error:
    outcome, message = 'refused', str(error)
    if not message or len(message) > _LONGEST or not message.replace('\n', '').isprintable():
      outcome, message = 'traceback', f'not a sentence: {message[:300]!r}'
  except Silent as error:
    outcome, message = 'silent', str(error)
  except BaseException:
    outcome, message = 'traceback', traceback.format_exc()[-1500:]
  if time.monotonic() - began > family.seconds:
    return 'hang', f'{time.monotonic() - began:.1f} s'
  if (more := _memory('VmHWM') - before) > 3 * size + family.memory:
    return 'memory', f'{more >> 20} MiB for {size} bytes'
  return outcome, message


def _size(path: Path) -> int:
  files = path.rglob('*') if path.is_dir() else [path]
  return sum(each.lstat().st_size for each in files if each.is_file())


def _memory(field: str) -> int:
  for line in Path('/proc/self/status').read_text().splitlines():
    if line.startswith(field):
      return int(line.split()[1]) << 10
  raise RuntimeError(f'/proc/self/status has no {field}')


def _reset_peak() -> None:
  Path('/proc/self/clear_refs').write_text('5')


if __name__ == '__main__':
  _serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3] else None)
