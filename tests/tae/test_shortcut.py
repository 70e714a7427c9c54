"""The autoencoder's linear shortcut starts as a cosine transform of blocks of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dctn

from mgjax.tae.autoencoder import make_autoencoder
from mgjax.tae.latents import Statistics
from mgjax.tae.shortcut import blocks, cosines, joined

SHAPE = (4, 4, 4)
FIELDS = {
  'widths': (8, 8), 'strides': ((2, 1, 1), (2, 1, 1)), 'blocks': 0, 'groups': 4, 'patch': (1, 4, 4)
}  # fmt: skip


def test_all_rows_are_an_orthonormal_basis_and_more_are_zeros():
  rows = cosines(SHAPE, 200)
  np.testing.assert_allclose(rows[:192] @ rows[:192].T, np.eye(192), atol=1e-5)
  assert not rows[192:].any()


def test_rows_are_those_of_the_cosine_transform_of_brightness():
  clip = np.random.default_rng(0).normal(size=(*SHAPE, 1)).repeat(3, -1)  # grey
  transform = np.sort(np.abs(dctn(clip[..., 0], norm='ortho')).ravel()) * np.sqrt(3)
  found = np.sort(np.abs(cosines(SHAPE, 192) @ clip.ravel()))[-64:]
  np.testing.assert_allclose(found, transform, atol=1e-5)


def test_few_rows_hold_a_smooth_clip_far_better_than_as_many_others():
  t, y, x = np.meshgrid(*[np.linspace(0, 1, 4)] * 3, indexing='ij')
  clip = np.stack([0.5 * t + x, y - 0.3 * x, 0.2 * t + y], -1).ravel()
  rows = cosines(SHAPE, 192)
  left = lambda some: np.square(clip - some.T @ (some @ clip)).mean()  # noqa: E731
  assert left(rows[:32]) < 0.01 * left(rows[32:64])


@pytest.mark.parametrize('frames', [1, 8, 10])
def test_an_untrained_autoencoder_returns_what_the_transform_keeps(frames):
  model = make_autoencoder({**FIELDS, 'latent_channels': 192, 'shortcut': True})
  clip = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, frames, 16, 16, 3)), jnp.float32)
  params = model.init(jax.random.key(0), clip, jax.random.key(1))
  found = model.apply(params, clip, method=lambda m, x: m.decode(m.encode(x).mean, frames))
  # The networks start small, a tenth of a unit's deviation (QUIET), in and out.
  assert float(jnp.square(found - clip).mean()) < 0.05 < float(jnp.square(clip).mean())
  again = joined(blocks(clip, SHAPE), SHAPE)[:, :frames]
  np.testing.assert_array_equal(again, clip)


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
