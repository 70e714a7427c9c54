"""launch.evaluate on the codec of sound: a table, wavs, and a record of where it all is from."""

import json
import shutil
import sys

import numpy as np
import pytest

from mgjax.data.media.audio import probe_audio, read_audio, write_wav
from tests import binaries

RATE = 48_000


def evaluate(workdir, *arguments):
  return binaries.finish('evaluate', f'--workdir={workdir}', *arguments)


@pytest.fixture(scope='module')
def codec(tiny_sound_runs, tmp_path_factory):
  """A copy of the codec's work directory, since the fixture's own must not change."""
  return shutil.copytree(tiny_sound_runs / 'codec', tmp_path_factory.mktemp('evaluate') / 'codec')


def test_a_codec_leaves_numbers_and_wavs(codec):
  done, folder = evaluate(codec, '--samples=3', '--seconds=0.8'), codec / 'evaluation'
  lines = done.stdout.splitlines()
  assert lines[0].split()[-2:] == ['better', 'MDCT']
  names = [line.split('  ')[0] for line in lines[1:4]]
  assert names == ['mel distance', 'mel distance as trained', 'SI-SDR, dB']
  assert '3 sound(s) of 0.8 s' in lines
  assert any(line.startswith('25 latents of 4 a second') for line in lines)
  assert lines[-1] == str(folder / 'reconstruction.json')
  names = [f'{i:03d}_{way}.wav' for i in range(3) for way in ('original', 'codec', 'MDCT')]
  wavs = [folder / 'sounds' / name for name in names]
  page = codec / 'evaluation.html'
  assert lines[-12:-1] == [str(path) for path in (folder / 'sounds.png', *wavs, page)]
  assert page.read_text().count('<audio id=') == 3
  info = probe_audio(wavs[1])
  assert (info.rate, info.channels, info.seconds) == (RATE, 1, pytest.approx(0.8))
  found = json.loads((folder / 'reconstruction.json').read_text())
  assert found['weights'] == {'workdir': str(codec), 'step': 6}
  assert found['settings']['sounds'] == 'validation data of the run'
  assert len(found['settings']['chosen']) == len(found['sounds']) == 3
  mean = np.mean([sound['MDCT']['mel'] for sound in found['sounds']])
  assert found['scores']['MDCT']['mel']['mean'] == pytest.approx(mean) and mean > 0


def test_sounds_of_anybody_are_judged(codec, tmp_path):
  now = np.arange(RATE) / RATE
  for index in range(2):
    tone = 0.5 * np.sin(2 * np.pi * 30 * (index + 1) * now)
    write_wav(tmp_path / f'{index}.wav', tone[:, None].astype(np.float32), RATE)
  evaluate(codec, f'--sounds={tmp_path}', '--seconds=1')
  record = json.loads((codec / 'evaluation' / 'reconstruction.json').read_text())
  assert record['settings']['sounds'] == str(tmp_path) and len(record['sounds']) == 2
  original = read_audio(codec / 'evaluation' / 'sounds' / '001_original.wav')
  assert abs(np.abs(original).max() - 0.5) < 0.01
  # Four coefficients of 40 ms reach to 50 Hz: the tone of 30 Hz is kept, that of 60 Hz is not.
  kept = sorted(sound['MDCT']['distortion'] for sound in record['sounds'])
  assert kept[0] < 0 < 10 < kept[1]


def test_an_audio_model_leaves_scores_wavs_and_videos(tiny_sound_runs, tmp_path):
  workdir = shutil.copytree(tiny_sound_runs / 'audio', tmp_path / 'audio')
  shutil.copytree(tiny_sound_runs / 'codec', tmp_path / 'codec')
  script = tmp_path / 'score.py'
  script.write_text(
    'import json, pathlib, sys\n'
    'request = json.loads(pathlib.Path(sys.argv[1]).read_text())\n'
    'numbers = [len(caption) for caption in request["captions"]]\n'
    'pathlib.Path(sys.argv[2]).write_text(json.dumps({"letters": numbers}))\n'
  )
  scorer = f'--scorer={sys.executable} {script}'
  done, folder = (
    evaluate(workdir, '--samples=3', '--steps=1', '--candidates=2', scorer),
    workdir / 'evaluation',
  )
  lines = done.stdout.splitlines()
  end = lines.index('3 clip(s)') + 1
  table, paths = lines[:end], lines[end:]
  assert table[0].endswith('codec  real  of another clip') and table[-2].startswith('letters ')
  names = [f'{index:03d}_{way}.wav' for index in range(3) for way in ('original', 'codec', 'model')]
  names += [f'{index:03d}.mp4' for index in range(3)]
  wanted = [folder / 'sounds.png', *(folder / 'sounds' / name for name in names)]
  page = workdir / 'evaluation.html'
  assert paths == [str(path) for path in (*wanted, page, workdir / 'evaluation.json')]
  assert page.read_text().count('<video id=') == 3 and ' controls loop' in page.read_text()
  assert read_audio(folder / 'sounds' / '000.mp4').shape == (round(0.4 * RATE), 1)
  found = json.loads((workdir / 'evaluation.json').read_text())
  assert found['weights'] == {'workdir': str(workdir), 'step': 6}
  assert found['settings']['steps'] == 1 and found['seed'] == 0 and found['candidates'] == 2
  assert found['scorer'] == [sys.executable, str(script)]
  assert found['real']['missed'] in (0, None) and found['real']['clips'] == 3
  letters = found['networks']['letters']
  assert letters['model'] == letters['codec'] > 10
