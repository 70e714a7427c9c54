"""The bench of data: what it times, which baselines it trusts, who is absent."""

import json
import subprocess
import sys

import numpy as np
import pytest

from configs.bench.data import get_config
from mgjax.benchmarks.data import describe_data, measure_data
from mgjax.benchmarks.timing import processor_seconds_of_family
from mgjax.media.video import write_video

# Reads with the reader that ours has; `changed` is what becomes of its batches.
BASELINE = """
import numpy as np
from mgjax.media.video import read_clip

WHAT = ('data',)

def make_programs(task):
  def read(windows, count):
    options = {{'frames': task['frames'], 'fps': task['fps'], 'size': task['size']}}
    clips = [read_clip(path, start=start, **options) for path, start in windows[:count]]
    batch = np.stack(clips[: task['batch_size']])
    return {changed}

  first, windows = task['first']
  programs = {{name: (lambda w=w: read(w, len(w))) for name, w in task['windows'].items()}}
  return {{'{name}': programs | {{first: lambda: read(windows, task['batch_size'])}}}}
"""


@pytest.fixture
def config(tmp_path):
  generator = np.random.default_rng(0)
  (tmp_path / 'footage').mkdir()
  for name in ('a', 'b'):
    noise = generator.integers(0, 256, (9, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    video = np.stack([np.roll(noise, 4 * shift, 1) for shift in range(25)])
    write_video(tmp_path / 'footage' / f'{name}.mp4', video, 25)
  config = get_config(str(tmp_path / 'footage'))
  config.update(seconds=1.0, windows=5, frames=3, height=32, width=32, batch_size=2, threads=2)
  return config


def baseline(tmp_path, name, changed='batch'):
  path = tmp_path / f'{name}.py'
  path.write_text(BASELINE.format(name=name, changed=changed))
  return str(path)


def test_numbers_of_clips_and_baselines(config, tmp_path):
  baselines = [
    baseline(tmp_path, 'same'),
    baseline(tmp_path, 'bright', "batch // 2 + 100"),
    baseline(tmp_path, 'late', "np.roll(batch, 1, axis=1)"),
    baseline(tmp_path, 'few', "batch[:1]"),
  ]  # fmt: skip
  (tmp_path / 'absent.py').write_text(
    "WHAT = ('data',)\n\ndef make_programs(task):\n  import no_such_package\n"
  )
  report = measure_data(
    config.to_dict(), baselines=[*baselines, str(tmp_path / 'absent.py')], rounds=2
  )
  report = json.loads(json.dumps(report))
  clips = {'gop 16', 'gop 250', 'first batch'}
  assert report['programs'].keys() == {'mgjax', 'same'}
  assert report['programs']['mgjax'].keys() == clips
  assert report['baseline_over_mgjax']['same'].keys() == clips
  numbers = report['programs']['mgjax']['gop 16']
  assert report['clips'] == [4, 3, 32, 32]  # whole batches of two
  assert numbers['clips_per_second'] == pytest.approx(4 / numbers['median'])
  failed = report['failed']
  assert failed.keys() == {'bright', 'late', 'few', str(tmp_path / 'absent.py')}
  assert 'other frames' in failed['bright'] and 'other frames' in failed['late']
  assert 'expected (2, 3, 32, 32, 3)' in failed['few']
  text = describe_data(report)
  assert '4 clips of 3 frames of 32 x 32' in text and 'same / mgjax, gop 16: ' in text
  assert "absent.py is absent: No module named 'no_such_package'" in text


def test_processor_seconds_count_children_that_live_and_that_ended():
  work = 'import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True)\ninput()'
  before = processor_seconds_of_family()
  pipe = subprocess.PIPE
  with subprocess.Popen([sys.executable, '-c', work], stdin=pipe, stdout=pipe) as child:
    assert child.stdout.readline()
    living = processor_seconds_of_family() - before
    child.communicate(b'\n')
  ended = processor_seconds_of_family() - before
  assert 0.25 < living <= ended + 0.02  # ticks of a hundredth of a second
