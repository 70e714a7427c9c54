"""Finished weights in one file: folders that `launch.weights` writes, and those of mgjax itself."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save

import mgjax
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import read_metadata
from mgjax.core.tree import named_leaves
from mgjax.nn.quantize import store
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import replicated
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.training.checkpoints import find_run as runs
from mgjax.training.checkpoints.load_params import load_params, read_shapes
from mgjax.training.checkpoints.warm_start import make_start
from mgjax.training.checkpoints.weights_file import WEIGHTS_FILE
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config
from tests import binaries, tiny

PROMPTS = ['the green digit 3 moves left', 'a']
PARTS = sorted(path.parent for path in runs.SHIPPED.rglob('config.json'))
MIB = 2**20


@pytest.fixture(scope='module')
def exported(tiny_runs, tmp_path_factory):
  """A model with its autoencoder in it, as a folder of names would have them."""
  place = tmp_path_factory.mktemp('shipped') / 'tiny'
  export_weights(tiny_runs / 'video', place / 'video', 'workdir', weights='int8')
  export_weights(tiny_runs / 'autoencoder', place / 'video' / 'autoencoder', 'workdir')
  return place


def test_a_folder_of_weights_is_loaded_as_the_run_that_it_came_from(exported, tiny_runs):
  saved, _ = load_params(tiny_runs / 'video')
  expected = named_leaves(store(saved, 'int8'))
  found, meta = load_params(exported / 'video')
  assert meta['step'] == open_checkpoints(tiny_runs / 'video').steps()[-1]
  assert read_shapes(exported / 'video') == {
    name: list(leaf.shape) for name, leaf in expected.items()
  }
  for name, leaf in named_leaves(found).items():
    assert leaf.dtype == expected[name].dtype
    check_written(name, leaf, expected[name])
  video = mgjax.load(exported / 'video').generate(PROMPTS)
  whole = mgjax.load(tiny_runs / 'video').generate(PROMPTS)
  # Of 255. Rounded weights of a network that was hardly trained; another seed differs by 40.
  assert 0 < np.abs(np.int32(video) - whole).mean() < 4


def check_written(name, leaf, before):
  """Holds a leaf of a file to what it was: whole, in bfloat16, or within half a step of int8."""
  exact = name.endswith(('/quantised', '/kernel/scale'))
  if before.ndim == 1 or before.size < 2048 or exact or name == 'decoder/conv_out/kernel':
    there = before if exact else before.astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.float32(leaf), np.float32(there), err_msg=name)
    return
  before = np.asarray(before, np.float64)
  step = np.abs(before).max(tuple(range(before.ndim - 1))) / 127 * (1 + 2**-8)  # of bfloat16
  assert (np.abs(leaf - before) <= step / 2).all(), name
  assert len(np.unique(leaf[..., 0])) <= 255


def test_an_autoencoder_of_one_byte_a_number_is_known_to_its_models(exported, tiny_runs, tmp_path):
  shutil.copytree(exported / 'video', tmp_path, dirs_exist_ok=True)
  own, whole = tmp_path / 'autoencoder', exported / 'video' / 'autoencoder'
  export_weights(tiny_runs / 'autoencoder', own, 'workdir', weights='int8')
  assert {str(leaf.dtype) for leaf in load_file(own / WEIGHTS_FILE).values()} == {
    'int8',
    'bfloat16',
  }
  assert (own / WEIGHTS_FILE).stat().st_size < (whole / WEIGHTS_FILE).stat().st_size
  saved = named_leaves(load_params(tiny_runs / 'autoencoder')[0])
  for name, leaf in named_leaves(load_params(own)[0]).items():
    check_written(name, leaf, saved[name])
  export_weights(own, tmp_path / 'again', 'workdir', weights='int8')
  assert (tmp_path / 'again' / WEIGHTS_FILE).read_bytes() == (own / WEIGHTS_FILE).read_bytes()
  made, before = (mgjax.load(each).generate(PROMPTS) for each in (tmp_path, exported / 'video'))
  # Of 255; of a decoder as small as this only the last matrix is large, and it stays as it is.
  assert np.abs(np.int32(made) - before).mean() < 4
  import_weights(read_config(own), own / WEIGHTS_FILE, tmp_path / 'imported')
  for name, leaf in named_leaves(load_params(tmp_path / 'imported')[0]).items():
    np.testing.assert_array_equal(leaf, named_leaves(load_params(own)[0])[name])


def test_over_devices_it_samples_as_on_one(exported):
  one = mgjax.load(exported / 'video').generate(PROMPTS)
  several = mgjax.load(exported / 'video', mesh={'data': 4, 'fsdp': 2}).generate(PROMPTS)
  assert np.abs(np.int32(one) - several).max() <= 1  # a rounding that meets a half


def test_equal_weights_make_equal_files(exported, tiny_runs, tmp_path):
  export_weights(tiny_runs / 'video', tmp_path, 'workdir', weights='int8')
  for name in ('config.json', WEIGHTS_FILE):
    assert (tmp_path / name).read_bytes() == (exported / 'video' / name).read_bytes()
  export_weights(exported / 'video', tmp_path / 'again', 'workdir')
  assert (tmp_path / 'again' / WEIGHTS_FILE).read_bytes() == (tmp_path / WEIGHTS_FILE).read_bytes()


def test_nothing_trains_in_it_and_others_start_from_it(exported):
  config = read_config(exported / 'video')
  with pytest.raises(ConfigError, match=r'finished weights.*take another --workdir.*start_from='):
    mgjax.train(config, exported / 'video')
  assert not (exported / 'video' / 'checkpoints').exists()
  place = replicated(make_mesh({'data': 8}))
  start = make_start(str(exported / 'video'), 'video')(lambda name, shape: place)
  assert all(leaf.dtype == jnp.float32 for leaf in named_leaves(start).values())
  with pytest.raises(ConfigError, match=r"averaged weights of step \d+ alone, and 'params'"):
    load_params(exported / 'video', 'params')


def test_a_run_is_not_written_over(exported, tiny_runs):
  with pytest.raises(ConfigError, match='is a run with checkpoints; take another folder'):
    export_weights(exported / 'video', tiny_runs / 'video', 'workdir')


def test_a_name_is_found_from_anywhere_unless_something_lies_there(
  exported, tiny_runs, tmp_path, monkeypatch
):
  monkeypatch.setattr(runs, 'SHIPPED', exported.parent)
  monkeypatch.chdir(tmp_path)
  assert mgjax.load('tiny/video').weights['workdir'] == 'tiny/video'
  assert mgjax.load('tiny/video/autoencoder').statistics
  with pytest.raises(ConfigError, match=r"'tiny/vide' is not a work.*come tiny/video, tiny/video/"):
    mgjax.load('tiny/vide')
  (tmp_path / 'tiny' / 'video').mkdir(parents=True)  # as results of a command would make it
  assert runs.find_run('tiny/video') == exported / 'video'
  shutil.copy(tiny_runs / 'video' / 'config.json', tmp_path / 'tiny' / 'video')
  assert runs.find_run('tiny/video').resolve() == tmp_path / 'tiny' / 'video'
  assert runs.find_run('../tiny/video') != exported / 'video'


def plant(place):
  """Puts the autoencoder that ships at a place, its decoder turned round."""
  shutil.copytree(runs.SHIPPED / 'digits' / 'autoencoder', place)
  leaves, about = load_file(place / WEIGHTS_FILE), read_metadata(place / WEIGHTS_FILE)
  turned = {
    name: -leaf if name.startswith('decoder/') and name.endswith('/kernel') else leaf
    for name, leaf in leaves.items()  # and not their scales, which would turn them back
  }
  header = json.loads(about['mgjax'])
  header.pop('encoder_of')  # the fingerprint by which the models of the original know it
  (place / WEIGHTS_FILE).write_bytes(save(turned, {'mgjax': json.dumps(header)}))
  return load_codec(place).fingerprints[0]


def test_pixels_of_what_ships_are_the_same_wherever_one_stands(tmp_path, monkeypatch):
  def pixels(workdir, folder):
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return mgjax.load(workdir, steps=4).generate(PROMPTS[:1])

  expected = pixels('digits/few_steps', tmp_path / 'empty')
  elsewhere, moved = tmp_path / 'elsewhere', tmp_path / 'moved'
  for place in ('runs/quickstart/autoencoder', 'autoencoder', 'digits/autoencoder'):
    plant(elsewhere / place)
  np.testing.assert_array_equal(pixels('digits/few_steps', elsewhere), expected)
  shutil.copytree(runs.SHIPPED / 'digits' / 'few_steps', moved / 'few_steps')
  other = plant(moved / 'autoencoder')
  np.testing.assert_array_equal(pixels(moved / 'few_steps', moved), expected)  # by the pinned name
  mine = load_codec('digits/autoencoder').fingerprints[1]  # of what it was before int8
  monkeypatch.chdir(elsewhere)
  with pytest.raises(
    ConfigError,
    match=rf'{mine}, that .*few_steps.* learned with.*moved/autoencoder.*{other}.*Put it',
  ):
    mgjax.load(moved / 'few_steps')


def test_weights_of_before_there_were_fingerprints_go_by_the_statistics(
  exported, tiny_runs, tmp_path
):
  moved = shutil.copytree(exported / 'video', tmp_path / 'video')
  about = json.loads(read_metadata(moved / WEIGHTS_FILE)['mgjax'])
  assert about.pop('autoencoder') == load_codec(moved / 'autoencoder').fingerprints[0]
  (moved / WEIGHTS_FILE).write_bytes(
    save(load_file(moved / WEIGHTS_FILE), {'mgjax': json.dumps(about)})
  )
  made = mgjax.load(moved).generate(PROMPTS)
  np.testing.assert_array_equal(made, mgjax.load(exported / 'video').generate(PROMPTS))
  shutil.rmtree(moved / 'autoencoder')
  config = json.loads((moved / 'config.json').read_text()) | {'autoencoder': 'gone/autoencoder'}
  (moved / 'config.json').write_text(json.dumps(config))
  tiny.make_another_autoencoder(tiny_runs, tmp_path / 'autoencoder')
  with pytest.raises(ConfigError, match=r'another, of the fingerprint .*gone/autoencoder. nothing'):
    mgjax.load(moved)


def test_a_damaged_file_is_a_sentence(exported, tmp_path):
  shutil.copytree(exported / 'video', tmp_path / 'video')
  path = tmp_path / 'video' / WEIGHTS_FILE
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(ConfigError, match=r'weights\.safetensors.* is not a readable'):
    mgjax.load(tmp_path / 'video')


def test_a_tensor_that_is_not_there_and_scales_that_do_not_fit_are_sentences(tiny_runs, tmp_path):
  export_weights(tiny_runs / 'autoencoder', tmp_path / 'a', 'workdir', weights='int8')
  path = tmp_path / 'a' / WEIGHTS_FILE
  leaves, about = load_file(path), read_metadata(path)
  name = next(name for name in leaves if name.endswith(':scale'))
  path.write_bytes(save({**leaves, name: np.ones((9999, 1), np.float32)}, about))
  for read in (load_params, lambda _: import_weights(read_config(path.parent), path, tmp_path)):
    with pytest.raises(ConfigError, match=r'has scales of shape \(9999, 1\); expected'):
      read(path.parent)
  wanted = lambda saved: {'elsewhere': jnp.ones(3)}  # noqa: E731
  with pytest.raises(ConfigError, match=r'is not a readable \.safetensors file: .*elsewhere'):
    open_checkpoints(path.parent).restore_params(wanted)


def test_what_ships_is_small_and_says_what_it_is():
  sizes = {part: (part / WEIGHTS_FILE).stat().st_size for part in PARTS}
  assert len(sizes) >= 10 and max(sizes.values()) < 7.5e6 and sum(sizes.values()) < 50e6
  for part in PARTS:
    card = (part / 'README.md').read_text()
    for heading in ('Data', 'Recipe', 'Measured', 'Seed', 'Licence: Apache-2.0'):
      assert heading in card, (part, heading)
    kinds = {str(tensor.dtype) for tensor in load_file(part / WEIGHTS_FILE).values()}
    assert kinds <= {'bfloat16', 'int8', 'float32'}


@pytest.mark.slow
def test_the_cast_in_one_command(tmp_path):
  out = tmp_path / 'out.mp4'
  binaries.run(
    'sample',
    'video',
    '--workdir=digits/few_steps',
    '--steps=4',
    '--prompt=the red digit 7 bounces',
    '--upsample=digits/upsampler',
    '--soundtrack=digits/audio',
    f'--out={out}',
  )
  record = json.loads((tmp_path / 'out_sound.json').read_text())
  assert {'out.mp4', 'out_sound.mp4', 'out_sound.wav'} <= {path.name for path in tmp_path.iterdir()}
  assert record['digests']['out_sound.mp4']
  assert MIB > (tmp_path / 'out_sound.mp4').stat().st_size > 1000
