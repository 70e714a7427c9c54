"""Pairs made by processes that are killed at any moment are those of an undisturbed one."""

import contextlib
import multiprocessing
import random
import shutil
import signal
import time

import pytest

from mgjax.workflows import backtranslation
from mgjax.workflows.backtranslation import backtranslate
from tests import tiny_editing
from tests.tiny_personalization import make_recogniser

CLIPS = 96
SIZES = {'batch_size': 4, 'samples_per_shard': 4}


def files_of(directory):
  """The bytes of all that pairs left behind, but for the locks of folders."""
  return {
    path.relative_to(directory).as_posix(): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file() and path.suffix != '.lock'
  }


def same(directory, expected):
  first, second = files_of(directory), files_of(expected)
  assert first.keys() == second.keys()
  assert [name for name in first if first[name] != second[name]] == []
  return True


def work(runs, recogniser, directory, ready):
  """What a process does that may be killed, once all its programs are compiled."""
  score = backtranslation._scores

  def scores(*arguments):
    found = score(*arguments)
    ready.set()
    return found

  backtranslation._scores = scores
  config = tiny_editing.backtranslation(runs, recogniser, backtranslation__clips=CLIPS)
  backtranslate(config, directory, **SIZES)
  ready.set()  # if nothing was left to do


@contextlib.contextmanager
def working(context, *given):
  """A process, at its first pair."""
  ready = context.Event()
  process = context.Process(target=work, args=(*given, ready))
  process.start()
  try:
    assert ready.wait(300)
    yield process
  finally:
    process.join(timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_leave_what_an_undisturbed_run_makes(tiny_editing_runs, tmp_path):
  expected, directory = tmp_path / 'expected', tmp_path / 'killed'
  models = tiny_editing_runs, make_recogniser(tmp_path / 'clip')
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload([__name__])
  with working(context, *models, expected):
    begun = time.monotonic()
  seconds = time.monotonic() - begun
  chance, kills, shards = random.Random(0), 0, []
  while kills < 20:
    with working(context, *models, directory) as process:
      time.sleep(chance.uniform(0, seconds / 4))
      process.kill()
    assert process.exitcode in (0, -signal.SIGKILL)
    kills += process.exitcode != 0
    shards.append(len(list((directory / 'train').rglob('*.arrayrecord'))))
    if process.exitcode == 0:
      assert same(directory, expected)
      shutil.rmtree(directory)
  with working(context, *models, directory) as process:
    pass
  assert process.exitcode == 0
  assert len(set(shards)) > 5, shards  # the kills were at many places
  assert same(directory, expected)
