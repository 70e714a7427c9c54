"""The codec trains alone or against discriminators, is resumed exactly, shown and noted."""

import jax
import numpy as np
import pytest

from mgjax.api import train
from mgjax.core.errors import ConfigError
from mgjax.data.media.audio import read_audio
from mgjax.models.codec.model import CODEC_RATE
from mgjax.registry import make_spec
from mgjax.sections.codec.pipeline import load_audio_codec
from tests import tiny, tiny_sound

AGAINST = {
  'objective__adversarial': 1.0,
  'objective__features': 2.0,
  'discriminator__periods': (3,),
  'discriminator__period_widths': (4, 8),
  'discriminator__windows': (),
  'discriminator__start': 2,
}


@pytest.mark.slow
def test_a_run_of_two_resumes_bit_by_bit(tmp_path):
  config = tiny_sound.codec(**AGAINST, train__steps=4, train__evaluate_every=0)
  whole = tiny.resumed(config, tmp_path, 2)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole.discriminator))
  rows = [row for row in tiny.metrics(tmp_path / 'whole') if 'generator_loss' in row]
  weights, heard = config.objective, []
  for row in rows:
    alone = weights.mel * row['mel'] + weights.mse * row['mse'] + weights.kl * row['kl']
    discriminators = (
      weights.features * row['features'] + weights.adversarial * row['generator_loss']
    )
    heard.append(round((row['loss'] - alone) / discriminators, 2))
  assert heard == [0, 0, 1, 1]  # from step 2 on they have their say


def test_a_run_says_how_far_it_is_and_what_it_learnt(tiny_sound_runs):
  rows = tiny.metrics(tiny_sound_runs / 'codec')
  last = [row for row in rows if 'validation/sound/mel' in row][-1]
  assert {f'validation/sound/{name}' for name in ('loss', 'mel', 'kl', 'stft', 'waveform')} <= set(
    last
  )
  shown = sorted((tiny_sound_runs / 'codec' / 'samples').glob('step_*'))[-1]
  assert (shown / 'reconstruction.png').stat().st_size > 1000
  assert len(list(shown.glob('*_original.wav'))) == 4
  sound = read_audio(shown / '0_reconstruction.wav')
  assert sound.shape == (round(0.16 * CODEC_RATE), 1)


def test_latents_of_a_trained_codec_are_normalised_over_its_data(tiny_sound_runs):
  codec = load_audio_codec(tiny_sound_runs / 'codec')
  part = make_spec(tiny_sound.codec(), tiny_sound_runs / 'codec')
  source = part.buckets[0].source
  # The same samples that the statistics are of.
  sound = np.stack([source[index]['audio'] for index in range(32 * 8)])
  latents = np.asarray(codec.encode(sound), np.float64).reshape(-1, codec.model.latent_channels)
  np.testing.assert_allclose(latents.mean(0), 0, atol=1e-3)
  np.testing.assert_allclose(latents.std(0), 1, rtol=1e-3)


def test_a_codec_begins_from_another_codec_alone(tiny_sound_runs, tmp_path):
  config = tiny_sound.codec(start_from=str(tiny_sound_runs / 'audio'))
  with pytest.raises(ConfigError, match="trained 'audio', not 'codec'"):
    train(config, tmp_path)


def test_what_is_no_codec_is_not_loaded_as_one(tiny_sound_runs):
  with pytest.raises(ConfigError, match="trained the component 'audio'; expected an audio codec"):
    load_audio_codec(tiny_sound_runs / 'audio')
