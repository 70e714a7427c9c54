"""Full disks and second runs cost a curation nothing: the same command goes on."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from mgjax.data.records.storage import ObjectStore
from mgjax.lab.curation.rows import pyarrow
from tests.data.records.object_server import object_server
from tests.end_to_end.test_curation import CHECKOUT, command, curate, write_raw
from tests.folders import files_of

# Runs a command on a disk of its own, of `$size`, which `$1` is; then what came of it is copied to
# `$2`, and there is room again.
SMALL_DISK = """
mount -t tmpfs -o size="$size" none "$1" || exit 77
shift
keep=$1; shift
"$@"; code=$?
cp -r "$place"/. "$keep"
exit $code
"""


def process(raw, output, *more, **changes):
  words = [sys.executable, '-m', 'launch.curate', *command(raw, output, *more, **changes)]
  return words, {**os.environ, 'PYTHONPATH': str(CHECKOUT)}


# All of it needs 600 kB: 150 of scores, 90 of the report and tables, 350 of records.
@pytest.mark.slow
@pytest.mark.parametrize('size', ['130k', '400k'], ids=['while measuring', 'while cutting'])
def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(tmp_path, size):
  if not shutil.which('unshare'):
    pytest.skip('makes a small disk by unshare, which is not installed')
  raw, disk, kept = write_raw(tmp_path / 'raw', 40), tmp_path / 'disk', tmp_path / 'kept'
  disk.mkdir()
  kept.mkdir()
  words, environment = process(raw, disk / 'D', '--config.cut.anew=True')
  done = subprocess.run(
    ['unshare', '-rm', 'bash', '-c', SMALL_DISK, 'bash', disk, kept, *words],
    env={**environment, 'place': str(disk), 'size': size},
    cwd=CHECKOUT,
    capture_output=True,
    text=True,
  )
  if done.returncode == 77:
    pytest.skip(f'no disk may be mounted here: {done.stderr}')
  assert done.returncode == 3, done.stderr
  assert 'No space left' in done.stderr and 'Traceback' not in done.stderr
  # What was measured before it is not measured again, and nothing is lost or doubled.
  before = files_of(kept / 'D' / 'scores')
  again, whole = (
    curate(raw, kept / 'D', '--config.cut.anew=True'),
    curate(raw, tmp_path / 'whole', '--config.cut.anew=True'),
  )
  assert again.returncode == 0 and whole.returncode == 0, again.stderr
  after = files_of(kept / 'D' / 'scores')
  shards = {name: each for name, each in before.items() if name.endswith('.parquet')}
  assert shards and all(after[name] == each for name, each in shards.items())
  assert files_of(kept / 'D' / 'records') == files_of(tmp_path / 'whole' / 'records')


def test_gated_videos_are_not_decoded_until_a_threshold_lets_them_through(tmp_path):
  raw, output = write_raw(tmp_path / 'raw', 4), tmp_path / 'D'

  def rows():
    (manifest,) = output.glob('scores/*/table.parquet')
    found = pyarrow().parquet.read_table(manifest).to_pylist()
    return {row['video']: row for row in found}

  assert curate(raw, output, '--config.gate=True').returncode == 0
  first = rows()
  assert first['small.mp4']['gated'] == 'width 8 < 16' and first['small.mp4']['decoded'] == 0
  assert first['noise_000.mp4']['gated'] is None and first['noise_000.mp4']['decoded'] == 8
  assert 'motion' in first['noise_000.mp4']['seconds_of']  # which may be less than a tick
  shutil.rmtree(output / 'records')
  told = curate(raw, output, '--config.gate=True', '--dry_run', keep__side=8)
  assert 'of which 5 are measured' in told.stdout  # of six
  assert curate(raw, output, '--config.gate=True', keep__side=8).returncode == 0
  second = rows()
  assert second['small.mp4']['gated'] is None and second['small.mp4']['decoded'] == 11
  del first['small.mp4'], second['small.mp4']
  # Even their costs are those of the first time, so they were not measured again.
  assert {name: row['seconds_of'] for name, row in first.items()} == {
    name: row['seconds_of'] for name, row in second.items()
  }


def test_videos_in_a_bucket_become_records(tmp_path):
  raw = write_raw(tmp_path / 'raw', 3)
  with object_server():
    store = ObjectStore('gs://bucket/raw')
    for path in raw.iterdir():
      store.replace(path.name, path.read_bytes())
    done = curate('gs://bucket/raw', tmp_path / 'D', '--limit=0')
  assert done.returncode == 0, done.stderr
  assert curate(raw, tmp_path / 'from_a_folder').returncode == 0
  assert re.search(r'3 clips in .*records', done.stdout)
  records = files_of(tmp_path / 'D' / 'records'), files_of(tmp_path / 'from_a_folder' / 'records')
  assert records[0] == records[1]
