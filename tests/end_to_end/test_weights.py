"""Weights in and out of work directories: by the binary, bit by bit, and what is refused."""

import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from configs.digits import autoencoder as digits
from configs.tae import tae
from configs.upsampler import image_autoencoder
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.configuration.keys import differences
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.tae.inflate import deflate, read_image_autoencoder
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.training.checkpoints.load_params import load_params, read_shapes
from mgjax.training.checkpoints.workdir import read_config
from tests import binaries
from tests.models.tae.test_inflate import tensors_of, vectors, write_folder, write_wide
from tests.oracles import image_autoencoder as oracle

EPS = np.finfo(np.float32).eps


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """An image autoencoder, vae/, and what the binary makes of it: runs/, out.safetensors."""
  place = tmp_path_factory.mktemp('weights')
  write_folder(place / 'vae', 'plain')
  given = (f'--input={place}/vae', '--config=configs/tae/tae.py', '--config.model.dtype=float32')
  done = binaries.finish('weights', 'import', *given, f'--workdir={place}/run')
  (place / 'said').write_text(done.stderr)
  binaries.finish('weights', 'export', f'--workdir={place}/run', f'--out={place}/out.safetensors')
  return place


@pytest.fixture
def exported(place):
  """Tensors and header of the exported file."""
  with safe_open(place / 'out.safetensors', 'numpy') as file:
    return load_file(place / 'out.safetensors'), json.loads(file.metadata()['mgjax'])


def written(folder, values, header):
  header = header if isinstance(header, str) else json.dumps(header)
  save_file(values, folder / 'copy.safetensors', {'mgjax': header})
  return folder / 'copy.safetensors'


def test_what_the_weights_change_in_the_configuration_is_said(place):
  said = (place / 'said').read_text()
  assert 'model.latent_channels: 16 -> 6, as the weights need it' in said
  assert f'train them with --config.start_from={place}/run and another --workdir' in said
  wanted = tae.get_config().to_dict()
  changed = differences(wanted, read_config(place / 'run').to_dict())
  assert "model.dtype: 'bfloat16' -> 'float32'" in changed
  assert all(change.startswith('model.') for change in changed)


def test_the_work_directory_is_that_of_a_run(place):
  params, meta = load_params(place / 'run')
  shapes = {name: list(leaf.shape) for name, leaf in named_leaves(params).items()}
  assert read_shapes(place / 'run') == shapes
  assert meta['step'] == 0
  assert json.loads((place / 'run/run.json').read_text())['command'][1] == 'import'
  found, left_out = deflate(params)
  assert {key: x.tobytes() for key, x in found.items()} == {
    key: x.tobytes() for key, x in tensors_of('plain').items()
  }
  # As initialised: without effect, but with projections that can learn.
  assert all(left_out.values())
  assert params['encoder']['middle_attention']['temporal_query']['kernel'].std() > 0.1


def test_latents_are_those_of_diffusers_pipelines(place):
  """They scale the mean as (z - shift_factor) * scaling_factor."""
  codec = load_codec(place / 'run')
  latents = codec.encode(jnp.asarray(oracle.draw_bytes()[:1, None]))
  config = vectors('plain')['config']
  exact = (vectors('plain')['mean'][:1] - config['shift_factor']) * config['scaling_factor']
  # As in tests/models/tae/test_inflate.py.
  tolerance = (24 * 9 * 16) ** 0.5 * EPS * np.abs(exact).max()
  np.testing.assert_allclose(latents[:, 0], exact, atol=tolerance)


def test_exported_and_imported_every_bit_is_the_same(place, tmp_path):
  # Of another shape: what the file says of its model replaces all of it but the compute type.
  import_weights(digits.get_config(), place / 'out.safetensors', tmp_path / 'run')
  export_weights(tmp_path / 'run', tmp_path / 'again.safetensors')
  assert (tmp_path / 'again.safetensors').read_bytes() == (place / 'out.safetensors').read_bytes()
  first, second = (load_codec(path) for path in (place / 'run', tmp_path / 'run'))
  assert first.statistics == second.statistics and first.model == second.model
  jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_the_image_model_goes_back_to_diffusers(place, tmp_path, caplog):
  with caplog.at_level(logging.INFO, 'mgjax'):
    export_weights(place / 'run', tmp_path / 'vae', 'diffusers')
  assert '110 temporal parameters are left out, 0 of them no longer neutral' in caplog.messages
  first, second = (read_image_autoencoder(path / 'vae') for path in (place, tmp_path))
  assert (first.fields, first.statistics) == (second.fields, second.statistics)
  jax.tree.map(np.testing.assert_array_equal, first.tensors, second.tensors)
  assert json.loads((tmp_path / 'vae/config.json').read_text())['scaling_factor'] == 1.5305


