"""Wan's transformer and autoencoders answer what those of diffusers do, and keep their names."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.models.conditioning.ports import Ports
from mgjax.models.foreign_weights.names import export_tensors, import_tensors
from mgjax.models.tae import wan_names
from mgjax.models.tae.wan import WanAutoencoder, decode, encode
from mgjax.models.wan import names
from mgjax.models.wan.rotary import make_rotation, rotate, waves
from mgjax.models.wan.transformer import WanTransformer
from tests.oracles import wan as oracle

WITHIN = 1e-5  # of numbers around 1: float32, some hundred sums


def vectors(model, path=oracle.VECTORS):
  with np.load(path) as file:
    return {key.partition('/')[2]: file[key] for key in file if key.startswith(f'{model}/')}


def shapes_in(known):
  return {name: tuple(shape) for name, shape in json.loads(str(known['shapes'])).items()}


def tensors_of(known):
  return {name: oracle.draw(name, shape) for name, shape in shapes_in(known).items()}


def transformer(name, **fields):
  return WanTransformer(text_dim=oracle.TEXT, **oracle.TRANSFORMERS[name], **fields)


def imported(rows, tensors, model, *inputs):
  shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs))['params']
  params, left_out = import_tensors(rows, tensors, shapes, expected='of an oracle')
  assert not left_out
  return params


@pytest.fixture(scope='module', params=[*oracle.TRANSFORMERS])
def model_and_params(request):
  known = vectors(request.param)
  model = transformer(request.param)
  latents, text = oracle.draw_inputs(request.param)
  times = jnp.array(oracle.TIMES, jnp.float32)
  inputs = jnp.asarray(latents), times, Ports(context=jnp.asarray(text))
  tensors = tensors_of(known)
  return model, imported(names.ROWS, tensors, model, *inputs), inputs, known


def test_velocities_are_those_of_diffusers(model_and_params):
  model, params, inputs, known = model_and_params
  velocity = jax.jit(model.apply)({'params': params}, *inputs)
  scale = np.abs(known['velocity']).max()
  # Waves of diffusers are float32 of 1000 t w, 6e-5 off; those of the oracle are float64.
  np.testing.assert_allclose(velocity, known['velocity'], rtol=0, atol=WITHIN * scale)


def test_both_layouts_are_read_and_written_bit_by_bit(model_and_params):
  _, params, _, known = model_and_params
  tensors = tensors_of(known)
  original = {}
  for row in names.ROWS:
    for layer in range(9):
      theirs = [name.replace('{layer}', str(layer)) for name in row.names]
      if theirs[0] in tensors:
        original[theirs[-1]] = tensors[theirs[0]]
  assert len(original) == len(tensors)
  assert 'blocks.0.self_attn.norm_q.weight' in original and 'head.modulation' in original
  for layout in (tensors, original):
    again, left_out = import_tensors(names.ROWS, layout, params, expected='of Wan')
    assert not left_out
    jax.tree.map(np.testing.assert_array_equal, again, params)
    written = export_tensors(names.ROWS, again, dict.fromkeys(layout, 'float32'))
    assert written.keys() == layout.keys()
    for name, tensor in layout.items():
      assert written[name].tobytes() == tensor.tobytes() and written[name].shape == tensor.shape


def test_published_sizes_have_the_published_counts_of_parameters_and_tensors():
  ports = Ports(context=jnp.zeros((1, 8, 4096)))
  for (dim, depth, heads, mlp_dim), count, tensors in (
    ((1536, 30, 12, 8960), 1_418_996_800, 825),
    ((5120, 40, 40, 13824), 14_288_491_584, 1_095),
  ):
    model = WanTransformer(dim, depth, heads, mlp_dim)
    inputs = jnp.zeros((1, 1, 2, 2, 16)), jnp.zeros(1), ports
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs))['params']
    leaves = jax.tree.leaves(shapes)
    assert sum(leaf.size for leaf in leaves) == count
    stacked = len(jax.tree.leaves(shapes['layers']))
    assert len(leaves) - stacked + depth * stacked == tensors
  for model, count in (
    (WanAutoencoder(), 126_892_531),
    (WanAutoencoder(160, 256, 48, patch=2, shortcuts=True), 704_688_668),
  ):
    side = model.compression[1]
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 5, side, side, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nn.unbox(shapes))) == count


def test_every_parameter_is_trained_and_the_stream_is_float32_in_bfloat16(model_and_params):
  model, params, (latents, times, ports), _ = model_and_params
  low = model.clone(dtype=jnp.bfloat16, remat='full')

  def loss(params):
    velocity, tokens = low.apply({'params': params}, latents, times, ports, 2)
    assert velocity.dtype == tokens.dtype == jnp.float32
    return jnp.mean(velocity**2)

  gradients = jax.jit(jax.grad(loss))(params)
  assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_scores_depend_on_distances_alone():
  numbers = np.random.default_rng(0)
  q, k = numbers.standard_normal((2, 24))
  sizes = 5, 3, 4
  rotation = make_rotation(sizes, 24)
  rows = [np.asarray(rotate(jnp.tile(x, (1, 60, 1, 1)), rotation))[0, :, 0] for x in (q, k)]
  scores = (rows[0] @ rows[1].T).reshape(*sizes, *sizes)
  # From (0, 0, 1) to (2, 1, 2) as from (1, 1, 0) to (3, 2, 1).
  np.testing.assert_allclose(scores[0, 0, 1, 2, 1, 2], scores[1, 1, 0, 3, 2, 1], atol=1e-5)
  assert abs(scores[0, 0, 1, 2, 1, 2] - scores[2, 1, 2, 0, 0, 1]) > 1e-2


def test_waves_are_exact():
  times = np.float32([0, 0.5, 1, 437.25, 999.875, 1000])
  frequencies = 10000.0 ** (-np.arange(128) / 128)
  angles = times.astype(np.float64)[:, None] * frequencies
  expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
  np.testing.assert_allclose(waves(jnp.asarray(times), 256), expected, rtol=0, atol=2e-6)


@pytest.fixture(scope='module', params=[*oracle.AUTOENCODERS])
def autoencoder(request):
  known = vectors(request.param)
  model = WanAutoencoder(**oracle.AUTOENCODERS[request.param])
  rows = wan_names.autoencoder_rows(model)
  video = jnp.asarray(oracle.draw_video(request.param, 5))
  params = imported(rows, tensors_of(known), model, video)
  return request.param, model, params, known


@pytest.mark.parametrize('frames', oracle.FRAMES)
def test_latents_and_pixels_are_those_of_diffusers(autoencoder, frames):
  name, model, params, known = autoencoder
  latents = jax.jit(lambda params, x: encode(model, params, x))(
    params, jnp.asarray(oracle.draw_video(name, frames))
  )
  np.testing.assert_allclose(latents, known[f'encode_{frames}'], rtol=0, atol=WITHIN)
  pixels = jax.jit(lambda params, x: decode(model, params, x))(
    params, jnp.asarray(oracle.draw_latents(name, frames))
  )
  assert pixels.shape[1] == frames
  np.testing.assert_allclose(
    np.asarray(pixels).reshape(-1)[::35], known[f'decode_{frames}'], rtol=0, atol=WITHIN
  )


def test_chunks_do_not_show_in_a_clip(autoencoder):
  name, model, params, _ = autoencoder
  latents = jnp.asarray(oracle.draw_latents(name, 13))
  apply = jax.jit(model.apply, static_argnames=('method', 'is_first', 'mutable'))
  variables = {'params': params}
  parts = []
  for begin, end in ((0, 1), (1, 3), (3, 4)):  # not by one, as `decode` goes
    part, memory = apply(
      variables, latents[:, begin:end], is_first=begin == 0, method='decode_chunk', mutable='frames'
    )
    variables = {'params': params, **memory}
    parts.append(part)
  whole = jax.jit(lambda params, x: decode(model, params, x))(params, latents)
  np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, rtol=0, atol=WITHIN)


def test_clips_of_other_lengths_are_refused():
  with pytest.raises(DataError, match=r'8 frames; expected 1 \+ 4 k, as 5 or 9'):
    WanAutoencoder().latent_shape((8, 16, 24))
