"""Latents are moved towards what decodes to known frames, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.tae.fitting import make_fit
from mgjax.models.tae.latents import to_unit
from mgjax.sections.autoencoder.pipeline import load_codec


@pytest.fixture(scope='module')
def codec(tiny_runs):
  return load_codec(tiny_runs / 'autoencoder')


@pytest.fixture(scope='module')
def clips():
  return np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)


@pytest.fixture(scope='module')
def latents(codec):
  return jax.random.normal(jax.random.key(0), (2, *codec.latent_shape((4, 16, 16))))


def objective(codec, latents, start, clip, known):
  """What is minimised, a row, in float64."""
  made = np.float64(codec.decode_tile(codec.params, latents))
  missed = (made - np.float64(to_unit(jnp.asarray(clip)))) ** 2 * known[:, :, None, None, None]
  return missed.sum((1, 2, 3, 4)) + ((np.float64(latents) - np.float64(start)) ** 2).sum(
    (1, 2, 3, 4)
  )


def test_known_frames_come_nearer_and_so_does_what_is_minimised(codec, latents, clips):
  known = np.zeros((2, 4), np.float32)
  known[:, 0] = 1
  found = make_fit(codec, 10)(latents, clips, known)
  before, after = (objective(codec, z, latents, clips, known) for z in (latents, found))
  assert (after < before).all()


def test_rows_without_a_known_frame_and_no_steps_change_nothing(codec, latents, clips):
  known = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.float32)
  found = make_fit(codec, 3)(latents, clips, known)
  assert (found[0] != latents[0]).any()
  np.testing.assert_array_equal(found[1], latents[1])
  np.testing.assert_array_equal(make_fit(codec, 0)(latents, clips, known), latents)


def test_a_tile_of_time_without_a_known_frame_is_left_as_it_is(codec, clips):
  length = codec.tiling.frames
  clip = np.repeat(clips, length // 2, axis=1)  # two tiles
  start = jax.random.normal(jax.random.key(1), (2, *codec.latent_shape(clip.shape[1:4])))
  known = np.zeros(clip.shape[:2], np.float32)
  known[:, 0] = 1
  found = make_fit(codec, 2)(start, clip, known)
  half = start.shape[1] // 2
  assert (found[:, :half] != start[:, :half]).any()
  np.testing.assert_array_equal(found[:, half:], start[:, half:])
