"""The loss is the paper's, and the draws behind it are what the docstring says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.flow import objective as objectives
from mgjax.flow import path, times

SHAPE = (6, 2, 4, 4, 3)
KEY = jax.random.key(3)
EPS = np.finfo(np.float32).eps


def _batch(shape=SHAPE):
  latents = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  return {'latents': jnp.asarray(latents), 'label': jnp.arange(shape[0], dtype=jnp.float32)}


def _toy(x, time, batch, drop):
  """A velocity that every input moves."""
  label = jnp.where(drop['label'], 0.0, batch['label'])
  return 0.3 * x + (time + 0.1 * label)[:, None, None, None, None]


def _record(seen):
  """Returns a model that answers zero and keeps what it was given."""

  def predict(x, time, batch, drop):
    seen.append({'x': x, 'time': time, 'drop': drop, 'batch': batch})
    return jnp.zeros_like(x)

  return predict


@pytest.mark.parametrize(
  'sigma_min, min_snr, places', [(1e-5, 0.0, 0), (0.1, 0.0, 0), (1e-5, 5.0, 0), (1e-5, 1.0, 8)]
)
def test_loss_is_the_numpy_twins(sigma_min, min_snr, places):
  objective = objectives.make_objective(
    dropout={'label': 0.5}, prediction=path.FlowMatching(sigma_min), min_snr=min_snr, places=places
  )
  loss, metrics = jax.jit(objective, static_argnums=0)(_toy, _batch(), KEY)

  time_key, noise_key, drop_key = jax.random.split(KEY, 3)
  t = np.asarray(times.logit_normal(time_key, (6,)), np.float64)[:, None, None, None, None]
  if places:  # of 32, the logit falls by log 2
    t = 1 / (1 + np.exp(-(np.log(t / (1 - t)) - np.log(np.sqrt(32 / places)))))
  noise = np.asarray(jax.random.normal(noise_key, SHAPE), np.float64)
  dropped = np.asarray(objectives.draw_drop(drop_key, {'label': 0.5}, 6)['label'])
  data = np.asarray(_batch()['latents'], np.float64)
  label = np.where(dropped, 0, np.arange(6))[:, None, None, None, None]
  x = t * data + (1 - (1 - sigma_min) * t) * noise
  error = 0.3 * x + t + 0.1 * label - (data - (1 - sigma_min) * noise)
  weight = 1.0
  if min_snr:  # of the error of X_1, which is 1 - t times that of the velocity
    weight = np.minimum((t / (1 - t)) ** 2, min_snr) * (1 - t) ** 2
  # Roundings of x, the model and the target, then of a sum over a tree of 576.
  np.testing.assert_allclose(loss, np.mean(weight * error**2), rtol=20 * EPS)
  np.testing.assert_array_equal(loss, metrics['loss'])
  assert 0 < dropped.sum() < 6


def test_loss_is_float32_for_a_bfloat16_model():
  objective = objectives.make_objective(dropout={})
  exact, _ = objective(lambda x, *_: 0 * x, _batch(), KEY)
  loss, _ = objective(lambda x, *_: (0 * x).astype(jnp.bfloat16), _batch(), KEY)
  assert loss.dtype == jnp.float32
  np.testing.assert_array_equal(loss, exact)


def test_drop_rates_are_the_configured_ones():
  count = 4096
  masks = objectives.draw_drop(KEY, {'text': 0.1, 'video': 0.4, 'never': 0.0, 'always': 1.0}, count)
  for name, rate in (('text', 0.1), ('video', 0.4)):
    assert abs(np.mean(masks[name]) - rate) < 4 * np.sqrt(rate * (1 - rate) / count)
  assert not masks['never'].any() and masks['always'].all()
  # Independent: both drop together at the product of the rates.
  both = np.mean(masks['text'] & masks['video'])
  assert abs(both - 0.04) < 4 * np.sqrt(0.04 * 0.96 / count)


def test_another_conditioning_changes_no_other_draw():
  few, many = [], []
  objectives.make_objective(dropout={'text': 0.5})(_record(few), _batch(), KEY)
  dropout = {'face': 0.5, 'text': 0.5}
  objectives.make_objective(dropout=dropout)(_record(many), _batch(), KEY)
  np.testing.assert_array_equal(few[0]['x'], many[0]['x'])
  np.testing.assert_array_equal(few[0]['time'], many[0]['time'])
  np.testing.assert_array_equal(few[0]['drop']['text'], many[0]['drop']['text'])


def test_predict_sees_the_masks_and_the_whole_batch():
  seen = []
  objectives.make_objective(dropout={'label': 1.0})(_record(seen), _batch(), KEY)
  assert seen[0]['drop']['label'].shape == (6,) and seen[0]['drop']['label'].all()
  assert set(seen[0]['batch']) == {'latents', 'label'}
  assert seen[0]['time'].shape == (6,) and seen[0]['time'].dtype == jnp.float32


def test_draws_depend_on_the_key_and_not_on_the_contents():
  first, other = [], []
  objective = objectives.make_objective(dropout={'label': 0.5})
  zeros = jax.tree.map(jnp.zeros_like, _batch())
  for seen, key in ((first, KEY), (other, jax.random.key(4))):
    objective(_record(seen), _batch(), key)
    objective(_record(seen), zeros, key)
    np.testing.assert_array_equal(seen[0]['time'], seen[1]['time'])
    np.testing.assert_array_equal(seen[0]['drop']['label'], seen[1]['drop']['label'])
  assert not np.any(first[0]['time'] == other[0]['time'])


def test_validation_times_can_be_fixed():
  seen = []
  objective = objectives.make_objective(dropout={}, sample_time=times.stratified)
  objective(_record(seen), _batch(), KEY)
  np.testing.assert_allclose(seen[0]['time'], (np.arange(6) + 0.5) / 6, rtol=1e-6)


def test_sound_and_other_data_keys_are_welcome():
  batch = {'audio': jnp.ones((2, 10, 4), jnp.bfloat16)}
  loss, _ = objectives.make_objective(dropout={}, data='audio')(lambda x, *_: x, batch, KEY)
  assert np.isfinite(loss) and loss.dtype == jnp.float32


def test_errors_say_what_is_wrong():
  with pytest.raises(ConfigError, match=r"'text' is 1\.5"):
    objectives.make_objective(dropout={'text': 1.5})
  objective = objectives.make_objective(dropout={})
  with pytest.raises(DataError, match="no 'latents', it has video"):
    objective(_toy, {'video': jnp.zeros((1, 2))}, KEY)
  with pytest.raises(ValueError, match='predict returned'):
    objective(lambda x, *_: x[..., :1], _batch(), KEY)
