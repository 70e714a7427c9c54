"""Suites by the binaries that users call: made, killed and gone on with, scored, handed over."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mgjax.digits.clips import Digits
from tests import binaries
from tests.tiny import CHECKOUT

ROWS = 1003


def test_a_suite_is_made_scored_and_handed_to_vbench(tiny_runs, tmp_path):
  videos, made = tmp_path / 'videos', [f'--workdir={tiny_runs}/video', '--suite=digits:4']
  done = binaries.run('sample', *made, f'--out={videos}', '--steps=2', '--batch_size=4')
  assert done.returncode == 0, done.stderr
  told = [f'{videos}: 4 made, 0 were there']
  told += [f'{videos}/{name}' for name in ('suite.json', 'sheet.png', 'sheet.webp')]
  assert done.stdout.splitlines() == told
  done = binaries.run('evaluate', f'--videos={videos}', '--suite=digits:4')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('| prompts') and done.stdout.endswith(f'{videos}/evaluation.json\n')
  record = json.loads((videos / 'evaluation.json').read_text())
  assert record['suite'] == 'digits_4' and record['scores']['flicker']['videos'] == 4
  done = binaries.run('evaluate', f'--videos={videos}', f'--vbench={tmp_path}/vbench')
  assert (done.returncode, done.stdout) == (0, f'{tmp_path}/vbench: 4 videos\n'), done.stderr
  (tmp_path / 'r_eval_results.json').write_text('{"scene": [0.25, []]}')
  done = binaries.run('evaluate', f'--vbench={tmp_path}')
  assert done.returncode == 0 and '| scene' in done.stdout, done.stderr


WRONG = {
  'no suite': (['evaluate', '--videos={tmp}'], 2, r'--suite is missing'),
  'no videos': (['evaluate', '--videos={tmp}', '--suite=digits:3'], 3, r'none of its 0 videos'),
  'of a model': (['evaluate', '--videos={tmp}', '--suite=digits:3', '--seed=1'], 2,
                 r'--seed is for a model, and --videos for videos'),
  'nothing to compare with': (['evaluate', '--workdir={runs}/video', '--against={tmp}'], 2,
                              r'this folder has no evaluation\.json; name an evaluation\.json'),
  'no record': (['evaluate', '--workdir={runs}/video', '--against=tests/tiny.py'], 3,
                r"'tests/tiny\.py' is no readable JSON: .*; name an evaluation\.json"),
  'of videos': (['evaluate', '--workdir={runs}/video', '--judge=digits'], 2,
                r'--judge is of --videos'),
}  # fmt: skip


@pytest.mark.parametrize('case', WRONG)
def test_what_is_wrong_is_a_sentence(tiny_runs, tmp_path, case):
  words, code, message = WRONG[case]
  done = binaries.run(*(word.format(runs=tiny_runs, tmp=tmp_path) for word in words))
  assert done.returncode == code and not done.stdout
  assert done.stderr.count('\n') == 1
  assert re.search(message, done.stderr), done.stderr


def write_bench(folder):
  """A text and a table of 1,003 prompts, five of which come again, as Movie Gen Video Bench has."""
  draw = random.Random(0)
  prompts = [
    f'the {draw.choice(("red", "blue"))} digit {n % 10} moves, take {n}' for n in range(998)
  ]
  prompts += [prompts[place] for place in (3, 3, 50, 400, 997)]
  draw.shuffle(prompts)
  (folder / 'StandIn.txt').write_text('\n'.join(prompts) + '\n')
  with (folder / 'StandInWithTag.csv').open('w', newline='') as file:
    rows = [(prompt, 'animal,gravity', draw.choice(('low', 'high'))) for prompt in prompts]
    csv.writer(file).writerows([('prompt', 'concept', 'motion_level'), *rows])
  return folder / 'StandIn.txt'


@pytest.mark.slow
def test_a_bench_that_is_killed_three_times_ends_whole_and_makes_no_video_twice(
  tiny_runs, tmp_path
):
  path, out = write_bench(tmp_path), tmp_path / 'videos'
  words = [sys.executable, '-m', 'launch.sample', f'--workdir={tiny_runs}/video']
  words += [f'--suite={path}', f'--out={out}', '--steps=2', '--batch_size=16', '--scale=1']
  seen = {}
  for most in (100, 400, 700):
    process = subprocess.Popen(words, cwd=CHECKOUT, env=os.environ, start_new_session=True)
    while len(list(out.glob('[0-9]*.json'))) < most:
      assert process.poll() is None
      time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    now = {p: p.stat().st_mtime_ns for p in out.glob('*.mp4') if p.with_suffix('.json').exists()}
    assert {path: now[path] for path in seen} == seen and len(now) < ROWS
    seen = now
  subprocess.run(words, cwd=CHECKOUT, check=True)
  records = [json.loads(record.read_text()) for record in out.glob('[0-9]*.json')]
  assert sorted(record['index'] for record in records) == list(range(ROWS))
  assert len({record['pixels'] for record in records}) == len(list(out.glob('*.mp4'))) == ROWS
  assert {path: path.stat().st_mtime_ns for path in seen} == seen
  assert not list(out.glob('.*'))


@pytest.mark.slow
def test_a_model_of_sound_makes_soundtracks_for_videos_by_index(tiny_sound_runs, tmp_path):
  from mgjax.media.viewing import write_clip

  videos, out = tmp_path / 'videos', tmp_path / 'sound'
  rows = [
    {'id': 4 * n, 'video_prompt': 'a digit', 'audio_prompt': f'the green digit {n} bounces'}
    for n in range(2)
  ]
  (tmp_path / 'sounds.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  for number in range(2):
    frames = np.asarray(Digits(frames=16, captions='all')[number]['video'])
    write_clip(videos / f'{number:05d}.mp4', frames, 8)
  words = [f'--workdir={tiny_sound_runs}/audio', f'--suite={tmp_path}/sounds.jsonl']
  words += [f'--out={out}', f'--video={videos}', '--steps=2', '--candidates=1']
  for told in ('2 made, 0 were there', '0 made, 2 were there'):
    done = binaries.run('sample', *words)
    assert done.returncode == 0 and f'{out}: {told}' in done.stdout, done.stderr
  assert len(list(out.glob('*.wav'))) == 2
