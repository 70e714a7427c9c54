"""Files to records to training, by the commands; damage on the way is counted or ends the run."""

import json

import numpy as np
import pytest

from mgjax.data.media.video import write_video
from tests import binaries, tiny

SIZES = tiny.AUTOENCODER | {'data.kind': 'records', 'data.fps': 8, 'train.save_every': 4}


def train(records, workdir, *more, **changes):
  fields = SIZES | {'data.path': records} | {k.replace('__', '.'): v for k, v in changes.items()}
  config = '--config=configs/clips/autoencoder.py'
  return binaries.run('train', config, f'--workdir={workdir}', *tiny.flags(fields), *more)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
  folder = tmp_path_factory.mktemp('clips')
  for index in range(24):
    frames = np.random.default_rng(index).integers(0, 256, (8, 24, 24, 3))
    write_video(folder / f'clip_{index:02d}.mp4', frames.astype(np.uint8), 8)
  (folder / 'text.mp4').write_text('no video')
  return folder


def test_clips_become_records_that_train_and_damage_is_counted_or_ends_the_run(clips, tmp_path):
  records, workdir = tmp_path / 'records', tmp_path / 'run'
  made = binaries.finish(
    'data',
    'convert',
    f'--input={clips}',
    f'--output={records}',
    '--rows_per_shard=4',
    '--allow_names',
  )
  assert (
    '24 clips, 1 rejected' in made.stdout and 'text.mp4' in (records / 'rejected.jsonl').read_text()
  )
  assert binaries.run('data', 'verify', f'--input={records}').returncode == 0

  shards = sorted(records.glob('*.arrayrecord'))
  data = bytearray(shards[2].read_bytes())
  data[data.index(b'mdat') + 50] ^= 1
  shards[2].write_bytes(data)
  found = binaries.run('data', 'verify', f'--input={records}')
  assert found.returncode == 3 and shards[2].name in found.stderr

  binaries.succeeded(train(records, workdir))
  replaced = sum(row.get('replaced_samples', 0) for row in tiny.metrics(workdir))
  # 8 steps, two of three of 8 videos: 40 to 48 of 24 that come once an epoch, and 16 to 24 images.
  assert 2 <= replaced <= 4
  lines = (workdir / 'quarantine.jsonl').read_text().splitlines()
  quarantine = [json.loads(line) for line in lines]
  assert {row['bucket'] for row in quarantine} == {'video', 'image'}
  assert all(f'{shards[2].name} is damaged at its row' in row['reason'] for row in quarantine)

  shards[0].rename(tmp_path / 'lost')
  lost = train(records, tmp_path / 'other')
  assert lost.returncode == 3 and f'{shards[0].name} is missing' in lost.stderr
  assert 'Traceback' not in lost.stderr
  # The run that was begun on all rows does not go on without some of them in silence.
  refused = train(records, workdir, data__skip_missing=True)
  assert refused.returncode == 2 and '--new_data' in refused.stderr
  rest = binaries.succeeded(train(records, workdir, '--new_data', data__skip_missing=True))
  assert '4 rows left out' in rest.stderr
