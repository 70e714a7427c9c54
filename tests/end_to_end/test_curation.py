"""Raw videos to a training set by one command, which goes on wherever it was killed."""

import json
import pathlib
import subprocess

import numpy as np
import pytest

from mgjax.data.media.video import write_video
from mgjax.lab.curation.rows import pyarrow
from mgjax.training.monitoring.workdir_lock import hold
from tests import binaries, tiny
from tests.folders import files_of
from tests.lab.curation import poison

CHECKOUT = pathlib.Path(__file__).parents[2]
TINY = {
  'measure.scorers': "('motion','jitter')",
  'measure.clips.shortest': 0.5,
  'measure.clips.first': 0.0,
  'keep.seconds': '(0.5,120.0)',
  'keep.side': 16,
  'keep.motion': 0.0,
  'keep.vectors': '(0.0,1000.0)',
  'order': "('duration','resolution','motion')",
}


def command(raw, output, *more, **changes):
  fields = TINY | tiny.dotted(changes)
  config = '--config=configs/curation/high_resolution.py'
  places = f'--input={raw}', f'--output={output}'
  return [str(word) for word in (*places, config, '--workers=2', *tiny.flags(fields), *more)]


def curate(raw, output, *more, **changes):
  return binaries.run('curate', *command(raw, output, *more, **changes))


def write_raw(folder, count):
  folder.mkdir()
  for index in range(count):
    noise = np.random.default_rng(index).integers(0, 256, (24, 24, 3))
    frames = np.stack([np.roll(noise, 2 * step, 1) for step in range(8 + index % 5)])
    write_video(folder / f'noise_{index:03d}.mp4', frames.astype(np.uint8), 8)
  write_video(folder / 'small.mp4', frames[:, :8, :8].astype(np.uint8), 8)
  (folder / 'text.mp4').write_text('no video')
  return folder


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  return write_raw(tmp_path_factory.mktemp('curation') / 'raw', 16)


@pytest.fixture(scope='module')
def curated(raw, tmp_path_factory):
  output = tmp_path_factory.mktemp('curated') / 'D'
  done = binaries.succeeded(curate(raw, output))
  return output, done


def test_raw_videos_become_records_that_encode_and_train(curated, tiny_runs, tmp_path):
  output, done = curated
  assert '16 clips in' in done.stdout and 'videos cannot be measured' in done.stdout
  funnel = json.loads((output / 'funnel.json').read_text())
  assert (funnel['clips'], funnel['kept']) == (17, 16)
  assert [step['kept'] for step in funnel['filters']] == [17, 16, 16]
  decisions = pyarrow().parquet.read_table(output / 'decisions.parquet').to_pylist()
  dropped = {row['clip']: row['filter'] for row in decisions if row['filter']}
  assert dropped == {'small.mp4#0': 'resolution', 'text.mp4': 'unmeasured'}
  assert (output / 'report.html').read_text().startswith('<!')

  fields = {
    'autoencoder': tiny_runs / 'autoencoder',
    'data.kind': 'records',
    'data.path': output / 'records',
    **{key: value for key, value in tiny.VIDEO.items() if '.image.' not in key},
  }
  latents, config = tmp_path / 'latents', '--config=configs/clips/video.py'
  binaries.finish('data', 'encode', config, f'--output={latents}', *tiny.flags(fields))
  fields |= {'data.latents': latents, 'train.steps': 4}
  binaries.finish('train', config, f'--workdir={tmp_path}/run', *tiny.flags(fields))
  assert {row['step'] for row in tiny.metrics(tmp_path / 'run')} >= {1, 2}


def test_the_same_command_again_does_nothing_again(curated, raw):
  output, _ = curated
  before = files_of(output / 'scores') | files_of(output / 'records')
  again = binaries.succeeded(curate(raw, output))
  assert '16 clips in' in again.stdout
  assert files_of(output / 'scores') | files_of(output / 'records') == before
  told = curate(raw, output, '--dry_run')
  lacking, found = told.stdout.splitlines()
  assert lacking == '18 of 18 clips have no caption, the first is noise_000.mp4'
  assert found == '18 videos, of which 18 are measured with these settings'


def test_a_changed_threshold_measures_nothing_and_never_mixes_records(curated, raw, tmp_path):
  output = tmp_path / 'D'
  subprocess.run(['cp', '-r', curated[0], output], check=True)
  before = files_of(output / 'scores')
  refused = curate(raw, output, keep__seconds='(1.45,120.0)')
  assert refused.returncode == 2 and 'records of another selection' in refused.stderr
  subprocess.run(['rm', '-r', output / 'records'], check=True)
  assert curate(raw, output, keep__seconds='(1.45,120.0)').returncode == 0
  assert files_of(output / 'scores') == before
  kept = pyarrow().parquet.read_table(output / 'kept.parquet').column('seconds').to_pylist()
  assert len(kept) == 3 and min(kept) >= 1.45
  told = curate(raw, output, '--dry_run', measure__scorers="('motion',)")
  assert told.stdout.endswith('\n18 videos, of which 0 are measured with these settings\n')


def test_a_limit_shows_the_funnel_and_the_hours_of_all_and_cuts_nothing(raw, tmp_path):
  changes = {'measure__scorers': '()', 'order': "('duration',)"}
  done = binaries.succeeded(curate(raw, tmp_path / 'D', '--limit=1', **changes))
  for said in ('of 18 videos are measured; all take', 'hours of 2 workers'):
    assert said in done.stdout
  assert not (tmp_path / 'D' / 'records').exists()


def test_of_two_runs_into_one_folder_the_second_says_so(raw, tmp_path):
  with hold(tmp_path / 'D'):
    done = curate(raw, tmp_path / 'D')
  assert done.returncode == 2 and 'mgjax.lock' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.slow
def test_five_kinds_of_poison_are_quarantined_and_the_run_ends(tmp_path):
  raw, output = tmp_path / 'raw', tmp_path / 'D'
  raw.mkdir()
  for kind in (poison.HARMLESS, *poison.KINDS):
    poison.write(raw / f'{kind}.mp4', kind)
  binaries.succeeded(
    curate(
      raw,
      output,
      '--config.limits.gigabytes=3.0',
      '--config.limits.processor_seconds=5',
      '--config.limits.wall_seconds=60.0',
      measure__scorers="('jitter','aesthetics')",
      order="('duration',)",
      measure__aesthetics__python='tests.lab.curation.poison:score',
    )
  )
  decisions = pyarrow().parquet.read_table(output / 'decisions.parquet').to_pylist()
  reasons = {row['clip']: row['reason'] for row in decisions if row['filter']}
  tried = ', in each of 3 tries'
  assert reasons == {
    'exit.mp4': f'ends its process (exit code 0){tried}',
    'loop.mp4': f'takes over 5 s of processor time{tried}',
    'memory.mp4': f'needs over 3 GB of memory{tried}',
    'segfault.mp4': f'ends its process (SIGSEGV){tried}',
    'sleep.mp4': f'takes over 60 s{tried}',
  }
