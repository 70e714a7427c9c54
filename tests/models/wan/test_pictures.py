"""Wan's models of pictures answer what those of diffusers do, from the picture to the pixels."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow.schedules import make_time_grid
from mgjax.models.clip.weights import vision_params
from mgjax.models.conditioning.ports import Known, Ports
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import prepare_samples, small_inputs
from mgjax.models.flow_model.sampling import NEGATIVE, Experts, make_generate
from mgjax.models.foreign_weights.names import export_tensors, import_tensors
from mgjax.models.tae import wan_names
from mgjax.models.tae.latents import Statistics
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.models.tae.wan_codec import WanCodec
from mgjax.models.wan import names
from mgjax.models.wan.transformer import WanTransformer
from tests.models.wan import test_wan
from tests.oracles import wan
from tests.oracles import wan_pictures as oracle
from tests.tensors import assert_same

TEXT = {'kind': 'text_states', 'encoder': 'umt5', 'features': wan.TEXT, 'length': oracle.LENGTH}
CONDITIONINGS = {
  'picture': {
    'frames': {'kind': 'frame_channels'},
    'picture': {'kind': 'picture_tokens', 'vision': {**oracle.TOWER, 'projection': None}},
  },
  'both_ends': {
    'frames': {'kind': 'frame_channels', 'first': 0.0, 'ends': 1.0},
    'picture': {
      'kind': 'picture_tokens',
      'count': 2,
      'vision': {**oracle.TOWER, 'projection': None},
    },
  },
  'channels': {'frames': {'kind': 'frame_channels'}},
  'known': {'first': {'kind': 'first_latent'}},
}
vectors = functools.partial(test_wan.vectors, path=oracle.VECTORS)


def fields_of(name):
  positions = oracle.TRANSFORMERS[name].get('positions', 0)
  channels = oracle.TRANSFORMERS[name]['channels_out']
  return oracle.SIZES | {
    'channels_out': channels,
    'text_dim': wan.TEXT,
    'picture_positions': positions,
  }


def ports_of(name):
  inputs = {key: jnp.asarray(array) for key, array in oracle.draw_inputs(name).items()}
  ports = Ports(
    context=inputs['text'],
    channels=inputs['channels'] if inputs['channels'].size else None,
    picture=inputs['picture'] if inputs['picture'].size else None,
  )
  if name == 'known':
    known = jnp.pad(inputs['known'], ((0, 0), (0, 2), (0, 0), (0, 0), (0, 0)))
    mask = jnp.zeros(oracle.LATENTS[:2], bool).at[:, 0].set(True)
    ports = ports.replace(known=Known(known, mask))
  return inputs['latents'], ports


def tensors_of(name, suffix=''):
  shapes = test_wan.shapes_in(vectors(name))
  return {key: wan.draw(key + suffix, shape) for key, shape in shapes.items()}


@pytest.fixture(scope='module', params=[*oracle.TRANSFORMERS])
def transformer(request):
  name = request.param
  model = WanTransformer(**fields_of(name))
  latents, ports = ports_of(name)
  inputs = latents, jnp.array(wan.TIMES, jnp.float32), ports
  return name, model, test_wan.imported(names.ROWS, tensors_of(name), model, *inputs), inputs


def test_velocities_are_those_of_diffusers(transformer):
  name, model, params, inputs = transformer
  known = vectors(name)['velocity']
  velocity = np.array(jax.jit(model.apply)({'params': params}, *inputs))
  if name == 'known':  # where diffusers answers something that its pipeline leaves out
    left = 1 - np.array(wan.TIMES, np.float32).reshape(-1, 1, 1, 1)
    there = (oracle.draw_inputs(name)['known'][:, 0] - inputs[0][:, 0]) / left
    np.testing.assert_allclose(velocity[:, 0], there, rtol=1e-6)
    velocity[:, 0] = known[:, 0]
  np.testing.assert_allclose(velocity, known, rtol=0, atol=test_wan.WITHIN * np.abs(known).max())


def test_all_tensors_go_in_and_out(transformer):
  name, _, params, _ = transformer
  tensors = tensors_of(name)
  assert_same(export_tensors(names.ROWS, params, dict.fromkeys(tensors, 'float32')), tensors)


def test_known_latents_of_no_row_change_nothing():
  latents, ports = ports_of('known')
  model = WanTransformer(**fields_of('known'))
  time = jnp.array(wan.TIMES, jnp.float32)
  params = test_wan.imported(names.ROWS, tensors_of('known'), model, latents, time, ports)
  apply = jax.jit(lambda ports: model.apply({'params': params}, latents, time, ports))
  nothing = ports.known.replace(mask=jnp.zeros_like(ports.known.mask))
  np.testing.assert_allclose(
    apply(ports.replace(known=nothing)),
    apply(ports.replace(known=None)),
    rtol=0,
    atol=test_wan.WITHIN,
  )


@pytest.fixture(scope='module')
def tower():
  """Parameters of the layers of CLIP that are read."""
  shapes = test_wan.shapes_in(vectors('tower'))
  tensors = {key: wan.draw(key, shape) for key, shape in shapes.items()}
  return vision_params(tensors, {**oracle.TOWER, 'projection': None})


def test_the_tower_is_read_by_the_original_names_too(tower):
  shapes = test_wan.shapes_in(vectors('tower'))
  tensors = {key: wan.draw(key, shape) for key, shape in shapes.items()}
  original = {'textual.head.0.weight': np.ones((2, 2), np.float32)}
  original |= {'visual.head': np.ones((32, 8), np.float32), 'log_scale': np.ones((), np.float32)}
  parts = {}
  for key, tensor in tensors.items():
    key = key.removeprefix('vision_model.')
    for theirs, name in ORIGINAL:
      key = re.sub(theirs, name, key)
    if match := re.fullmatch(r'(.*)\.([qkv])_proj\.(weight|bias)', key):
      parts.setdefault(f'{match[1]}.to_qkv.{match[3]}', {})[match[2]] = tensor
    else:
      leading = {'visual.cls_embedding': (1, 1), 'visual.pos_embedding': (1,)}.get(key, ())
      original[key] = tensor.reshape(*leading, *tensor.shape)
  original |= {key: np.concatenate([part[n] for n in 'qkv']) for key, part in parts.items()}
  again = vision_params(original, {**oracle.TOWER, 'projection': None})
  jax.tree.map(np.testing.assert_array_equal, again, tower)


# Names of transformers' tower and of the one that is published beside Wan 2.1.
ORIGINAL = (
  (r'^embeddings\.patch_embedding', 'visual.patch_embedding'),
  (r'^embeddings\.class_embedding', 'visual.cls_embedding'),
  (r'^embeddings\.position_embedding\.weight', 'visual.pos_embedding'),
  (r'^pre_layrnorm', 'visual.pre_norm'),
  (r'^post_layernorm', 'visual.post_norm'),
  (r'^encoder\.layers', 'visual.transformer'),
  (r'self_attn\.out_proj', 'attn.proj'),
  (r'self_attn', 'attn'),
  (r'layer_norm', 'norm'),
  (r'mlp\.fc1', 'mlp.0'),
  (r'mlp\.fc2', 'mlp.2'),
)


@pytest.mark.parametrize('name', oracle.PIPELINES)
def test_pixels_are_those_of_diffusers(name, tower):
  autoencoder, scales = oracle.PIPELINES[name]
  fields = {**fields_of(name), 'kind': 'wan'}
  model = make_flow_model({**fields, 'conditionings': {'text': TEXT, **CONDITIONINGS[name]}})
  channels = fields['channels_out']
  shapes = jax.eval_shape(model.init, jax.random.key(0), *small_inputs(model, channels))
  shapes = nn.unbox(shapes)['params']
  experts = []
  for suffix in ('', 'late')[: len(scales)]:
    tensors = tensors_of(name, suffix)
    backbone, _ = import_tensors(names.ROWS, tensors, shapes['backbone'], expected='of Wan')
    experts.append({'backbone': backbone, 'text': {'null': jnp.zeros(wan.TEXT)}})
    if name == 'picture':
      experts[-1]['picture'] = {'vision': tower}
  codec_model = WanAutoencoder(**wan.AUTOENCODERS[autoencoder])
  known = test_wan.vectors(autoencoder)
  video = jnp.asarray(wan.draw_video(autoencoder, 5))
  rows = wan_names.autoencoder_rows(codec_model)
  codec_params = test_wan.imported(rows, test_wan.tensors_of(known), codec_model, video)
  codec = WanCodec(codec_model, codec_params, Statistics.neutral(channels))

  noise, text = oracle.draw_pipeline(name)
  sample = {'first_frame': oracle.draw_picture(name), 'frames': oracle.FRAMES}
  sample |= {'embeddings': {'umt5': text[0, :5]}}
  batch = prepare_samples(model, [sample], codec.encode)
  if name == 'picture':
    states = model.bind({'params': experts[0]}).read(batch, {}, 1, noise.shape[1:]).picture
    np.testing.assert_allclose(states, vectors('tower')['states'], rtol=0, atol=1e-5)
  batch |= {'text_umt5': text[:1], NEGATIVE + 'text_umt5': text[1:]}
  since = 1 - oracle.BOUNDARY
  scale = scales[0] if len(scales) < 2 else ((scales[0], (0.0, since)), (scales[1], (since, 1.0)))
  times = make_time_grid('diffusers', oracle.STEPS, shift_factor=oracle.SHIFT)
  generate = make_generate(model, solver='unipc', times=times, guidance=(('text', scale),))
  params = experts[0] if len(experts) < 2 else Experts(*experts, since)
  latents = generate(params, batch, jnp.asarray(noise))
  pixels = (codec.decode_tile(codec.params, latents) + 1) / 2
  np.testing.assert_allclose(
    np.asarray(pixels).reshape(-1)[::35], vectors(name)['pixels'], rtol=0, atol=2e-5
  )


def test_states_of_one_picture_do_not_fit_a_table_for_two():
  latents, ports = ports_of('picture')
  model = WanTransformer(**fields_of('both_ends'))
  with pytest.raises(ConfigError, match=r'5 states of pictures; expected model\.picture_positions'):
    jax.eval_shape(model.init, jax.random.key(0), latents, jnp.zeros(2), ports)
