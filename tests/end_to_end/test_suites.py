"""Suites by the binaries that users call: made, killed and gone on with, scored, handed over."""

import json

import numpy as np
import pytest

from mgjax.lab.worlds.digits.clips import Digits
from tests import binaries


def test_a_suite_is_made_scored_and_handed_to_vbench(tiny_runs, tmp_path):
  videos, made = tmp_path / 'videos', [f'--workdir={tiny_runs}/video', '--suite=digits:4']
  done = binaries.finish('sample', 'suite', *made, f'--out={videos}', '--steps=2', '--batch_size=4')
  told = [f'{videos}: 4 made, 0 were there']
  told += [f'{videos}/{name}' for name in ('suite.json', 'sheet.png', 'sheet.webp')]
  assert done.stdout.splitlines() == told
  done = binaries.finish('evaluate', f'--videos={videos}', '--suite=digits:4')
  assert '\nflicker ' in done.stdout and done.stdout.endswith(f'{videos}/evaluation.json\n')
  record = json.loads((videos / 'evaluation.json').read_text())
  assert record['suite'] == 'digits_4' and record['scores']['flicker']['videos'] == 4
  done = binaries.run('evaluate', f'--videos={videos}', f'--vbench={tmp_path}/vbench')
  assert (done.returncode, done.stdout) == (0, f'{tmp_path}/vbench: 4 videos\n'), done.stderr
  (tmp_path / 'r_eval_results.json').write_text('{"scene": [0.25, []]}')
  done = binaries.finish('evaluate', f'--vbench={tmp_path}')
  assert '| scene' in done.stdout, done.stderr


WRONG = {
  'no suite': (['evaluate', '--videos={tmp}'], 2, r'--suite is missing'),
  'no videos': (['evaluate', '--videos={tmp}', '--suite=digits:3'], 3, r'none of its 0 videos'),
  'of a model': (
    ['evaluate', '--videos={tmp}', '--suite=digits:3', '--seed=1'],
    2,
    r'--seed is for a model, and --videos for videos',
  ),
  'nothing to compare with': (
    ['evaluate', '--workdir={runs}/video', '--against={tmp}'],
    2,
    r'this folder has no evaluation\.json; name an evaluation\.json',
  ),
  'no record': (
    ['evaluate', '--workdir={runs}/video', '--against=tests/tiny.py'],
    3,
    r"'tests/tiny\.py' is no readable JSON: .*; name an evaluation\.json",
  ),
  'of videos': (
    ['evaluate', '--workdir={runs}/video', '--judge=digits'],
    2,
    r'--judge is of --videos',
  ),
}


@pytest.mark.slow
def test_a_model_of_sound_makes_soundtracks_for_videos_by_index(tiny_sound_runs, tmp_path):
  from mgjax.data.media.viewing import write_clip

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
  words += [f'--out={out}', f'--videos={videos}', '--steps=2', '--candidates=1']
  for told in ('2 made, 0 were there', '0 made, 2 were there'):
    done = binaries.finish('sample', 'suite', *words)
    assert f'{out}: {told}' in done.stdout, done.stderr
  assert len(list(out.glob('*.wav'))) == 2
