"""What the numbers of a codec's sounds are, against planted faults."""

import json

import numpy as np
import pytest

from mgjax.data.media.audio import read_audio
from mgjax.lab.evaluation.audio_reconstruction import (
  LABELS,
  evaluate_audio_reconstruction,
  make_truncated_mdct,
  truncated_mdct,
  write_audio,
)
from mgjax.models.codec.latents import AudioCodec
from mgjax.models.codec.model import Codec
from mgjax.models.tae.latents import Statistics

RATE = 48_000
USUAL = set(LABELS) - {'mel_as_trained'}


class Planted(AudioCodec):
  """Gives back every sound changed by `change`, and hands out the latents that it was given."""

  def __init__(self, latents, change=lambda sound: sound, std=2.0):
    channels = latents.shape[-1]
    model = Codec(width=2, strides=(2, 4), latent_channels=channels, decoder_width=8)
    super().__init__(model, {}, Statistics((0.5,) * channels, (std,) * channels), RATE)
    self.latents, self.change = latents, change

  def encode(self, sound):
    self.sound = sound
    return self.latents[None]

  def decode(self, latents, samples=None):
    return self.change(self.sound)[:, :samples]


def latents(count=6, channels=3, seed=0):
  return np.random.default_rng(seed).normal(size=(count, channels)).astype(np.float32)


def struck(times=(0.2, 0.5), seed=0, seconds=0.8):
  """Noise that begins at each time and fades."""
  now = np.arange(round(seconds * RATE)) / RATE
  fades = sum((now >= time) * np.exp(-np.maximum(now - time, 0) / 0.05) for time in times)
  noise = np.random.default_rng(seed).uniform(-0.4, 0.4, len(now))
  return (fades * noise).astype(np.float32)[:, None]


def test_what_comes_back_whole_is_perfect_and_half_as_loud_is_six_decibels_away():
  measured, _ = evaluate_audio_reconstruction(
    Planted(latents()), [struck(), struck(seed=1)], others={'half': lambda sound: sound / 2}
  )
  scores = measured.record['scores']
  assert list(scores) == ['codec', 'half'] and set(scores['codec']) == USUAL
  means = {
    way: {name: x['mean'] for name, x in scores_of_way.items()}
    for way, scores_of_way in scores.items()
  }
  whole = {'mel': 0, 'distortion': 100, 'loudness': 0, 'correlation': 1, 'onset_error': 0}
  assert means['codec'] == pytest.approx(whole, abs=1e-5)  # float32
  half = whole | {'loudness': 20 * np.log10(2)}
  assert means['half'] | {'mel': 0} == pytest.approx(half, abs=1e-3)
  # Seven windows of log10(2), but where a band is below 1e-5 in both.
  assert 0 < means['half']['mel'] <= 7 * np.log10(2) + 1e-5


def test_noise_in_silence_does_not_count_where_it_did_not_in_training():
  silence = np.zeros_like(struck())
  noise = np.float32(1e-4) * np.random.default_rng(0).normal(size=(1, *silence.shape))
  codec = Planted(latents(), lambda sound: sound + noise.astype(np.float32))
  measured, _ = evaluate_audio_reconstruction(codec, [silence], spectral_floor=0.1)
  numbers = measured.record['sounds'][0]['codec']
  assert numbers['mel'] > 1 and numbers['mel_as_trained'] == 0


def test_a_late_codec_is_heard():
  def late(sound):
    return np.pad(sound, ((0, 0), (960, 0), (0, 0)))[:, : sound.shape[1]]

  measured, _ = evaluate_audio_reconstruction(Planted(latents(), late), [struck()])
  numbers = measured.record['sounds'][0]['codec']
  assert numbers['onset_error'] == pytest.approx(20, abs=5)  # values of onsets are 5 ms apart
  assert numbers['distortion'] < -10 and numbers['loudness'] < 0.1


def test_latents_are_described_before_and_after_they_are_normalised():
  numbers = np.stack([np.full(400, 3.0), np.tile([-1.0, 1.0], 200)], axis=1).astype(np.float32)
  measured, _ = evaluate_audio_reconstruction(Planted(numbers), [struck()])
  assert measured.record['latents'] == {
    'a_second': RATE / 8,
    'channels': 2,
    'unused': 1,
    'mean': pytest.approx(3 / np.sqrt(2)),
    'std': pytest.approx(0.5, abs=1e-5),
  }
  narrow, _ = evaluate_audio_reconstruction(Planted(numbers, std=0.09), [struck()])
  assert narrow.record['latents']['unused'] == 2
  assert '6000 latents of 2 a second, 1 channel(s) unused' in measured.notes[1]


