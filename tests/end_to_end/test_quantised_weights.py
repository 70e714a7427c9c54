"""A model in int8: sampled from its run, from a file of it, and a start for training."""

import json

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import mgjax
from mgjax.apps.weights.average_runs import AverageCandidate, average_runs
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.nn.quantize import dequantised, store
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import replicated
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.warm_start import make_start
from mgjax.training.checkpoints.workdir import read_config
from tests import binaries, tiny

PROMPTS = ['the green digit 3 moves left', 'a']


@pytest.fixture(scope='module', params=['int8', pytest.param('fp8', marks=pytest.mark.slow)])
def moved(request, tiny_runs, tmp_path_factory):
  """The type of weights, a file of it, and the work directory that it was imported into."""
  place = tmp_path_factory.mktemp(request.param)
  export_weights(tiny_runs / 'video', place / 'out.safetensors', weights=request.param)
  config = read_config(tiny_runs / 'video')
  import_weights(config, place / 'out.safetensors', place / 'run')
  return request.param, place / 'out.safetensors', place / 'run'


def test_every_bit_is_the_same_in_a_file_a_work_directory_and_a_file_again(
  moved, tiny_runs, tmp_path
):
  weights, path, workdir = moved
  expected = tiny.bits(store(load_params(tiny_runs / 'video')[0], weights))
  assert tiny.bits(load_file(path)) == expected
  assert tiny.bits(load_params(workdir)[0]) == expected
  export_weights(workdir, tmp_path / 'again.safetensors')
  again = tmp_path / 'again.safetensors'
  assert tiny.bits(load_file(again)) == expected
  one, two = (json.loads(safe_open(each, 'numpy').metadata()['mgjax']) for each in (path, again))
  assert one['weights'] == two['weights'] == weights
  with pytest.raises(ConfigError, match=f"'bfloat16', and these were saved as '{weights}'"):
    export_weights(workdir, again, weights='bfloat16')


def test_the_run_and_the_file_of_it_sample_alike_and_near_the_run_as_it_is(moved, tiny_runs):
  weights, _, workdir = moved
  model = mgjax.load(tiny_runs / 'video', weights=weights)
  videos = model.generate(PROMPTS)
  assert model.settings['weights'] == weights
  np.testing.assert_array_equal(mgjax.load(workdir).generate(PROMPTS), videos)
  whole = mgjax.load(tiny_runs / 'video').generate(PROMPTS)
  assert 0 < np.abs(np.int32(whole) - videos).mean() < 2  # of 255: they are the same videos


def test_training_starts_from_it_in_float32(moved, tiny_runs):
  weights, _, workdir = moved
  place = replicated(make_mesh({'data': 8}))
  start = make_start(str(workdir), 'video')(lambda name, shape: place)
  whole, _ = load_params(tiny_runs / 'video')
  assert jax.tree.structure(start) == jax.tree.structure(whole)
  assert tiny.bits(start) == tiny.bits(dequantised(store(whole, weights)))


def test_quantised_runs_have_no_mean(moved, tmp_path):
  _, _, workdir = moved
  with pytest.raises(ConfigError, match='are quantised, and integers of other scales have no mean'):
    average_runs([AverageCandidate(str(workdir))], tmp_path / 'mean')


def test_the_binaries_take_it_and_say_so(tiny_runs, tmp_path):
  workdir, out = f'--workdir={tiny_runs / "video"}', tmp_path / 'out.safetensors'
  done = binaries.finish('weights', 'export', workdir, f'--out={out}', '--weights=int8')
  reached = [name for name in load_file(out) if name.endswith('/kernel/quantised')]
  assert f'weights in int8: {len(reached)} kernels, ' in done.stderr
  video = tmp_path / 'a.mp4'
  done = binaries.finish(
    'sample', 'video', workdir, '--prompt=a', '--weights=int8', f'--out={video}'
  )
  assert json.loads(video.with_suffix('.json').read_text())['settings']['weights'] == 'int8'
  done = binaries.run('sample', 'video', workdir, '--prompt=a', '--weights=int4', f'--out={video}')
  assert done.returncode == 2 and 'int8' in done.stderr
