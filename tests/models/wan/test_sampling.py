"""Wan samples as diffusers does: schedules, solvers, guidance and decoded pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.flow.schedules import make_time_grid
from mgjax.flow.solvers import make_steps
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.models.flow_model.sampling import NEGATIVE, Stepwise, make_generate
from mgjax.models.tae import wan_names
from mgjax.models.tae.latents import Statistics
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.models.tae.wan_codec import WanCodec
from mgjax.models.wan import names
from tests.models.wan.test_wan import imported, tensors_of, vectors
from tests.oracles import wan as oracle

TEXT = {'kind': 'text_states', 'encoder': 'umt5', 'features': oracle.TEXT, 'length': 7}


@pytest.fixture(scope='module')
def wan():
  """Model, parameters, batch and noise of the oracle's pipeline."""
  fields = {**oracle.PIPELINE['transformer'], 'text_dim': oracle.TEXT, 'kind': 'wan'}
  model = make_flow_model({**fields, 'conditionings': {'text': TEXT}})
  _, time, batch, _ = small_inputs(model, 4)
  noise, text = oracle.draw_pipeline()
  ports = model.bind({'params': {'text': {'null': jnp.zeros(oracle.TEXT)}}}).read(
    batch, {}, 1, noise.shape[1:]
  )
  tensors = tensors_of(vectors('pipeline'))
  backbone = imported(
    names.ROWS, tensors, model.backbone.clone(parent=None), noise[:, :1, :2, :2], time, ports
  )
  batch = {'text_umt5': text[:1], NEGATIVE + 'text_umt5': text[1:]}
  params = {'backbone': backbone, 'text': {'null': jnp.full(oracle.TEXT, 9.0)}}
  return model, params, batch, jnp.asarray(noise)


@pytest.fixture(scope='module')
def codec():
  model = WanAutoencoder(**oracle.AUTOENCODERS['wan_2_1'])
  rows = wan_names.autoencoder_rows(model)
  video = jnp.asarray(oracle.draw_video('wan_2_1', 5))
  params = imported(rows, tensors_of(vectors('wan_2_1')), model, video)
  return WanCodec(model, params, Statistics.neutral(4))


def sampler(model, solver, times, make=make_generate, guidance=oracle.PIPELINE['guidance']):
  return make(model, solver=solver, times=times, guidance=(('text', guidance),))


def grid(name):
  return make_time_grid(name, oracle.PIPELINE['steps'], shift_factor=oracle.PIPELINE['shift'])


@pytest.mark.parametrize('solver', oracle.SCHEDULERS)
def test_pixels_are_those_of_diffusers(wan, codec, solver):
  model, params, batch, noise = wan
  known = vectors('pipeline')
  # Its Euler method has a grid of its own.
  times = grid('diffusers') if solver == 'unipc' else 1 - known['euler_levels'].astype(float)
  latents = sampler(model, solver, times)(params, batch, noise)
  pixels = (codec.decode_tile(codec.params, latents) + 1) / 2
  np.testing.assert_allclose(
    np.asarray(pixels).reshape(-1)[::35], known[f'{solver}_pixels'], rtol=0, atol=2e-5
  )


def test_noise_levels_are_those_of_diffusers():
  levels = [row.level for row in make_steps('unipc').rows(grid('diffusers'))]
  known = vectors('pipeline')['unipc_levels']
  assert known[-1] == 0 and np.array_equal(np.float32(levels), known[:-1])


def test_times_are_told_in_whole_numbers_of_the_published_samplers():
  # Of 40 steps with shift 12, by the code of Wan and of diffusers; all are below 1000.
  told = {
    name: make_steps('unipc').rows(make_time_grid(name, 40, shift_factor=12.0)) for name in TOLD
  }
  for name, known in TOLD.items():
    times = np.array([1000 * (1 - row.time) for row in told[name]])
    assert times[[0, 20, -1]].round().tolist() == known
    np.testing.assert_allclose(times, times.round(), rtol=0, atol=1e-9)


TOLD = {'wan': [999, 922, 235], 'diffusers': [999, 923, 242]}


def test_unipc_step_by_step_is_the_whole_loop(wan):
  model, params, batch, noise = wan
  times = grid('wan')
  whole = sampler(model, 'unipc', times)(params, batch, noise)
  guidance = (('text', oracle.PIPELINE['guidance']),)
  seen = []
  steps = Stepwise(model, solver='unipc', guidance=guidance)
  latents = steps(params, batch, noise, times, guidance, lambda *args: seen.append(args))
  np.testing.assert_allclose(latents, whole, rtol=0, atol=1e-5)
  assert [(number, total) for number, total, _ in seen] == [(n, 6) for n in range(1, 7)]
  np.testing.assert_allclose(seen[-1][2], latents, rtol=0, atol=1e-6)  # nothing is left


def test_dropped_text_and_no_text_read_the_empty_prompt(wan):
  model, params, batch, noise = wan
  time = jnp.full(1, 0.5)
  apply = jax.jit(lambda batch, drop: model.apply({'params': params}, noise, time, batch, drop))
  text = {'text_umt5': batch['text_umt5']}
  empty = np.zeros_like(text['text_umt5'])
  null = empty.copy()
  null[:, 0] = 9.0
  dropped = apply(text, {'text': jnp.ones(1, bool)})
  for states in (empty, null):
    np.testing.assert_array_equal(
      apply({'text_umt5': states}, {'text': jnp.zeros(1, bool)}), dropped
    )
  assert np.abs(apply(text, {'text': jnp.zeros(1, bool)}) - dropped).max() > 1e-2
