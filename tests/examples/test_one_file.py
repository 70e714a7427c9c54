"""What examples/movie_gen_in_one_file.py computes is what the library computes."""

import ast
import functools
import importlib
import pathlib
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import AxisType

from mgjax.flow.guidance import make_guided
from mgjax.flow.objective import make_objective
from mgjax.flow.sample import sample
from mgjax.flow.schedules import linear_quadratic
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.word_text import WordText
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.tae.autoencoder import Autoencoder, Posterior
from mgjax.models.tae.objective import LossWeights
from mgjax.models.tae.objective import make_objective as make_reconstruction
from mgjax.models.text.words import word_tokens
from mgjax.training.optimizers.optimizer import make_optimizer
from mgjax.training.settings import OptimizerSettings
from mgjax.training.state import State, start_average
from mgjax.training.step import make_step
from tests.binaries import python
from tests.random_parameters import random_parameters

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
PATH = CHECKOUT / 'examples/movie_gen_in_one_file.py'
SMALL = {
  'DIM': 32,
  'DEPTH': 2,
  'HEADS': 4,
  'HIDDEN': 48,
  'TEXT': 16,
  'VOCABULARY': 64,
  'LATENT': 4,
  'WIDTH': 16,
  'PATCH': {'dt': 1, 'dh': 2, 'dw': 2},
}
ROWS, RATE, SAME = 8, 1e-3, 1e-5
CAPTIONS = ('a red ball', 'a large blue cube slides left', '', 'no ' * 20)
# Paths of parameters in the file -> in the library.
OF_FLOW = (
  (r'^(?!text/)', 'backbone/'),
  (r'^backbone/(time|positions)_', r'backbone/\1/'),
  (r'^text/(self|feed)', r'text/layer_0/\1'),
)
OF_AUTOENCODER = (
  (r'/middle/block_', '/middle_block_'),
  (r'/middle/(spatial|temporal)_norm', r'/middle_attention/\1_norm'),
  (r'/middle/(spatial|temporal)/', r'/middle_attention/\1_'),
  (r'_down_', '_down/'),
  (r'_up/', '_up/conv/'),
)


@pytest.fixture(scope='module')
def one():
  """The file as a module of smaller sizes, without its flags, whose names commands have too."""
  defined = [name for name in dir(flags) if name.startswith('DEFINE_')]
  with mock.patch.multiple(flags, **{name: mock.Mock() for name in defined}):
    module = importlib.import_module('examples.movie_gen_in_one_file')
  with mock.patch.multiple(module, **SMALL):
    yield module


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def renamed(params, rules):
  found = {}
  for path, leaf in flatten_dict(params, sep='/').items():
    for pattern, name in rules:
      path = re.sub(pattern, name, path)
    found[path] = leaf
  return unflatten_dict(found, sep='/')


def of_library(params):
  """The parameters of a flow model; the library's text encoder has a convolution more."""
  params = renamed(params, OF_FLOW)
  size = SMALL['TEXT']
  params['text']['words'] = {'kernel': np.zeros((7, size, size)), 'bias': np.zeros(size)}
  return jax.tree.map(jnp.float32, params)


def mesh(data, fsdp):
  devices = jax.devices()[: data * fsdp]
  return jax.make_mesh((data, fsdp), ('data', 'fsdp'), (AxisType.Auto,) * 2, devices=devices)


@pytest.fixture(scope='module')
def rows(one):
  tokens = np.stack([one.read_words(CAPTIONS[row % len(CAPTIONS)]) for row in range(ROWS)])
  return draw(ROWS, 2, 4, 4, SMALL['LATENT']), tokens


@pytest.fixture(scope='module')
def params(one, rows):
  latents, tokens = rows
  return random_parameters(
    one.FlowModel().init, latents, jnp.ones(ROWS), tokens, jnp.ones(ROWS, bool)
  )


@pytest.fixture(scope='module')
def library(one):
  sizes = {'dim': one.DIM, 'depth': one.DEPTH, 'heads': one.HEADS, 'mlp_dim': one.HIDDEN}
  text = WordText(
    dim=one.DIM, width=one.TEXT, depth=1, length=one.WORDS, vocabulary=one.VOCABULARY, name='text'
  )
  return FlowModel(Transformer(positions=(2, 2, 2), **sizes), (text,))


def test_a_person_reads_it_in_a_quarter_of_an_hour():
  text = PATH.read_text()
  assert len(text.splitlines()) <= 450
  nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
  ours = {node.module for node in nodes if node.module.startswith('mgjax')}
  assert ours == {'mgjax.data.synthetic_datasets', 'mgjax.data.media.viewing'}


def test_words_are_the_tokens_of_word_text(one):
  for text in CAPTIONS:
    tokens = word_tokens(text, one.WORDS, one.VOCABULARY)
    np.testing.assert_array_equal(one.read_words(text), tokens)


def test_velocities_are_those_of_the_flow_model(one, rows, params, library):
  latents, tokens = rows
  time, drop = np.linspace(0, 1, ROWS, dtype=np.float32), np.arange(ROWS) % 3 == 0
  made = jax.jit(one.FlowModel().apply)({'params': params}, latents, time, tokens, drop)
  inputs = (latents, time, {'text': tokens}, {'text': drop})
  known = jax.jit(library.apply)({'params': of_library(params)}, *inputs)
  assert np.abs(known).max() > 0.5
  np.testing.assert_allclose(made, known, atol=SAME * np.abs(known).max())


def predict(x, time, tokens, drop):
  seen = jnp.where(drop, 0, tokens.sum(1) / 50) + time
  return jnp.sin(x) * seen[:, None, None, None, None]