def test_an_image_model_goes_through_us_as_it_is(place, tmp_path, caplog):
  with caplog.at_level(logging.INFO, 'mgjax'):
    import_weights(image_autoencoder.get_config(), place / 'vae', tmp_path / 'run')
    export_weights(tmp_path / 'run', tmp_path / 'vae', 'diffusers')
  assert any('model.latent_channels: 16 -> 6' in said for said in caplog.messages)
  assert not any('temporal' in said for said in caplog.messages)
  first, second = (read_image_autoencoder(path / 'vae') for path in (place, tmp_path))
  assert (first.fields, first.statistics) == (second.fields, second.statistics)
  jax.tree.map(np.testing.assert_array_equal, first.tensors, second.tensors)
  # In our own format, too, whatever the configuration says of time.
  export_weights(tmp_path / 'run', tmp_path / 'image.safetensors')
  import_weights(tae.get_config(), tmp_path / 'image.safetensors', tmp_path / 'again')
  model = load_codec(tmp_path / 'again').model
  assert not model.temporal and model.compression == (1, 4, 4)


def test_what_training_made_of_it_is_said_and_kept(exported, tmp_path, caplog):
  """Learnt temporal layers are no part of an image model; statistics of data have no one scale."""
  latents = {'mean': [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 'std': [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
  values, header = exported
  learnt = values | {'encoder/conv_in/temporal/bias': np.ones(8, np.float32)}
  path = written(tmp_path, learnt, header | {'latents': latents})
  import_weights(tae.get_config(), path, tmp_path / 'run')
  export_weights(tmp_path / 'run', tmp_path / 'vae', 'diffusers')
  assert caplog.messages[-1] == (
    '110 temporal parameters are left out, 1 of them no longer neutral '
    '(encoder/conv_in/temporal/bias, ...): images come out otherwise than from the video model'
  )
  assert read_image_autoencoder(tmp_path / 'vae').statistics.as_dict() == latents


def test_strides_of_the_configuration_may_treat_time_otherwise(place, tmp_path):
  config = tae.get_config()
  config.model.strides = ((2, 2, 2), (1, 2, 2))
  import_weights(config, place / 'vae', tmp_path / 'run')
  assert load_codec(tmp_path / 'run').model.compression == (2, 4, 4)


def test_a_file_alone_has_no_statistics_and_says_so(place, tmp_path, caplog):
  path = place / 'vae/diffusion_pytorch_model.safetensors'
  with pytest.raises(ConfigError, match='8 channels do not divide into 32 groups'):
    import_weights(tae.get_config(), path, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  write_wide(tmp_path / 'wide.safetensors')
  import_weights(tae.get_config(), tmp_path / 'wide.safetensors', tmp_path / 'run')
  assert 'no config.json tells the scale of the latents: taken as mean 0, deviation 1' in (
    caplog.messages
  )
  assert load_codec(tmp_path / 'run').statistics.as_dict() == {'mean': [0.0] * 6, 'std': [1.0] * 6}


def test_a_work_directory_with_checkpoints_is_left_alone(place):
  before = (place / 'run/config.json').read_bytes()
  with pytest.raises(ConfigError, match='already has checkpoints; take another --workdir'):
    import_weights(tae.get_config(), place / 'vae', place / 'run')
  assert (place / 'run/config.json').read_bytes() == before


def test_a_run_that_has_only_begun_is_left_alone(place, tmp_path):
  for number, text in enumerate(('{"part": "video", "model": {}}', '{"part": ')):
    workdir = tmp_path / str(number)
    workdir.mkdir()
    (workdir / 'config.json').write_text(text)
    with pytest.raises(ConfigError, match='is of another run; take another --workdir'):
      import_weights(tae.get_config(), place / 'out.safetensors', workdir)
    assert [path.name for path in workdir.iterdir()] == ['config.json']
    assert (workdir / 'config.json').read_text() == text


def test_an_import_that_was_killed_may_be_done_again(place, tmp_path):
  for name in ('config.json', 'run.json', 'parameters.json'):
    shutil.copy(place / 'run' / name, tmp_path / name)
  import_weights(read_config(place / 'run'), place / 'out.safetensors', tmp_path)
  assert load_codec(tmp_path).model == load_codec(place / 'run').model


@pytest.mark.oracle
def test_diffusers_reads_what_was_exported(place, tmp_path):
  diffusers = pytest.importorskip('diffusers')
  export_weights(place / 'run', tmp_path / 'vae', 'diffusers')
  twin = diffusers.AutoencoderKL.from_pretrained(tmp_path / 'vae').double()
  found = oracle.answers(twin, oracle.draw_images())
  assert twin.config.scaling_factor == vectors('plain')['config']['scaling_factor']
  assert twin.config.shift_factor == vectors('plain')['config']['shift_factor']
  for key, array in found.items():
    np.testing.assert_array_equal(array.astype(np.float32), vectors('plain')[key], err_msg=key)
