"""Whatever happens to the files of a checkpoint: never a wrong value that nobody hears of."""

import collections
import os
import pathlib
import shutil
import tempfile

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mgjax.core.errors import CheckpointError
from mgjax.training.checkpoints import orbax_io
from mgjax.training.checkpoints.maintenance import list_checkpoints, verify_all
from mgjax.training.checkpoints.manager import Checkpoints
from tests.training.checkpoints.test_manager import make_abstract, make_state

# What orbax had begun when a file failed it is collected later.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')

KINDS = ('flip', 'truncate', 'delete')


def state_of(step):
  # A device's piece of the matrix, 8 kB, lies in the file as it is. Much smaller ones would lie
  # in the nodes of the database, which have checksums: they are not what large models consist of.
  return make_state(step, width=2048)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Checkpoints of steps 1 and 2 in pieces from 8 devices, that nobody may change."""
  directory = tmp_path_factory.mktemp('damage') / 'whole'
  mesh = jax.make_mesh((8,), ('fsdp',), axis_types=(jax.sharding.AxisType.Auto,))
  with Checkpoints(directory) as checkpoints:
    for step in (1, 2):
      state = state_of(step)
      cut = jax.tree.map(lambda x: NamedSharding(mesh, P('fsdp') if x.ndim else P()), state)
      pieces = jax.device_put(state, cut)
      checkpoints.save(pieces, {'config': {'seed': step}})
  return directory


def same(given, expected):
  pairs = zip(given, expected, strict=True)
  return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def harm(directory, kind, numbers):
  """Flips one bit of one file of the newest checkpoint, cuts the file short or deletes it."""
  files = sorted(path for path in (directory / '2').rglob('*') if path.is_file())
  if kind == 'flip':  # every bit of the checkpoint is as likely as any other
    files = [path for path in files if path.stat().st_size]
    sizes = np.asarray([path.stat().st_size for path in files])
    # Half of the time every file is, lest the large ones with the numbers hide the small ones.
    shares = sizes / sizes.sum() if numbers.random() < 0.5 else np.full(len(files), 1 / len(files))
    path = files[numbers.choice(len(files), p=shares)]
    data = bytearray(path.read_bytes())
    data[numbers.integers(len(data))] ^= 1 << numbers.integers(8)
    path.write_bytes(data)
  else:
    path = files[numbers.integers(len(files))]
    if kind == 'delete':
      path.unlink()
    else:
      path.write_bytes(path.read_bytes()[: numbers.integers(path.stat().st_size)])
  return path


def outcome(directory, older):
  """What a restart makes of it; a verification before that misses nothing of it."""
  problem = verify_all(Checkpoints(directory), [2])[2]
  found = restart(directory, older)
  # It may say more: a restart knows its leaves without the file that lists them.
  assert found == 'harmless' or problem
  assert not problem or found != 'harmless' or '_METADATA' in problem, problem
  return found


def restart(directory, older):
  try:
    with Checkpoints(directory) as checkpoints:
      state, meta = checkpoints.restore(make_abstract(state_of(0)))
  except CheckpointError as error:
    assert error.exit_code == 5
    return 'exit 5'
  step = int(state.step)
  expected = state_of(step)
  right = same(jax.tree.leaves(state), jax.tree.leaves(expected))
  if not right or meta != {'config': {'seed': step}}:
    return 'silently wrong'
  assert older or step == 2
  return 'harmless' if step == 2 else 'older step'


def try_all(whole, tmp_path, caplog, count):
  """How often each kind of harm had which outcome."""
  numbers, counts = np.random.default_rng(0), collections.Counter()
  for trial in range(count):
    kind, older = KINDS[trial % 3], trial % 2 == 0
    directory = tmp_path / str(trial)
    shutil.copytree(whole, directory)
    if not older:
      shutil.rmtree(directory / '1')
    path = harm(directory, kind, numbers)
    found = outcome(directory, older)
    counts[kind, found] += 1
    counts[kind, 'seen by fingerprints alone'] += 'has fingerprint' in caplog.text
    caplog.clear()
    assert found in ('harmless', 'older step' if older else 'exit 5'), (kind, path, found)
    shutil.rmtree(directory)
  return counts


ENDS = ('harmless', 'older step', 'exit 5')


@pytest.mark.parametrize('count', [24, pytest.param(501, marks=pytest.mark.slow)])
def test_damage_is_harmless_or_heard_of(whole, tmp_path, caplog, count):
  counts = try_all(whole, tmp_path, caplog, count)
  heard = sum(counts[kind, end] for kind in KINDS for end in ENDS[1:])
  assert 0 < heard < count  # about two fifths; names of files differ, and so does what is hit
  for kind in KINDS:
    print(kind, {end: counts[kind, end] for end in (*ENDS, 'seen by fingerprints alone')})
    assert sum(counts[kind, end] for end in ENDS) == count // 3
  # Or nothing hit the numbers.
  assert count < 100 or counts['flip', 'seen by fingerprints alone'] > 10


@pytest.mark.parametrize('file', ['meta/metadata', 'state/_METADATA'])
def test_a_pipe_in_a_checkpoint_is_damage_and_not_waited_for(tmp_path, file):
  with Checkpoints(tmp_path) as checkpoints:
    for step in (10, 20):
      checkpoints.save(state_of(step), {'step': step, 'config': {'seed': step}})
  place = next((tmp_path / '20').glob(f'*/{file.partition("/")[2]}'))
  place.unlink()
  os.mkfifo(place)
  problems = verify_all(Checkpoints(tmp_path))
  assert problems[10] == '' and 'is no regular file' in problems[20]


@pytest.mark.parametrize('kept', ['record', 'meta'])  # of before a record had its step
def test_a_step_under_the_name_of_another_one_is_damaged(tmp_path, monkeypatch, caplog, kept):
  if kept == 'meta':
    digest = orbax_io._digest
    monkeypatch.setattr(orbax_io, '_digest', lambda it: digest((it.pop('step', None), it)[1]))
  with Checkpoints(tmp_path) as checkpoints:
    for step in (10, 20, 30):
      checkpoints.save(state_of(step), {'step': step, 'config': {'seed': step}})
  (tmp_path / '20').rename(tmp_path / 'other')
  (tmp_path / '30').rename(tmp_path / '20')
  (tmp_path / 'other').rename(tmp_path / '30')
  problems = verify_all(Checkpoints(tmp_path))
  assert problems[10] == '' and "'20' holds what was saved as step 30" in problems[20]
  with Checkpoints(tmp_path) as checkpoints:
    state, _ = checkpoints.restore(make_abstract(state_of(0)))
  assert int(state.step) == 10 and "'30' holds what was saved as step 20" in caplog.text


@pytest.mark.parametrize('what', ['30', '30/average', '30/average/d', '30/meta/metadata'])
def test_what_may_not_be_read_is_no_damage(what):
  with tempfile.TemporaryDirectory() as folder:  # which others may enter, unlike that of a test
    directory, place = pathlib.Path(folder), pathlib.Path(folder, what)
    directory.chmod(0o755)
    with Checkpoints(directory) as checkpoints:
      for step in (20, 30):
        checkpoints.save(state_of(step), {})
    list_checkpoints(Checkpoints(directory))  # it imports what others may not read
    place.chmod(0)
    root = os.geteuid() == 0
    try:
      if root:
        os.seteuid(65534)
      checkpoints = Checkpoints(directory)
      for read in (
        lambda: checkpoints.restore(make_abstract(state_of(0))),
        lambda: checkpoints.restore_params(make_abstract(state_of(0).average)),
        lambda: list_checkpoints(checkpoints),
        lambda: verify_all(checkpoints),
      ):
        with pytest.raises(PermissionError) as denied:
          read()
        assert denied.value.filename == str(place)
    finally:
      if root:
        os.seteuid(0)
      place.chmod(0o755)
    assert sorted(path.name for path in directory.iterdir()) == ['20', '30']
