"""Compiled programs that are kept: in a folder of the user, and never in the way."""

import os

import pytest

from mgjax.parallel import compilation_cache
from tests.binaries import CHECKOUT, python

COMPILE = """
import jax, logging, sys
from jax import monitoring
logging.basicConfig(level=logging.INFO, format='%(message)s')
from mgjax.parallel import compilation_cache
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name))
compilation_cache.use()
print(float(jax.jit(lambda x: (x @ x.T).sum() / 3)(jax.numpy.arange(6.0).reshape(2, 3))))
print(sum(name.endswith('cache_hits') for name in hits))
"""


def compiled(tmp_path, **changes):
  """Value, cache hits and log of a process that compiles a program."""
  ours = {name: value for name, value in os.environ.items() if 'CACHE' not in name}
  environment = {**ours, 'PYTHONPATH': str(CHECKOUT), 'XDG_CACHE_HOME': str(tmp_path), **changes}
  environment = {name: value for name, value in environment.items() if value is not None}
  done = python('-c', COMPILE, env=environment)
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
  several = {'COORDINATOR_ADDRESS': 'host:1', 'NUM_PROCESSES': '2', 'PROCESS_ID': '1'}
  assert (
    compiled(tmp_path / 'ours', **{f'JAX_{key}': each for key, each in several.items()})[2] == []
  )
  assert not (tmp_path / 'ours').exists()


def test_a_folder_to_which_others_may_write_is_not_used(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  folder = compilation_cache.default_folder()
  compilation_cache.make_folder(folder)
  compilation_cache.make_folder(folder)
  folder.chmod(0o777)
  with pytest.raises(PermissionError, match='others may write'):
    compilation_cache.make_folder(folder)


def test_what_is_no_file_is_no_kept_program(tmp_path):
  compilation_cache.make_folder(tmp_path / 'kept')
  os.mkfifo(tmp_path / 'kept/a-cache')
  (tmp_path / 'kept/b-cache').symlink_to('/dev/zero')
  (tmp_path / 'kept/c-cache').write_bytes(b'program')
  compilation_cache.make_folder(tmp_path / 'kept')
  assert [path.name for path in (tmp_path / 'kept').iterdir()] == ['c-cache']


def test_it_imports_no_module_that_may_be_waiting_for_jax(tmp_path):
  script = """
import sys
from mgjax.parallel import compilation_cache
compilation_cache.use()
print(*sorted(name for name in sys.modules if name.startswith(('mgjax.core', 'mgjax.parallel'))))
"""
  environment = os.environ | {'PYTHONPATH': str(CHECKOUT), 'XDG_CACHE_HOME': str(tmp_path)}
  imported = python('-c', script, env=environment).stdout.split()
  own = ('mgjax.parallel', 'mgjax.parallel.compilation_cache')
  assert imported == ['mgjax.core', 'mgjax.core.version', *own]
