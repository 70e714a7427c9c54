"""Compiled programs that are kept: whole, bounded, and never in the way."""

import contextlib
import logging
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys

import pytest

from mgjax.runtime import compilation_cache
from mgjax.runtime.compilation_cache import Programs

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
VALUE = bytes(range(256)) * 4
COMPILE = """
import jax, logging, sys
from jax import monitoring
logging.basicConfig(level=logging.INFO, format='%(message)s')
from mgjax.runtime import compilation_cache
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name))
compilation_cache.use()
print(float(jax.jit(lambda x: (x @ x.T).sum() / 3)(jax.numpy.arange(6.0).reshape(2, 3))))
print(sum(name.endswith('cache_hits') for name in hits))
"""


@pytest.fixture
def programs(tmp_path):
  return Programs(tmp_path)


@contextlib.contextmanager
def files_of_at_most(size):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def compiled(tmp_path, **changes):
  """Value, cache hits and log of a process that compiles a program."""
  ours = {name: value for name, value in os.environ.items() if 'CACHE' not in name}
  environment = {**ours, 'PYTHONPATH': str(CHECKOUT), 'XDG_CACHE_HOME': str(tmp_path), **changes}
  environment = {name: value for name, value in environment.items() if value is not None}
  done = subprocess.run(
    [sys.executable, '-c', COMPILE], env=environment, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  value, hits = done.stdout.split()
  return float(value), int(hits), done.stderr.splitlines()


def test_the_next_process_takes_what_one_has_compiled_and_its_folder_is_told_of_once(tmp_path):
  value, hits, first = compiled(tmp_path)
  assert hits == 0 and len(first) == 1
  assert str(tmp_path) in first[0] and '--nocache' in first[0]
  again, hits, second = compiled(tmp_path)
  assert again == value and hits > 0 and second == []
  folder = next((tmp_path / 'mgjax' / 'compiled').iterdir())
  assert folder.stat().st_mode & 0o077 == 0
  for path in folder.iterdir():
    path.write_bytes(path.read_bytes()[:-1])
  damaged, hits, third = compiled(tmp_path)
  assert damaged == value and hits == 0 and len(third) == 1 and 'damaged' in third[0]
  assert compiled(tmp_path)[1] > 0


@pytest.mark.parametrize(
  'changes',
  [
    {'XDG_CACHE_HOME': '/dev/null/there'},
    {'XDG_CACHE_HOME': None, 'HOME': '/proc/no/home'},
    {'XDG_CACHE_HOME': 'relative', 'HOME': '/dev/null'},
  ],
)
@pytest.mark.slow
def test_without_a_folder_one_sentence_says_so(tmp_path, changes):
  _, hits, lines = compiled(tmp_path, **changes)
  assert hits == 0 and len(lines) == 1 and 'are not kept' in lines[0]


@pytest.mark.slow
def test_the_environment_of_jax_wins(tmp_path):
  theirs = tmp_path / 'theirs'
  assert compiled(tmp_path / 'ours', JAX_COMPILATION_CACHE_DIR=str(theirs))[2] == []
  assert compiled(tmp_path / 'ours', JAX_ENABLE_COMPILATION_CACHE='0')[2] == []
  assert not (tmp_path / 'ours').exists()


def test_a_folder_to_which_others_may_write_is_not_used(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  folder = compilation_cache.default_folder()
  compilation_cache.make_folder(folder)
  compilation_cache.make_folder(folder)
  folder.chmod(0o777)
  with pytest.raises(PermissionError, match='others may write'):
    compilation_cache.make_folder(folder)


def damages():
  size = len(VALUE) + 64
  for end in (0, 1, 63, 64, 65, size // 2, size - 1):
    yield f'cut at {end}', lambda data, end=end: data[:end]
  for place in (0, 31, 63, 64, 65, size // 2, size - 1):
    for bit in (1, 128):
      yield (
        f'bit {bit} of byte {place}',
        lambda data, place=place, bit=bit: (
          data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
        ),
      )
  yield 'zeros', lambda data: bytes(len(data))
  yield 'zeros at the end', lambda data: data[:-512] + bytes(512)
  yield 'more', lambda data: data + b'\0'


@pytest.mark.parametrize('name', dict(damages()))
def test_what_is_damaged_is_deleted_and_can_be_kept_again(programs, tmp_path, caplog, name):
  programs.put('key', VALUE)
  assert programs.get('key') == VALUE
  (path,) = tmp_path.iterdir()
  path.write_bytes(dict(damages())[name](path.read_bytes()))
  with caplog.at_level(logging.INFO, 'mgjax'):
    assert programs.get('key') is None
    assert programs.get('key') is None
  assert len(caplog.records) == 1
  assert not path.exists()
  programs.put('key', VALUE)
  assert programs.get('key') == VALUE


def test_a_program_under_the_name_of_another_one_is_damaged(programs, tmp_path):
  programs.put('one', VALUE)
  (one,) = tmp_path.iterdir()
  programs.put('two', VALUE[1:])
  (two,) = set(tmp_path.iterdir()) - {one}
  os.replace(one, two)
  assert programs.get('two') is None


def test_a_full_disk_costs_a_sentence_and_nothing_half_written(programs, tmp_path, caplog):
  programs.put('before', VALUE)
  with caplog.at_level(logging.INFO, 'mgjax'), files_of_at_most(300):
    for number in range(3):
      programs.put(f'key{number}', VALUE)
  assert len(caplog.records) == 1 and 'cannot be kept' in caplog.text
  assert len(list(tmp_path.iterdir())) == 1
  assert programs.get('before') == VALUE
  assert programs.get('key0') is None


def test_a_folder_that_vanishes_costs_a_sentence(tmp_path, caplog):
  programs = Programs(tmp_path / 'gone')
  with caplog.at_level(logging.INFO, 'mgjax'):
    programs.put('key', VALUE)
    assert programs.get('key') is None
  assert len(caplog.records) == 1


def test_what_was_used_longest_ago_goes_first(tmp_path):
  programs = Programs(tmp_path, limit=16 * 1200)
  for number in range(12):
    programs.put(f'{number}', VALUE)
    os.utime(programs._file(f'{number}'), (number, number))
  assert programs.get('0') == VALUE  # used now
  for number in range(12, 20):
    programs.put(f'{number}', VALUE)
  kept = {number for number in range(20) if programs.get(f'{number}')}
  assert {0, *range(12, 20)} <= kept
  assert not {1, 2} & kept
  assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 17 * 1200


def _fill(folder, seed):
  programs = Programs(folder, limit=64 * 1088)
  for number in range(200):
    key = str((number * (1 + seed) + seed) % 100)
    found = programs.get(key)
    assert found in (None, VALUE + key.encode())
    programs.put(key, VALUE + key.encode())
  assert not programs._silent


def test_processes_may_fill_a_folder_at_once_while_it_is_emptied(tmp_path):
  context = multiprocessing.get_context('spawn')
  workers = [context.Process(target=_fill, args=(tmp_path, seed)) for seed in range(2)]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join(60)
  assert [worker.exitcode for worker in workers] == [0] * 2
  assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 80 * 1088
