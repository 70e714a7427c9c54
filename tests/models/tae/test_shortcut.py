"""The autoencoder's linear shortcut starts as the principal components of blocks of its data."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.digits.autoencoder import get_config
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.tae.latents import Statistics, to_unit
from mgjax.models.tae.shortcut import blocks, components, unblock
from mgjax.sections.autoencoder.section import AutoencoderSection
from mgjax.training.checkpoints.warm_start import start_from

SHAPE = (4, 4, 4)
FIELDS = {
  'widths': (8, 8),
  'strides': ((2, 1, 1), (2, 1, 1)),
  'blocks': 0,
  'groups': 4,
  'patch': (1, 4, 4),
}


def test_components_are_those_of_an_eigenvalue_decomposition():
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(400, 60)) * np.exp(-np.arange(60) / 6) @ rng.normal(size=(60, 60))
  rows = (rows + rng.normal(size=60)).astype(np.float32)
  found = components(rows, 8)
  np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-5)
  values, vectors = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
  best = vectors[:, ::-1][:, :8].T
  # Power falls by e^(1/3) a direction: those next to the ninth are told from it last.
  np.testing.assert_allclose(np.abs(found[:4] @ best[:4].T), np.eye(4), atol=1e-3)
  kept = np.square(rows @ found.T).sum()
  assert values[::-1][:8].sum() * (1 - 1e-4) < kept < values[::-1][:8].sum() * (1 + 1e-5)


@pytest.mark.parametrize('given', [5, 50])  # fewer rows than directions too
@pytest.mark.parametrize('count', [3, 12, 20])
def test_beyond_what_there_is_rows_are_zeros(count, given):
  rows = np.random.default_rng(1).normal(size=(given, 12)).astype(np.float32)
  found = components(rows, count)
  assert found.shape == (count, 12) and not found[12:].any()
  np.testing.assert_allclose(found[:12] @ found[:12].T, np.eye(min(count, 12)), atol=1e-5)


@pytest.mark.parametrize('frames', [1, 8, 10])
def test_blocks_are_put_together_as_they_were(frames):
  clip = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, frames, 16, 16, 3)), jnp.float32)
  np.testing.assert_array_equal(unblock(blocks(clip, SHAPE), SHAPE)[:, :frames], clip)


@pytest.mark.slow
def test_training_starts_from_the_components_of_its_data(tmp_path):
  config = get_config()
  config.buckets = {'video': {'frames': 8, 'height': 32, 'width': 32, 'batch_size': 2, 'weight': 1}}
  config.model.update(FIELDS, latent_channels=96, shortcut=True)
  spec = AutoencoderSection(config).training(tmp_path)
  clips = np.stack([spec.buckets[0].source[i]['video'] for i in range(2)])
  initialised = spec.model.init(jax.random.key(0), *spec.inputs)['params']
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params = start_from(spec.start(lambda name, shape: place), nn.unbox(initialised))
  clips = to_unit(jnp.asarray(clips))
  found = spec.model.apply(
    {'params': params}, clips, method=lambda m, x: m.decode(m.encode(x).mean, 8)
  )
  rows = np.asarray(blocks(clips, SHAPE)).reshape(-1, 192)
  basis = np.linalg.svd(rows, full_matrices=False)[2][:96]
  left = np.square(rows - rows @ basis.T @ basis).mean()
  # The networks start small, a tenth of a unit's deviation (QUIET), in and out.
  assert left < float(jnp.square(found - clips).mean()) < 0.05 < float(jnp.square(clips).mean())


def test_without_it_weights_are_what_they_were():
  model = make_autoencoder({**FIELDS, 'latent_channels': 4})
  key = jax.random.key(0)
  params = jax.eval_shape(model.init, key, jnp.zeros((1, 4, 8, 8, 3)), key)
  assert set(params['params']) == {'encoder', 'decoder'}


def test_its_latents_keep_half_of_their_spread_so_that_what_is_coarse_is_learnt_first():
  own = Statistics((1.0, 2.0), (0.5, 2.0))
  tempered = own.tempered()
  assert tempered.mean == own.mean
  left = np.divide(own.std, tempered.std)  # deviations of what the flow model learns
  assert left[1] / left[0] == pytest.approx(2)
  assert np.square(left).mean() == pytest.approx(1)
