"""What the codec is measured by: the twin's numbers, silence, formulas, rows on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.codec import losses
from mgjax.models.codec.spectrum import mel_filters
from mgjax.parallel.mesh import make_mesh
from tests.oracles import sound_opponents as oracle

EPS = float(np.finfo(np.float32).eps)
# Of the largest number: logarithms of magnitudes near the largest of a window's, whose roundings in
# a transform of 2048 samples are some eps; those of the smallest that count are a thousand times
# coarser, and one in a thousand. A band too many or a window that is not periodic is seen.
CLOSE = 1e-5


@functools.cache
def vectors():
  with np.load(oracle.VECTORS) as file:
    return dict(file)


@functools.cache
def sounds():
  return tuple(jnp.asarray(x) for x in oracle.draw_sounds())


def test_the_distance_of_levels_and_its_gradient_are_those_of_the_twin():
  sound, other = sounds()
  value, gradient = jax.jit(jax.value_and_grad(lambda other: losses.mel_distance(sound, other)))(
    other
  )
  exact = vectors()['mel_gradient']
  assert float(value) == pytest.approx(float(vectors()['mel']), rel=CLOSE)
  # The gradient of a logarithm divides by the magnitude: of one that is a thousandth of the largest
  # of its window roundings are a thousand eps.
  np.testing.assert_allclose(gradient, exact, rtol=0, atol=1000 * EPS * np.abs(exact).max())


def test_the_distance_of_spectra_is_that_of_the_twin():
  assert float(jax.jit(losses.stft_distance)(*sounds())) == pytest.approx(
    float(vectors()['stft']), rel=CLOSE
  )


def test_silence_is_far_from_sound_and_near_itself_and_gradients_stay_finite():
  silence = jnp.zeros((1, 2048, 1))
  noise = jax.random.normal(jax.random.key(0), silence.shape)
  learn = jax.jit(jax.value_and_grad(lambda other, sound: losses.mel_distance(sound, other)))
  for other, sound, least in ((silence, silence, 0), (silence, noise, 20), (noise, silence, 20)):
    value, gradient = learn(other, sound)
    assert least <= float(value) < least + 30
    assert np.isfinite(gradient).all()
    assert (float(value) == 0) == (other is sound)


def test_bands_of_pitch_share_out_a_flat_spectrum():
  """Triangles of area 1: of 1 a Hz each band has 1, but for the coarseness of places."""
  filters = mel_filters(48_000, 2**15, 40)
  np.testing.assert_allclose(filters.sum(0) * 48_000 / 2**15, 1, rtol=1e-3)
  assert filters.shape == (2**14 + 1, 40)
  # Linear in frequency below 1 kHz, where 40 bands to 24 kHz have 9 centres.
  centres = filters.argmax(0) * 48_000 / 2**15
  np.testing.assert_allclose(np.diff(centres[:9]), np.diff(centres[:9]).mean(), rtol=0.03)
  assert (np.diff(centres[12:], 2) > 0).all()


def opinions(seed):
  rng = np.random.default_rng(seed)
  shapes = [[(2, 3), (2, 4)], [(2, 5)]]
  return [
    (tuple(rng.normal(size=shape) for shape in layers), rng.normal(size=(2, 3)))
    for layers in shapes
  ]


def test_losses_of_both_sides_are_their_formulas():
  real, fake = opinions(0), opinions(1)
  arrays = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), each) for each in (real, fake)]
  against = sum(((1 - x) ** 2).mean() for _, x in fake)
  assert float(losses.adversarial_loss(arrays[1])) == pytest.approx(against, rel=30 * EPS)
  told = sum(((1 - x) ** 2).mean() for _, x in real) + sum((y**2).mean() for _, y in fake)
  assert float(losses.discriminator_loss(*arrays)) == pytest.approx(told, rel=30 * EPS)
  apart = sum(
    np.abs(x - y).mean()
    for (xs, _), (ys, _) in zip(real, fake, strict=True)
    for x, y in zip(xs, ys, strict=True)
  )
  assert float(losses.feature_distance(*arrays)) == pytest.approx(apart, rel=30 * EPS)
  of_real, of_fake = jax.jit(jax.grad(losses.feature_distance, argnums=(0, 1)))(*arrays)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_real))
  assert np.any(jax.tree.leaves(of_fake)[0])


def test_the_distance_of_waveforms_is_a_mean():
  assert float(losses.waveform_distance(jnp.zeros((1, 4, 1)), jnp.full((1, 4, 1), -2.0))) == 2


def test_rows_on_a_mesh_are_measured_where_they_are():
  sound, other = (jnp.concatenate([x] * 4) for x in sounds())
  learn = jax.jit(jax.value_and_grad(losses.stft_distance))
  expected = learn(sound, other)
  with jax.set_mesh(make_mesh({'data': 2, 'fsdp': 2, 'context': 2})):
    found = learn(sound, other)
    text = learn.lower(sound, other).compile().as_text()
  assert 'all-gather' not in text
  for one, exact in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, exact, rtol=0, atol=8 * EPS * np.abs(exact).max())