def test_beside_silence_there_are_mel_distances_only_and_a_note_says_so():
  silence = np.zeros_like(struck())
  measured, _ = evaluate_audio_reconstruction(Planted(latents()), [silence, struck(), silence])
  assert [set(sound['codec']) for sound in measured.record['sounds']] == [{'mel'}, USUAL, {'mel'}]
  assert '2 silent sound(s) have mel distances only' in measured.notes
  alone, _ = evaluate_audio_reconstruction(Planted(latents()), [silence])
  assert list(alone.metrics) == ['scores/codec/mel']
  # A codec that is silent where there is sound is as far away as can be, and not left out.
  mute = Planted(latents(), np.zeros_like)
  muted, _ = evaluate_audio_reconstruction(mute, [struck(), struck(seed=1)])
  scores = muted.record['scores']['codec']
  assert scores['distortion'] == {'mean': -100, 'standard_error': 0}
  assert scores['correlation']['mean'] == 0
  assert set(scores) == {'mel', 'distortion', 'correlation'}
  assert '2 sound(s) came back silent: codec' in muted.notes


def test_means_have_standard_errors_and_the_record_is_json():
  codec = Planted(latents(), lambda sound: sound + np.float32(0.01) * np.sign(sound))
  measured, _ = evaluate_audio_reconstruction(codec, [struck(seed=seed) for seed in range(3)])
  record = json.loads(json.dumps(measured.record, allow_nan=False))
  values = [sound['codec']['distortion'] for sound in record['sounds']]
  mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(3)
  reported = record['scores']['codec']['distortion']
  assert reported == pytest.approx({'mean': mean, 'standard_error': error})
  assert measured.notes[0] == '3 sound(s) of 0.8 s'
  single, _ = evaluate_audio_reconstruction(Planted(latents()), [struck()])
  assert single.record['scores']['codec']['mel']['standard_error'] is None


def test_sounds_are_written_as_they_went_in_and_came_out(tmp_path):
  codec = Planted(latents(), lambda sound: -sound)
  sounds = [struck(seed=seed) for seed in range(3)]
  _, pairs = evaluate_audio_reconstruction(
    codec, sounds, others={'loud': lambda sound: 5 * sound}, keep=[0, 2]
  )
  stale = tmp_path / 'sounds' / '007_codec.wav'
  stale.parent.mkdir()
  stale.touch()
  sheet, *paths = write_audio(tmp_path, [pairs[0], pairs[2]], RATE)
  names = ['000_original', '000_codec', '000_loud', '001_original', '001_codec', '001_loud']
  assert [path.stem for path in paths] == names and sheet.exists() and not stale.exists()
  again = [read_audio(path) for path in paths[3:]]
  expected = [sounds[2], -sounds[2], np.clip(5 * sounds[2], -1, 1)]
  for read, sound in zip(again, expected, strict=True):
    np.testing.assert_allclose(read, sound, atol=2 / 2**15)  # 16 bits


@pytest.mark.parametrize('samples', [1, 40, 48, 95])
def test_all_coefficients_of_the_mdct_give_the_sound_back(samples):
  sound = np.random.default_rng(0).normal(size=(samples, 2))
  np.testing.assert_allclose(truncated_mdct(sound, 8, 8), sound, atol=1e-6)  # float32


def test_the_baseline_keeps_low_tones_and_no_high_ones():
  model = Codec(strides=(8, 24), latent_channels=16)
  again = make_truncated_mdct(AudioCodec(model, {}, Statistics((0.0,) * 16, (1.0,) * 16)))
  # Coefficient k is at (k + 1/2) 48,000 / 384 Hz: 16 of them reach to 2 kHz.
  time, middle = np.arange(4800)[:, None] / 48_000, slice(400, -400)
  for hertz, passes in ((500, True), (1500, True), (2500, False), (8000, False)):
    tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
    left = np.square(again(tone)[middle]).mean() / np.square(tone[middle]).mean()
    assert abs(left - passes) < 0.05, (hertz, left)
