"""A middle layer learns features of the frozen autoencoder, and what that takes is left behind."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.api import load, train
from mgjax.apps.weights.import_export import export_weights
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.tree import named_leaves
from mgjax.flow.objective import make_objective
from mgjax.models.clip.towers import make_clip_vision
from mgjax.models.flow_model.alignment import Alignment, Projector, align, make_features
from mgjax.registry import make_spec
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.clip.pipeline import make_patches
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests import tiny

pytestmark = pytest.mark.usefixtures('on_one_device')

CLIP = 'solids/objects'
ALIGNED = {'features': 'decoder', 'layer': 1, 'weight': 0.5, 'gamma': 0.6}


def aligned(runs, alignment=(), **changes):
  config = tiny.video(runs, **changes)
  config.objective.alignment = {**ALIGNED, **dict(alignment)}
  return config


def test_the_loss_has_the_cosine_between_what_is_told_and_the_features_of_clean_latents():
  rows, sizes, width = 3, (2, 4, 4), 5
  latents = np.random.default_rng(0).normal(size=(rows, *sizes, width)).astype(np.float32)
  tokens = np.random.default_rng(1).normal(size=(rows, 32, 7)).astype(np.float32)
  projector = Projector(width)
  params = projector.init(jax.random.key(0), jnp.asarray(tokens), sizes)['params']
  settings = Alignment(features='latents', layer=1, weight=0.25, gamma=0.6)

  def predict(x, time, batch, drop, layer):
    assert layer == 1
    return jnp.zeros_like(x), projector.apply({'params': params}, jnp.asarray(tokens), sizes)

  plain = make_objective(dropout={})
  features, count = make_features(settings, _Codec(width), (1, 1, 1))
  objective = align(plain, settings, features)
  batch, key = {'latents': jnp.asarray(latents)}, jax.random.key(3)
  loss, metrics = jax.jit(functools.partial(objective, predict))(batch, key)
  without, _ = jax.jit(functools.partial(plain, lambda *args: predict(*args, 1)[0]))(batch, key)

  # The oracle, in float64: a convolution of every frame with zeros around it.
  bias, kernel = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(nn.unbox(params)))
  frames = tokens.reshape(rows, *sizes, 7).astype(np.float64)
  frames = np.pad(frames, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
  told = bias + sum(
    frames[:, :, i : i + 4, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3)
  )
  told, wanted = told.reshape(rows, 32, width), latents.reshape(rows, 32, width).astype(np.float64)
  wanted = (wanted - 0.6 * wanted.mean(1, keepdims=True)) / wanted.std(1, keepdims=True)
  norms = np.linalg.norm(told, axis=-1) * np.linalg.norm(wanted, axis=-1)
  cosine = ((told * wanted).sum(-1) / norms).mean()
  assert count == width
  np.testing.assert_allclose(metrics['similarity'], cosine, atol=1e-6)
  np.testing.assert_allclose(loss, without + 0.25 * (1 - cosine), rtol=1e-6)


def test_features_of_the_decoder_are_what_it_enlarges(tiny_runs):
  codec = load_codec(tiny_runs / 'autoencoder')
  latents = jax.random.normal(jax.random.key(0), (2, 1, 4, 4, codec.model.latent_channels))
  features = jax.jit(codec.features)
  found = features(codec.params, latents)
  assert found.shape == (2, 1, 4, 4, codec.model.widths[-1])
  # Of nothing but the first part of the decoder, of which the rest can be anything.
  changed = {**codec.params, 'decoder': dict(codec.params['decoder'])}
  changed['decoder']['conv_out'] = jax.tree.map(lambda x: x + 1, changed['decoder']['conv_out'])
  np.testing.assert_array_equal(features(changed, latents), found)
  changed['decoder']['conv_in'] = jax.tree.map(lambda x: x + 1, changed['decoder']['conv_in'])
  assert not np.array_equal(features(changed, latents), found)


def test_features_of_a_clip_are_states_of_its_patches_where_the_tokens_are(tiny_runs, tmp_path):
  codec, (see, tower) = load_codec(tiny_runs / 'autoencoder'), make_patches(CLIP)
  features, _ = make_features(Alignment(features=CLIP), codec, (1, 2, 2), see, tower)
  latents = jax.random.normal(jax.random.key(0), (1, 2, 16, 16, codec.model.latent_channels))
  # Of 64 px: a token for each of 8 x 8 patches.
  video = jax.jit(codec.decode_tile)(codec.params, latents)[0]
  vision = make_clip_vision(fields_of(read_config(CLIP), 'model')['vision'])
  states, _ = jax.jit(vision.apply)({'params': tower}, video[:: len(video) // 2] / 2 + 0.5)
  found = jax.jit(features)((codec.params, tower), latents).reshape(2, 64, -1)
  np.testing.assert_allclose(found, states[:, 1:], atol=1e-5)
  train(aligned(tiny_runs, {'features': CLIP}, train__log_every=1), tmp_path, stop_at=1)
  assert abs(tiny.metrics(tmp_path)[0]['similarity']) < 1


def test_a_run_learns_to_tell_features_and_leaves_its_projector_behind(tiny_runs, tmp_path):
  config = aligned(tiny_runs, train__steps=31, train__evaluate_every=0)
  train(config, tmp_path / 'first', stop_at=30)  # before it validates and draws samples
  rows = tiny.metrics(tmp_path / 'first')
  found = [row['similarity'] for row in rows if 'similarity' in row]
  assert len(found) == 30
  assert found[-1] > found[0] + 0.1

  # What samples, what is exported and what goes on does without.
  clips = load(tmp_path / 'first').generate(['a red square'], seed=0)
  export_weights(tmp_path / 'first', tmp_path / 'out', 'workdir')
  exported, _ = load_params(tmp_path / 'out')
  assert 'alignment' not in exported
  again = load(tmp_path / 'out').generate(['a red square'], seed=0).astype(int)
  assert np.abs(again - clips).max() <= 8  # weights are exported in bfloat16
  later = tiny.video(tiny_runs, start_from=str(tmp_path / 'first'))
  state = train(later, tmp_path / 'second', stop_at=0)
  assert 'alignment' not in state.params
  kept, _ = load_params(tmp_path / 'first')
  assert jax.tree.all(
    jax.tree.map(np.array_equal, state.params, {name: kept[name] for name in state.params})
  )


def test_gradients_of_the_velocity_are_untouched_where_the_term_weighs_nothing(tiny_runs, tmp_path):
  with_it = train(aligned(tiny_runs, {'weight': 0.0}), tmp_path / 'aligned', stop_at=3)
  without = train(tiny.video(tiny_runs), tmp_path / 'plain', stop_at=3)
  one, two = (named_leaves(state.params) for state in (with_it, without))
  for name, leaf in two.items():
    np.testing.assert_allclose(one[name], leaf, atol=1e-6, err_msg=name)


def test_what_cannot_be_aligned_is_refused(tiny_runs, tmp_path):
  with pytest.raises(ConfigError, match="'pixels'; expected 'latents' or 'decoder'"):
    make_spec(aligned(tiny_runs, {'features': 'pixels'}), tmp_path)
  with pytest.raises(ConfigError, match=r'no encoder of frames at .*launch\.weights import'):
    make_spec(aligned(tiny_runs, {'features': 'runs/none'}), tmp_path)
  with pytest.raises(ConfigError, match=r'tap = 99; expected a layer, from 1 to model.depth'):
    train(aligned(tiny_runs, {'layer': 99}), tmp_path, stop_at=0)


class _Codec:
  """As much of an autoencoder as `make_features` asks."""

  def __init__(self, channels):
    self.model, self.params = type('Model', (), {'latent_channels': channels}), {}
