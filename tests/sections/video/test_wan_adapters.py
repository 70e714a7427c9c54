"""Adapters of a Wan in work directories: trained, exported in three forms, given to two experts."""

import av  # noqa: F401
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mgjax
from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves, nest
from mgjax.data.media.viewing import write_clip
from mgjax.models.flow_model.build import published_names
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.nn.lora import merge
from mgjax.nn.quantize import dequantised
from mgjax.sections.flow.lora_files import ADAPTER_FORMATS, read_adapters
from mgjax.training.checkpoints.load_params import load_adapters, load_params
from mgjax.training.checkpoints.workdir import read_config, write_workdir
from tests import tiny_wan

WITHIN = 1e-5
DIM, DEPTH = 48, 2
MAPS_OF_A_LAYER = 10


@pytest.fixture(scope='module')
def runs(tmp_path_factory, on_one_device):
  """Two models of random weights, early and late, and adapters that were trained for the first."""
  runs = tiny_wan.make_runs(tmp_path_factory.mktemp('wan'))
  tiny_wan.make_video(tiny_wan.video(runs), runs / 'late', seed=1)
  clips = runs / 'clips'
  clips.mkdir()
  for index, clip in enumerate(tiny_wan.draw_clips(4)):
    write_clip(clips / f'{index}.mp4', np.repeat(clip, 2, axis=0), 16)
    (clips / f'{index}.txt').write_text(f'clip {index}')
  encode(tiny_wan.video(runs, data__path=str(clips)), runs / 'latents')
  config = tiny_wan.video(
    runs,
    'debug,lora',
    data__path=str(clips),
    data__latents=str(runs / 'latents'),
    start_from=str(runs / 'video'),
    lora__rank=2,
    lora__alpha=4.0,
    optimizer__learning_rate=0.1,
  )
  train(config, runs / 'style')
  for form in ('comfyui', 'kohya'):
    export_weights(runs / 'style', runs / f'{form}.safetensors', form)
  export_weights(runs / 'style', runs / 'peft', 'peft')
  return runs


def path_of(runs, form):
  return runs / (form if form == 'peft' else f'{form}.safetensors')


def velocity(pipeline, params):
  latents, time, batch, drop = small_inputs(pipeline._model, 4)
  noise = np.random.default_rng(0).normal(size=latents.shape).astype(np.float32)
  return np.asarray(jax.jit(pipeline._model.apply)({'params': params}, noise, time, batch, drop))


def write_merged(runs, workdir, adapters, name='video'):
  """Writes a run with the weights of another one and adapters merged into them."""
  params, meta = load_params(runs / name)
  config = read_config(runs / name).to_dict()
  write_workdir(config, merge(adapters, params), meta['notes'], workdir, origin={'order': 'made'})
  return workdir


def levels(clips):
  return np.stack(clips).astype(int)


@pytest.mark.parametrize('form', ADAPTER_FORMATS)
def test_trained_adapters_are_exported_and_loaded_again(runs, form):
  base, _ = load_params(runs / 'video')
  ours, _ = load_adapters(runs / 'style')
  path = path_of(runs, form)
  tensors = load_file(path / 'adapter_model.safetensors' if path.is_dir() else path)
  names = {name.rpartition('.lora_')[0] for name in tensors if '.lora_' in name}
  assert len(names) == MAPS_OF_A_LAYER * DEPTH

  plain = mgjax.load(runs / 'video')
  loaded = mgjax.load(runs / 'video', lora=str(path))
  merged, _ = load_params(runs / 'style')
  wanted = velocity(plain, merged)
  scale = np.abs(wanted).max()
  np.testing.assert_allclose(velocity(plain, loaded._params), wanted, rtol=0, atol=WITHIN * scale)
  assert np.abs(velocity(plain, base) - wanted).max() > 100 * WITHIN * scale
  found = named_leaves(loaded._params)
  for name, leaf in named_leaves(ours).items():
    factor = 2 if name.endswith('lora_a') else 1  # alpha / r
    np.testing.assert_array_equal(found[name], factor * np.asarray(leaf), err_msg=name)


