"""launch.evaluate on an autoencoder: a table, pictures, and a record of where it all is from."""

import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from mgjax.data.media.video import probe, write_video
from tests import binaries
from tests.lab.evaluation.test_reconstruction import small_weights


def evaluate(workdir, *arguments):
  return binaries.run('evaluate', f'--workdir={workdir}', *arguments)


@pytest.fixture(scope='module')
def place(tiny_runs, tmp_path_factory):
  """Holds copies of the autoencoder, since the fixture's own must not change, clips and weights."""
  directory = tmp_path_factory.mktemp('evaluate')
  for name in ('of_videos', 'of_images'):
    shutil.copytree(tiny_runs / 'autoencoder', directory / name)
  (directory / 'clips').mkdir()
  noise = np.random.default_rng(0).integers(0, 256, (16, 24, 24, 3)).astype(np.uint8)
  write_video(directory / 'clips' / 'noise.mp4', noise, 8)
  small_weights(directory / 'lpips.safetensors', (2,) * 5)
  return directory


def test_videos_leave_numbers_and_pictures(place):
  workdir = place / 'of_videos'
  done, folder = evaluate(workdir, '--samples=5'), workdir / 'evaluation'
  assert done.returncode == 0, done.stderr
  *table, sheet, first, second, third, fourth, page, record = done.stdout.splitlines()
  assert '5 clip(s): 4 frame(s) of 16 x 16' in table
  assert any(line.startswith('flicker, grey levels') for line in table)
  assert any(line.startswith('no LPIPS and no Frechet distance') for line in table)
  assert sheet == str(folder / 'reconstruction.png')
  videos = [folder / 'side_by_side' / f'{index:03d}.mp4' for index in range(4)]
  assert [first, second, third, fourth] == [str(path) for path in videos]
  info = probe(first)
  assert (info.height, info.width, info.frames) == (256, 768, 4)
  with Image.open(sheet) as image:
    assert image.height == 4 * 4 * 160  # four rows a clip: a title and a frame of 128 pixels
  assert record == str(folder / 'reconstruction.json')
  assert page == str(workdir / 'evaluation.html')
  found = json.loads((folder / 'reconstruction.json').read_text())
  assert found['weights'] == {'workdir': str(place / 'of_videos'), 'step': 8}
  assert found['settings']['clips'] == 'validation data of the run'
  assert len(found['clips']) == 5 and found['frechet'] is found['perceptual'] is None
  measured = found['measured']
  psnr = [clip['psnr'] for clip in found['clips']]
  assert measured['metrics']['scores/psnr']['each'] == psnr
  assert measured['metrics']['scores/psnr']['best'][0] == np.argmax(psnr)
  assert all((workdir / file).exists() for file in measured['files'].values())
  assert (
    len(measured['files']) == 5 and pathlib.Path(page).read_text().count('src="data:video') == 5
  )
  mean = np.mean([clip['psnr'] for clip in found['clips']])
  assert found['scores']['psnr']['mean'] == pytest.approx(mean) and 5 < mean < 40


def test_images_of_any_size_are_seen_by_the_network_too(place):
  workdir = place / 'of_images'
  options = (f'--clips={place / "clips"}', '--frames=1', '--size=20,18')
  done = evaluate(workdir, *options, f'--perceptual={place / "lpips.safetensors"}')
  folder = workdir / 'evaluation'
  assert done.returncode == 0, done.stderr
  assert 'Frechet (VGG16 relu5_3)' in done.stdout and 'flicker' not in done.stdout
  assert '2 clip(s): 1 frame(s) of 20 x 18' in done.stdout
  with Image.open(folder / 'side_by_side' / '000.png') as image:
    assert image.size == (3 * 18 * 13, 20 * 13)
  found = json.loads((folder / 'reconstruction.json').read_text())
  weights = place / 'lpips.safetensors'
  digest = hashlib.sha256(weights.read_bytes()).hexdigest()
  assert found['perceptual'] == {'path': os.fspath(weights), 'sha256': digest}
  assert found['frechet']['rows'] == found['frechet']['dimensions'] == 2
  assert found['scores']['lpips']['mean'] > 0
  assert found['settings'] == {
    'clips': str(place / 'clips'),
    'frames': 1,
    'height': 20,
    'width': 18,
    'chosen': [0, 1],
  }
