"""What the numbers of a reconstruction are, against formulas in float64 and planted faults."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.media.video import read_clip
from mgjax.lab.evaluation.metrics import similarity
from mgjax.lab.evaluation.reconstruction import (
  evaluate_reconstruction,
  latent_norms,
  write_pictures,
)
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.latents import LatentCodec, Statistics, to_unit
from mgjax.models.tae.perceptual import NUMBERS, Perceptual, read_perceptual


class Planted(LatentCodec):
  """Gives back every video with `offset` added and hands out the latents that it was given."""

  def __init__(self, latents, offset=0):
    model = Autoencoder(latents.shape[-1], (8, 8), ((2, 2, 2), (1, 2, 2)), 0, 4)
    super().__init__(model, {}, Statistics((0.5,) * latents.shape[-1], (2.0,) * latents.shape[-1]))
    self.latents, self.offset = latents, offset

  def encode(self, video):
    self.video = video
    return jnp.asarray(self.latents[None])

  def decode(self, latents, frames, size=None):
    return self.video[:, :frames] + np.uint8(self.offset)


def noise(shape, seed=0, low=0, high=256):
  return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8)


def latents(shape=(2, 4, 4, 3)):
  return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def test_similarity_and_psnr_have_their_closed_forms():
  """Of even frames SSIM is (2 a b + C1) / (a^2 + b^2 + C1); tests/oracles has real ones."""
  x = np.stack([np.full((13, 16, 3), level, np.uint8) for level in (100, 200)])
  y = np.stack([np.full((13, 16, 3), 50, np.uint8), x[1]])
  a, b = 100 / 255, 50 / 255
  expected = [(2 * a * b + 1e-4) / (a * a + b * b + 1e-4), 1]
  np.testing.assert_allclose(similarity.structural_similarity(x, y), expected, rtol=1e-9)
  np.testing.assert_allclose(
    similarity.decibels(similarity.squared_errors(x, y)), [20 * np.log10(255 / 50), 100]
  )
  with pytest.raises(DataError, match='SSIM looks at 11 x 11 pixels, and these frames are 13 x 10'):
    similarity.structural_similarity(x[:, :, :10], y[:, :, :10])


def test_an_error_that_stands_still_does_not_flicker():
  x = noise((4, 12, 12, 3), high=200)
  assert similarity.flicker(x, x + np.uint8(50)) == 0
  beats = x + np.array([0, 3, 0, 3], np.uint8)[:, None, None, None]
  assert similarity.flicker(x, beats) == similarity.flicker(beats, x) == 3
  with pytest.raises(DataError, match='between frames'):
    similarity.flicker(x[:1], x[:1])


def test_latent_norms_are_the_formula_and_one_on_average():
  x = latents((2, 3, 5, 4, 6)).astype(np.float64)
  away = x - x.mean((2, 3), keepdims=True)
  expected = np.linalg.norm(away, axis=-1) / np.linalg.norm(x.std((2, 3)), axis=-1)[..., None, None]
  norms = latent_norms(x.astype(np.float32))
  np.testing.assert_allclose(norms, expected, rtol=1e-5)  # float32, sums over 20 places
  np.testing.assert_allclose((norms**2).mean((2, 3)), 1, rtol=1e-5)
  constant = np.full((1, 1, 6, 6, 2), 1e3, np.float32)
  constant[0, 0, 3, 3] = np.nextafter(np.float32(1e3), np.float32(2e3))  # rounding, and no dot
  assert latent_norms(constant).max() < 0.1 and latent_norms(0 * constant).max() == 0


def test_the_norm_map_finds_a_planted_dot_and_the_picture_shows_it(tmp_path):
  planted = np.zeros((2, 4, 4, 3), np.float32)
  planted[1, 2, 3] = (5, -4, 3)
  video = noise((4, 16, 16, 3))
  measured, pairs = evaluate_reconstruction(Planted(planted, offset=2), [video, video])
  norms = pairs[0].norms
  assert np.argwhere(norms > 3).tolist() == [[1, 2, 3]]
  # One of n places that differs lies sqrt(n - 1) deviations away, whatever the direction.
  assert norms.max() == pytest.approx(np.sqrt(15), rel=1e-5)
  assert measured.record['clips'][0]['dots'] == 1 / 32
  paths = write_pictures(tmp_path, [pairs[0], pairs[1]], fps=8)
  assert [path.name for path in paths] == ['reconstruction.png', '000.mp4', '001.mp4']
  beside = read_clip(paths[1], frames=4, size=(16, 48), fps=8)
  # The difference of 2 grey levels, four times as bright; at crf 12 the noise beside it rings in
  # some places, which a median does not hear.
  assert abs(np.median(beside[2:, :, 36:44]) - 8) < 4
  with Image.open(paths[0]) as sheet:
    pixels = np.asarray(sheet.convert('RGB'))
  # Frames of 128 pixels under titles of 28, each 4 apart: the norms are the fourth row. Only the
  # frames of latent 1 have the dot, at (2, 3): near sqrt(15) of 6, which is red and nearly yellow.
  row = pixels[3 * 160 + 28 : 4 * 160 - 4]
  lit = [row[:, 4 + 132 * frame : 132 + 132 * frame] for frame in range(4)]
  spots = [np.argwhere(frame[..., 1] > 150).mean(0).tolist() for frame in lit[2:]]
  assert spots == [[79.5, 111.5]] * 2 and max(frame[..., 1].max() for frame in lit[:2]) == 0


def test_means_have_standard_errors_and_images_no_flicker():
  videos = [noise((4, 16, 16, 3), seed, high=250) for seed in range(3)]
  measured, pairs = evaluate_reconstruction(Planted(latents(), offset=3), videos, keep=[0])
  psnr, scores = 20 * np.log10(255 / 3), measured.record['scores']
  assert scores['psnr'] == pytest.approx({'mean': psnr, 'standard_error': 0}, abs=1e-9)
  assert scores['flicker'] == {'mean': 0, 'standard_error': 0}
  values = [clip['ssim'] for clip in measured.record['clips']]
  expected = {'mean': np.mean(values), 'standard_error': np.std(values, ddof=1) / np.sqrt(3)}
  assert scores['ssim'] == pytest.approx(expected)
  assert 0 in pairs and measured.record['frechet'] is None
  assert measured.notes[0] == '3 clip(s): 4 frame(s) of 16 x 16'
  assert 'no LPIPS and no Frechet distance' in measured.notes[1]
  assert 'safetensors' in measured.notes[1]

  image, _ = evaluate_reconstruction(Planted(latents((1, 4, 4, 3))), [videos[0][:1]])
  scores = json.loads(json.dumps(image.record))['scores']
  assert 'flicker' not in scores
  assert scores['psnr'] == {'mean': 100, 'standard_error': None}
  small, _ = evaluate_reconstruction(Planted(latents((2, 2, 2, 3))), videos[:1])
  note = 'no latent norm can be above 3 in frames of 4 latent places'
  assert any(note in text for text in small.notes)


def test_the_distance_of_features_says_which_they_are():
  seen = []

  def perceive(x, y):
    seen.append(len(x))
    features = np.arange(2.0 * len(x)).reshape(-1, 2)
    return similarity.Perception(np.full(len(x), 0.25), features, features + np.array([[3.0, 4.0]]))

  videos = [noise((4, 16, 16, 3)), noise((2, 16, 16, 3))]
  measured, _ = evaluate_reconstruction(Planted(latents()), videos, perceive=perceive)
  assert seen == [4, 2]
  assert measured.record['scores']['lpips'] == {'mean': 0.25, 'standard_error': 0}
  frechet = {'features': 'VGG16 relu5_3', 'distance': pytest.approx(25), 'rows': 6, 'dimensions': 2}
  assert measured.record['frechet'] == frechet
  assert measured.metrics['frechet'].label == 'Frechet (VGG16 relu5_3)'
  assert not any('too few' in note for note in measured.notes)
  alone, _ = evaluate_reconstruction(Planted(latents()), [videos[0][:1]], perceive=perceive)
  assert alone.record['frechet'] is None and 'needs two frames or more' in alone.notes[-1]


def small_weights(path, widths=(2, 3, 4, 4, 5)):
  """A file of VGG16 and LPIPS with random numbers and few channels."""
  generator, tensors, before = np.random.default_rng(3), {}, 3
  for stage, (numbers, width) in enumerate(zip(NUMBERS, widths, strict=True)):
    for number in numbers:
      kernel = generator.normal(size=(width, before, 3, 3)) / np.sqrt(9 * before / 2)
      tensors[f'features.{number}.weight'] = kernel.astype(np.float32)
      tensors[f'features.{number}.bias'] = np.full(width, 0.1, np.float32)
      before = width
    tensors[f'lin{stage}.model.1.weight'] = np.ones((1, width, 1, 1), np.float32)
  safetensors.numpy.save_file(tensors, path)
  return path


def test_every_frame_is_looked_at_some_at_a_time(tmp_path):
  weights = small_weights(tmp_path / 'lpips.safetensors')
  x, y = noise((5, 16, 16, 3)), noise((5, 16, 16, 3), 1)
  perception = similarity.make_perceive(weights)(x, y)
  model, params = Perceptual((2, 3, 4, 4, 5)), read_perceptual(weights)

  @jax.jit
  def whole(x, y):
    x, y = to_unit(x[None]), to_unit(y[None])
    features = [model.apply({'params': params}, video, method='features')[0] for video in (x, y)]
    return model.apply({'params': params}, x, y)[0], *features

  for name, expected in zip(
    ('distances', 'originals', 'reconstructions'), whole(x, y), strict=True
  ):
    # The same float32 sums in another order.
    np.testing.assert_allclose(getattr(perception, name), expected, rtol=1e-4, atol=1e-6)
  with pytest.raises(ConfigError, match=r'none\.safetensors is no \.safetensors file'):
    similarity.make_perceive(tmp_path / 'none.safetensors')