@pytest.fixture(scope='module')
def other(runs):
  """A file with maps of layers, and differences of a bias, a norm and two tables."""
  numbers = np.random.default_rng(0)

  def draw(*shape):
    return (numbers.standard_normal(shape) / 5).astype(np.float32)

  tensors = {
    'blocks.1.cross_attn.o.lora_down.weight': draw(3, DIM),
    'blocks.1.cross_attn.o.lora_up.weight': draw(DIM, 3),
    'blocks.0.ffn.2.diff_b': draw(DIM),
    'blocks.1.norm3.diff': draw(DIM),
    'blocks.1.diff_m': draw(1, 6, DIM),
    'patch_embedding.diff': draw(DIM, 4, 1, 2, 2),
  }
  path = runs / 'other.safetensors'
  save_file({f'diffusion_model.{name}': tensor for name, tensor in tensors.items()}, path)
  return path


def names_of(pipeline):
  return published_names(pipeline.config.model.to_dict())


def test_both_experts_are_changed_by_adapters_of_their_own(runs, other, tmp_path):
  """One file for both, at a strength in each, and a second one for the expert alone."""
  strengths = high, low = 0.8, 0.5
  plain = mgjax.load(runs / 'video', expert=f'{runs / "late"}@0.1')
  style = runs / 'comfyui.safetensors'
  shared = mgjax.load(
    runs / 'video',
    expert=f'{runs / "late"}@0.1',
    lora=f'{style}:{high}',
    expert_lora=f'{style}:{low},{other}',
  )
  names = names_of(shared)
  early, late = (load_params(runs / name)[0] for name in ('video', 'late'))
  read = read_adapters(style, early, names)
  scaled = [
    nest({n: leaf * (w if 'lora_a' in n else 1) for n, leaf in named_leaves(read).items()})
    for w in strengths
  ]
  early_path = write_merged(runs, tmp_path / 'early', scaled[0])
  late_path = write_merged(runs, tmp_path / 'low', scaled[1], 'late')
  params, meta = load_params(late_path)
  both = merge(read_adapters(other, late, names), params)
  config = read_config(late_path).to_dict()
  write_workdir(config, both, meta['notes'], tmp_path / 'late', origin={'order': 'made'})
  merged = mgjax.load(early_path, expert=f'{tmp_path / "late"}@0.1')
  for part in ('early', 'late'):
    wanted = velocity(shared, getattr(merged._params, part))
    np.testing.assert_allclose(
      velocity(shared, getattr(shared._params, part)),
      wanted,
      rtol=0,
      atol=WITHIN * np.abs(wanted).max(),
    )
    assert np.abs(velocity(plain, getattr(plain._params, part)) - wanted).max() > 0.01
  clips = levels(shared('a cat', seed=1))
  assert np.abs(clips - levels(merged('a cat', seed=1))).max() <= 1
  assert np.abs(clips - levels(plain('a cat', seed=1))).max() > 2


def test_adapters_of_a_run_leave_its_expert_alone(runs):
  pipeline = mgjax.load(
    runs / 'video', expert=f'{runs / "late"}@0.1', lora=str(runs / 'comfyui.safetensors')
  )
  late, _ = load_params(runs / 'late')
  jax.tree.map(np.testing.assert_array_equal, pipeline._params.late, late)
  with pytest.raises(ConfigError, match=rf"lora for '{runs / 'late'}': .*nothing of this name"):
    mgjax.load(runs / 'video', expert=f'{runs / "late"}@0.1', expert_lora='nothing.safetensors')


def test_differences_are_added_before_kernels_are_stored_in_int8(runs, other, tmp_path):
  names = names_of(mgjax.load(runs / 'video'))
  base, _ = load_params(runs / 'video')
  merged = write_merged(runs, tmp_path / 'merged', read_adapters(other, base, names))
  wanted = named_leaves(dequantised(mgjax.load(merged, weights='int8')._params))
  found = named_leaves(
    dequantised(mgjax.load(runs / 'video', weights='int8', lora=str(other))._params)
  )
  for name in ('patch_in/kernel', 'layers/modulation', 'layers/cross_norm/scale'):
    key = f'backbone/{name}'
    np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-6, err_msg=key)


def test_a_file_becomes_a_run_unless_it_has_differences(runs, other, tmp_path):
  config = tiny_wan.video(runs, start_from=str(runs / 'video'))
  import_weights(config, runs / 'kohya.safetensors', tmp_path / 'again')
  wanted, found = (load_params(path)[0] for path in (runs / 'style', tmp_path / 'again'))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), found, wanted)
  with pytest.raises(ConfigError, match=r'differences of parameters, as of backbone/.*with --lora'):
    import_weights(config, other, tmp_path / 'no')
