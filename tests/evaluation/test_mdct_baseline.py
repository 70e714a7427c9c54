"""The transform that codecs are compared with: exact when whole, else the lowest frequencies."""

import numpy as np
import pytest

from mgjax.audio.codec.latents import AudioCodec
from mgjax.audio.codec.model import Codec
from mgjax.core.errors import ConfigError
from mgjax.evaluation.mdct_baseline import inverse_mdct, make_truncated_mdct, mdct
from mgjax.tae.latents import Statistics

EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize('samples', [1, 40, 48, 95])
def test_all_coefficients_give_the_sound_back(samples):
  sound = np.random.default_rng(0).normal(size=(samples, 2))
  coefficients = mdct(sound, 8, 8)
  assert coefficients.shape == (-(-samples // 8) + 1, 8, 2)
  again = inverse_mdct(coefficients, 8, samples)
  # Two sums of up to 16 products of size 4, one after the other.
  np.testing.assert_allclose(again, sound, rtol=0, atol=2 * 16 * 4 * EPS)


def test_low_tones_pass_and_high_ones_do_not():
  model = Codec(strides=(8, 24), latent_channels=16)
  codec = AudioCodec(model, {}, Statistics((0.0,) * 16, (1.0,) * 16))
  again = make_truncated_mdct(codec)
  # Coefficient k is at (k + 1/2) 48,000 / 384 Hz: 16 of them reach to 2 kHz.
  time = np.arange(4800)[:, None] / 48_000
  for hertz, passes in ((500, True), (1500, True), (2500, False), (8000, False)):
    tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
    middle = slice(400, -400)
    left = np.square(again(tone)[middle]).mean() / np.square(tone[middle]).mean()
    assert abs(left - passes) < 0.05, (hertz, left)


def test_numbers_a_second_are_the_codecs():
  sound = np.zeros((48_000, 1))
  assert mdct(sound, 1920, 16)[:-1].size == 25 * 16


def test_more_coefficients_than_there_are_is_a_sentence():
  with pytest.raises(ConfigError, match='9 coefficients of windows 8 apart; expected 1 to 8'):
    mdct(np.zeros((8, 1)), 8, 9)
