"""A step over eight devices is the step of one: losses, gradients and two updates, every model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgjax.core.tree import named_leaves
from mgjax.flow.objective import make_objective
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.codec import objective
from mgjax.models.codec.discriminators import Discriminators
from mgjax.models.codec.model import Codec
from mgjax.models.conditioning.byte_text import ByteText
from mgjax.models.conditioning.frame_features import FrameFeatures
from mgjax.models.conditioning.known_latents import KnownLatents
from mgjax.models.conditioning.text_states import TextStates
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.tae import objective as tae_objective
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.discriminator import Discriminator
from mgjax.models.wan.transformer import WanTransformer
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import PRESETS
from mgjax.parallel.shard import parameter_shardings, put_batch
from mgjax.sections.audio.masking import make_masked_objective
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.settings import OptimizerSettings
from mgjax.training.spec import Adversary
from mgjax.training.state import start_discriminator, start_state
from mgjax.training.step import make_step
from tests.random_parameters import random_parameters

RATE = 0.1
# Sums of at most 8 rows x 32 tokens of gradients, each some 400 roundings a layer deep, in another
# order: roundings of either sign add like their square root.
TOLERANCE = float(np.sqrt(8 * 32 * 3 * 400) * np.finfo(np.float32).eps)

MESHES = {
  'single': {'data': 8},
  'fsdp': {'slice': 2, 'fsdp': 4},
  'fsdp_tp': {'fsdp': 2, 'tensor': 4},
  'fsdp_cp': {'fsdp': 2, 'context': 4},
  'fsdp_tp_cp': {'fsdp': 2, 'context': 2, 'tensor': 2},
}
# 27 tokens and 7 bytes of text divide by nothing; 4 heads divide by 4.
QUICK = [('fsdp_cp', 'ring'), ('fsdp_tp_cp', 'auto')]
SLOW = [
  *((rules, 'auto') for rules in PRESETS if (rules, 'auto') not in QUICK),
  ('fsdp_cp', 'gather'),
  ('fsdp_tp_cp', 'ring'),
]


def video_model(exchange='auto', remat='nothing'):
  text = ByteText(32, width=16, depth=1, heads=2, length=7, name='text')
  how = {'exchange': exchange, 'remat': remat, 'depthwise': True}
  backbone = Transformer(32, 2, 4, 48, (3, 3, 3), **how, name='backbone')
  return FlowModel(backbone, (text,))


def video_batch():
  rng = np.random.default_rng(0)
  latents = rng.normal(size=(8, 3, 6, 6, 4)).astype(np.float32)
  return {'latents': latents, 'text': rng.integers(1, 200, (8, 7)).astype(np.int32)}


def wan_model(**how):
  text = TextStates('umt5', features=8, length=5, name='text')
  backbone = WanTransformer(32, 2, 4, 48, channels_out=4, text_dim=8, name='backbone', **how)
  return FlowModel(backbone, (text,))


def wan_batch():
  rng = np.random.default_rng(2)
  text = rng.normal(size=(8, 5, 8)).astype(np.float32)
  return {'latents': video_batch()['latents'], 'text_umt5': text}


def wan_inputs():
  batch = jax.tree.map(jnp.asarray, wan_batch())
  return batch['latents'], jnp.zeros(8), {'text_umt5': batch['text_umt5']}, {}


def audio_model():
  backbone = Transformer(32, 2, 4, 48, (7, 1, 1), (1, 1, 1), feed_forward='gelu', name='backbone')
  text = ByteText(32, width=16, depth=1, heads=2, length=7, name='text')
  context, video = KnownLatents(32, name='context'), FrameFeatures(32, 6, name='video')
  return FlowModel(backbone, (context, text, video))


def audio_batch():
  """Seven latents, of which no mesh makes equal parts."""
  rng = np.random.default_rng(1)
  return {
    'latents': rng.normal(size=(8, 7, 1, 1, 4)).astype(np.float32),
    'frame_features': rng.normal(size=(8, 7, 6)).astype(np.float32),
    'text': rng.integers(1, 200, (8, 7)).astype(np.int32),
  }


def audio_inputs():
  batch = jax.tree.map(jnp.asarray, audio_batch())
  return batch['latents'], jnp.zeros(8), batch | {'context': batch['latents']}, {}


def autoencoder():
  return Autoencoder(4, widths=(8,), strides=((2, 2, 2),), blocks=0, groups=4)


def autoencoder_batch():
  return {'video': np.random.default_rng(0).uniform(-1, 1, (8, 3, 8, 8, 3)).astype(np.float32)}


def video_inputs():
  batch = video_batch()
  return jnp.asarray(batch['latents']), jnp.zeros(8), {'text': jnp.asarray(batch['text'])}, {}


def autoencoder_inputs():
  return jnp.asarray(autoencoder_batch()['video']), jax.random.key(0)


FLOW = make_objective(dropout={'text': 0.5})
DROPOUT = {'text': 0.3, 'video': 0.3, 'context': 0.0}
MASKED = make_masked_objective(make_objective(dropout=DROPOUT, drop_all_probability=0.2))
PIXELS = tae_objective.make_objective(tae_objective.LossWeights())


def two_steps(model, objective, params, batch):
  """Returns the losses and gradients of two steps of plain descent, and the parameters after."""
  optimizer = optax.chain(optax.trace(0.0), optax.scale(-RATE))  # its state is the gradient
  step = jax.jit(make_step(model, objective, optimizer, seed=0, decay=0.9))
  state, found = start_state(params, optimizer), []
  for _ in range(2):
    state, metrics = step(state, batch)
    found.append((float(metrics['loss']), state.opt_state[0].trace))
  return found, state.params


def sharded_steps(model, objective, start, batch, inputs, rules):
  mesh = make_mesh(MESHES[rules], rules)
  boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
  params = jax.tree.map(jax.device_put, start, parameter_shardings(boxed, mesh))
  with jax.set_mesh(mesh):
    return two_steps(model, objective, params, put_batch(batch, mesh)), params


def same(expected, found):
  (steps, params), (sharded_steps, sharded_params) = expected, found
  for number, (one, other) in enumerate(zip(steps, sharded_steps, strict=True)):
    assert other[0] == pytest.approx(one[0], rel=1e-5)
    close(one[1], other[1], f'gradient at step {number}')
  close(params, sharded_params, 'parameters')


def close(expected, found, what, more=0.0):
  expected, found = named_leaves(expected), named_leaves(found)
  largest = max(float(np.abs(leaf).max()) for leaf in expected.values())
  for name, leaf in expected.items():
    np.testing.assert_allclose(
      found[name], leaf, atol=TOLERANCE * largest + more, err_msg=f'{what}: {name}'
    )


UP = 'backbone/layers/feed_forward/up/kernel'
# Model, objective, inputs, a batch, and a kernel that is cut.
MODELS = {
  'video': (video_model, FLOW, video_inputs, video_batch, UP),
  'wan': (wan_model, FLOW, wan_inputs, wan_batch, UP),
  'audio': (audio_model, MASKED, audio_inputs, audio_batch, UP),
  'autoencoder': (
    autoencoder,
    PIXELS,
    autoencoder_inputs,
    autoencoder_batch,
    'encoder/conv_in/spatial/kernel',
  ),
}
SAVING = ('attention_and_inputs', 'attention_and_projections', 'offload')


@functools.cache
def truth(kind):
  """Parameters to begin with, and the steps of one device."""
  model, objective, inputs, batch, _ = MODELS[kind]
  params = random_parameters(model().init, *inputs())
  return params, two_steps(model(), objective, params, jax.tree.map(jnp.asarray, batch()))


@pytest.mark.parametrize(
  ('kind', 'rules', 'how'),
  [
    *(('video', rules, {'exchange': exchange}) for rules, exchange in QUICK),
    ('autoencoder', 'fsdp_tp_cp', {}),
    ('wan', 'fsdp_tp_cp', {'exchange': 'ring'}),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in (
        *(('video', rules, {'exchange': exchange}) for rules, exchange in SLOW),
        *(('video', 'fsdp_cp', {'remat': remat}) for remat in SAVING),
        *(('wan', rules, {'exchange': 'ulysses'}) for rules in ('fsdp', 'fsdp_cp', 'fsdp_tp_cp')),
        *(('audio', rules, {}) for rules in ('fsdp', 'fsdp_tp_cp')),
        ('autoencoder', 'fsdp', {}),
      )
    ),
  ],
)
def test_sharded_steps_are_the_unsharded_ones(kind, rules, how):
  model, objective, inputs, batch, cut = MODELS[kind]
  start, expected = truth(kind)
  found, params = sharded_steps(model(**how), objective, start, batch(), inputs(), rules)
  assert named_leaves(params)[cut].is_fully_replicated == (rules == 'single')
  same(expected, found)


def opponent_of_videos():
  weights = tae_objective.LossWeights(adversarial=0.5)
  return Adversary(
    model=Discriminator(widths=(8, 8), groups=4),
    inputs=(jnp.zeros((1, 1, 8, 8, 3)),),
    generator_objective=tae_objective.make_adversarial_objective(weights),
    objective=tae_objective.make_discriminator_objective(weights),
    optimizer=OptimizerSettings(learning_rate=RATE),
    start=0,
  )


def codec():
  return Codec(width=4, strides=(2,), latent_channels=3, decoder_width=8, patch=4)


def codec_batch():
  time = np.arange(1300)[:, None] / 48_000
  tones = np.linspace(300, 3000, 8)[:, None, None]
  noise = np.random.default_rng(0).normal(size=(8, 1300, 1))
  sound = 0.3 * np.sin(2 * np.pi * tones * time) + 0.1 * noise
  return {'audio': sound.astype(np.float32)}


def codec_inputs():
  return jnp.zeros((1, 8, 1)), jax.random.key(0)


def opponent_of_sounds():
  weights = objective.LossWeights(mel=0.1, features=0.1, adversarial=0.1)
  return Adversary(
    model=Discriminators(periods=(3,), period_widths=(4, 4), windows=()),
    inputs=(jnp.zeros((1, 1300, 1)),),
    generator_objective=objective.make_adversarial_objective(weights),
    objective=objective.make_discriminator_objective(),
    optimizer=OptimizerSettings(learning_rate=RATE),
    start=0,
  )


def adversarial_steps(model, discriminator, params, batch, mesh=None):
  """Returns the losses of two steps against a discriminator, and both players' parameters."""
  others = random_parameters(discriminator.model.init, *discriminator.inputs)
  if mesh is not None:
    shapes = jax.eval_shape(discriminator.model.init, jax.random.key(0), *discriminator.inputs)
    boxed = shapes['params']
    others = jax.tree.map(jax.device_put, others, parameter_shardings(boxed, mesh))
  sgd, found = optax.sgd(RATE), []
  step = jax.jit(make_adversarial_step(model, discriminator, sgd, sgd, seed=0, decay=0.9))
  state = start_state(params, sgd, start_discriminator(others, sgd))
  for _ in range(2):
    state, metrics = step(state, batch)
    found += [float(metrics['loss']), float(metrics['discriminator_loss'])]
  return found, {'player': state.params, 'discriminator': state.discriminator['params']}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('model', 'inputs', 'batch', 'discriminator', 'cut'),
  [
    (autoencoder, autoencoder_inputs, autoencoder_batch, opponent_of_videos, 'videos/spatial_1'),
    (codec, codec_inputs, codec_batch, opponent_of_sounds, 'period_3/conv_1'),
  ],
  ids=['autoencoder', 'codec'],
)
def test_sharded_steps_of_two_players_are_the_unsharded_ones(
  model, inputs, batch, discriminator, cut
):
  start = random_parameters(model().init, *inputs())
  alone = functools.partial(adversarial_steps, batch=jax.tree.map(jnp.asarray, batch()))
  losses, expected = alone(model(), discriminator(), start)
  mesh = make_mesh(MESHES['fsdp_cp'], 'fsdp_cp')
  boxed = jax.eval_shape(model().init, jax.random.key(0), *inputs())['params']
  params = jax.tree.map(jax.device_put, start, parameter_shardings(boxed, mesh))
  with jax.set_mesh(mesh):
    sharded_losses, found = adversarial_steps(
      model(), discriminator(), params, put_batch(batch(), mesh), mesh
    )
  assert not named_leaves(found['discriminator'])[f'{cut}/kernel'].is_fully_replicated
  assert sharded_losses == pytest.approx(losses, rel=1e-5)
  # Two players that answer each other make more of a rounding than sums do: so much of one in every
  # parameter at the start, on one device.
  moved = 0.0
  for seed in range(4):
    random = np.random.default_rng(seed)
    ends = jax.tree.map(
      lambda leaf, random=random: np.float32(random.choice([-np.inf, np.inf], leaf.shape)), start
    )
    _, other = alone(model(), discriminator(), jax.tree.map(np.nextafter, start, ends))
    apart = jax.tree.map(lambda one, two: float(np.abs(one - two).max()), expected, other)
    moved = max(moved, *jax.tree.leaves(apart))
  assert moved < 1e-3
  close(expected, found, 'parameters of both', more=2 * moved)


def test_devices_share_the_work():
  """The operations of one device are an eighth of all, not those of all rows or of all tokens."""
  model, inputs = video_model(), video_inputs()
  params = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']

  def operations(mesh):
    boxed = jax.tree.map(lambda leaf: leaf, params)
    shapes = jax.eval_shape(lambda: random_parameters(model.init, *inputs))
    if mesh is None:
      lowered = jax.jit(gradient).lower(shapes, *inputs)
    else:
      placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        parameter_shardings(boxed, mesh),
      )
      with jax.set_mesh(mesh):
        lowered = jax.jit(gradient).lower(placed, *inputs)
    return lowered.compile().cost_analysis()['flops']

  def gradient(params, *inputs):
    return jax.grad(lambda params: model.apply({'params': params}, *inputs).sum())(params)

  whole = operations(None)
  assert operations(make_mesh(MESHES['fsdp_cp'])) < 0.3 * whole