def predict_of_library(x, time, batch, drop):
  return predict(x, time, batch['text'], drop['text'])


@pytest.mark.parametrize('dropout', [0.0, 1.0])
def test_the_loss_is_that_of_the_objective(one, rows, dropout):
  latents, tokens = rows
  key, batch = jax.random.key(3), {'latents': latents, 'text': tokens}
  made = one.flow_loss(predict, latents, tokens, key, dropout)
  known, _ = make_objective(dropout={'text': dropout})(predict_of_library, batch, key)
  np.testing.assert_allclose(made, known, rtol=SAME)


def trained(one, rows, params, mesh):
  """Parameters after a step of the file on a mesh."""
  model = one.FlowModel()

  def loss(params, latents, tokens, key):
    predict = functools.partial(model.apply, {'params': params})
    return one.flow_loss(predict, latents, tokens, key, dropout=0.0)

  given = (lambda key: jax.tree.map(jnp.asarray, params)), loss, rows
  return jax.device_get(one.train('test', *given, ROWS, 1, RATE, mesh))


@pytest.fixture(scope='module')
def unsharded(one, rows, params):
  return trained(one, rows, params, mesh(1, 1))


def same_but_for_signs(made, known):
  """A first step of Adam is the gradient's sign, which rounding decides where it is near zero."""
  made, known = (flatten_dict(tree, sep='/') for tree in (made, known))
  assert set(made) <= set(known)
  wrong = sum(np.sum(np.abs(made[path] - known[path]) > SAME) for path in made)
  assert wrong <= 1e-3 * sum(leaf.size for leaf in made.values())


def test_a_training_step_is_that_of_the_library(rows, params, library, unsharded):
  latents, tokens = rows
  chosen = np.random.default_rng(0).integers(ROWS, size=ROWS)
  settings = OptimizerSettings(learning_rate=RATE, schedule='cosine', weight_decay=0.0)
  optimizer, start = make_optimizer(settings, 1), of_library(params)
  step = make_step(library, make_objective(dropout={'text': 0.0}), optimizer, seed=0, decay=0.5)
  state = State(jnp.int32(0), start, optimizer.init(start), start_average(start))
  state, _ = jax.jit(step)(state, {'latents': latents[chosen], 'text': tokens[chosen]})
  made = renamed(unsharded, OF_FLOW)
  same_but_for_signs(made, state.params)
  for name in ('patch_in', 'patch_out'):
    moved = made['backbone'][name]['kernel'] - start['backbone'][name]['kernel']
    assert np.median(np.abs(moved)) > 0.9 * RATE


def test_sharded_is_unsharded(one, rows, params, unsharded):
  same_but_for_signs(trained(one, rows, params, mesh(2, 4)), unsharded)
  lies = [
    one.sharding_of(mesh(2, 4), jnp.zeros(shape)).spec for shape in ((3, 32, 48), (6, 9), (32,))
  ]
  assert [tuple(each) for each in lies] == [(None, None, 'fsdp'), (), ()]


@pytest.mark.parametrize('steps', [4, 50])
def test_times_are_those_of_the_schedule(one, steps):
  np.testing.assert_allclose(one.linear_quadratic(steps), linear_quadratic(steps), atol=1e-12)


def test_samples_are_those_of_the_guided_sampler(one, rows):
  noise, tokens = rows
  times = linear_quadratic(6)
  made = one.sample(predict, tokens, noise, 4.0, times)
  velocity = make_guided(predict_of_library, {'text': tokens}, (('text', 4.0),))
  np.testing.assert_allclose(made, sample(velocity, noise, times), atol=SAME)


def test_the_autoencoder_is_the_temporal_autoencoder(one):
  video = jnp.tanh(draw(2, 16, 16, 24, 3))
  model, key = one.Autoencoder(), jax.random.key(0)
  params = random_parameters(model.init, video, key)
  known = Autoencoder(
    latent_channels=one.LATENT,
    widths=(one.WIDTH,) * 3,
    strides=((2, 2, 2), (2, 1, 1), (2, 1, 1)),
    blocks=0,
    groups=8,
    patch=(1, 4, 4),
    shortcut=True,
  )
  assert known.compression == (8, 8, 8)
  made, *moments = jax.jit(model.apply)({'params': params}, video, key)
  known, posterior = jax.jit(known.apply)({'params': renamed(params, OF_AUTOENCODER)}, video, key)
  of_library = known, posterior.mean, posterior.log_variance
  for ours, theirs in zip((made, *moments), of_library, strict=True):
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=SAME * np.abs(theirs).max())


def test_the_loss_of_the_autoencoder_is_the_library_s(one):
  video, made = draw(1, 2, 8, 8, 3), draw(1, 2, 8, 8, 3, seed=1)
  moments = draw(1, 2, 2, 2, 4, seed=2), draw(1, 2, 2, 2, 4, seed=3)
  objective = make_reconstruction(LossWeights(mse=10.0, kl=1e-6))
  known, _ = objective(
    lambda video, key: (made, Posterior(*moments)), {'video': video}, jax.random.key(0)
  )
  found = one.reconstruction_loss(made, *moments, video)
  np.testing.assert_allclose(found, known, rtol=SAME)


@pytest.mark.slow
def test_it_writes_an_animation(tmp_path):
  small = ('--clips=16', '--codec_steps=2', '--steps=2', '--mesh=2x4')
  said = python(PATH, *small, f'--out={tmp_path}/made.webp').stdout
  assert 'flow model: step 2 of 2' in said
  assert (tmp_path / 'made.webp').stat().st_size > 1000
