"""Damaged files of tensors: a sentence or what is in them, by no more memory than they may have."""

import signal
import subprocess
import sys

import pytest

from tests.hostile.family import FORBIDDEN
from tests.hostile.run import try_inputs

NAMES = ['pt', 'safetensors', 'weight bombs']


def forbidden(name, count, seed):
  report, lines = try_inputs([name], count, seed)
  assert report[name].total() == count
  # Both happen, or the damage would be too small or too large to mean anything.
  assert report[name]['read'] > count // 100 and report[name]['refused'] > count // 2
  assert not [each for each in FORBIDDEN if report[name][each]], lines


def test_some_damaged_pickles_are_a_sentence_or_what_is_in_them():
  forbidden('pt', 60, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(5))
def test_ten_thousand_damaged_pickles(seed):
  """No crash, no number from outside of the file, three times its size and 100 MB at most."""
  forbidden('pt', 2000, seed)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'count'), [('safetensors', 1000), ('weight bombs', 120)])
def test_damaged_headers_and_bombs(name, count):
  forbidden(name, count, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize('place', [-1, 8192])
def test_a_number_outside_of_a_storage_ends_the_process(place):
  """So that what the bench calls no read outside is none."""
  words = f"""
import ctypes
from tests.hostile.weight_files import before_guard
guarded = before_guard(bytes(8192))
start = ctypes.addressof(ctypes.c_char.from_buffer(guarded))
assert ctypes.string_at(start, 8192) == bytes(8192)
print('inside', flush=True)
ctypes.string_at(start + {place}, 1)
"""
  ended = subprocess.run([sys.executable, '-c', words], capture_output=True, check=False)
  assert ended.stdout == b'inside\n', ended.stderr
  assert ended.returncode == -signal.SIGSEGV
