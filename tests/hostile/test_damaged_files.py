"""A damaged file is read or refused with a sentence: no other exception, no hang, no memory."""

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mgjax.core.errors import MgjaxError
from mgjax.data.records.reader import Records
from tests.hostile.damage import Draw, damage_bytes, damage_json
from tests.hostile.kinds import KINDS

SECONDS = 30  # for one file, on a busy machine
# What is left of a reading of a damaged checkpoint, which orbax ended.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
MEMORY = 600 << 20  # bytes beside three times the file; most of it are frames and libraries
LONGEST = 3000  # characters of a sentence


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Makes a whole file of a kind once, and reads it."""
  found = {}

  def make(name):
    if name not in found:
      folder = tmp_path_factory.mktemp('whole') / 'folder'
      folder.mkdir()
      found[name] = KINDS[name].make(folder)
      KINDS[name].read(copied(found[name], folder.with_name('copy')))
    return found[name]

  return make


def copied(source, target):
  target.mkdir(exist_ok=True)
  path = target / source.name
  return Path(shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path))


def peak():
  for line in Path('/proc/self/status').read_text().splitlines():
    if line.startswith('VmHWM'):
      return int(line.split()[1]) << 10
  return 0


def try_once(kind, source, draw):
  with tempfile.TemporaryDirectory() as folder:
    target = copied(source, Path(folder))
    files = sorted(each for each in target.glob(kind.file) if each.is_file()) if kind.file else []
    file = draw.pick(files) if files else target
    data = kind.damage(file.read_bytes(), draw)
    file.write_bytes(data)
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before, began = peak(), time.monotonic()
    try:
      kind.read(target)
    except MgjaxError as error:
      said = str(error)
      assert 0 < len(said) < LONGEST and said.replace('\n', '').isprintable(), ascii(said)[:500]
    assert time.monotonic() - began < SECONDS
    assert peak() - before < 3 * len(data) + MEMORY


def draw_often(examples, try_one):
  """Calls `try_one` so many times, each with a draw of its own."""
  often = settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
  often(given(st.data())(lambda data: try_one(Draw(data))))()


def check(name, made, examples):
  source = made(name)
  draw_often(examples, lambda draw: try_once(KINDS[name], source, draw))


@pytest.mark.parametrize('name', KINDS)
def test_a_damaged_file_is_read_or_refused(name, made):
  check(name, made, 4)


@pytest.mark.slow
@pytest.mark.parametrize('name', KINDS)
def test_many_damaged_files_are_read_or_refused(name, made):
  check(name, made, 300)


@pytest.mark.parametrize(('name', 'damage'), [('csv', damage_bytes), ('jsonl', damage_json)])
def test_a_damaged_line_costs_no_other_row(name, damage, made):
  source = made(name)
  (file,) = source.glob('list.*')
  whole = file.read_bytes().split(b'\n')

  def try_one(draw):
    at = draw.number(len(whole) - 1) + 1
    lines = [*whole[:at], damage(whole[at], draw).replace(b'\n', b' '), *whole[at + 1 :]]
    with tempfile.TemporaryDirectory() as folder:
      target = copied(source, Path(folder))
      (target / file.name).write_bytes(b'\n'.join(lines))
      KINDS[name].read(target)
      found = {row['caption'] for row in Records(target / 'out')}
    first = len(whole) - 6  # where the rows begin
    assert {f'clip {n}, "so"' for n in range(6) if n + first != at} <= found

  draw_often(20, try_one)
