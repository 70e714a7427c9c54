"""Sheets of sounds: when something is heard, how high it is and how long it lasts is seen."""

import numpy as np
import pytest

from mgjax.data.media.audio_sheet import audio_sheet
from tests.data.media.test_contact_sheet import opened

LEFT, RIGHT, PLOT = 48, 12, 940  # columns


def parts(path):
  """The rows of waveform and spectrogram of a sheet of one sound."""
  sheet = opened(path).astype(int)
  dark = (sheet[:, LEFT : LEFT + PLOT].sum(-1) < 60).mean(1) > 0.5  # silence is black
  rows = np.flatnonzero(dark)
  return sheet[27 : rows[0], LEFT : LEFT + PLOT], sheet[rows[0] : rows[-1] + 1, LEFT : LEFT + PLOT]


def tone(frequency, seconds, begin, end, rate=48_000):
  time = np.arange(round(seconds * rate)) / rate
  sound = 0.5 * np.sin(2 * np.pi * frequency * time)
  return np.where((time >= begin) & (time < end), sound, 0)[:, None].astype(np.float32)


def test_a_tone_is_seen_when_it_is_heard(tmp_path):
  audio_sheet(tmp_path / 'a.png', [tone(2000, 4.0, 1.0, 2.0)], ['tone'], 48_000)
  wave, spectrum = parts(tmp_path / 'a.png')
  blue = (wave[..., 2] - wave[..., 0] > 100).sum(0)
  loud = np.flatnonzero(blue > 50)
  assert abs(loud[0] - PLOT / 4) <= 2 and abs(loud[-1] - PLOT / 2) <= 2
  bright = np.flatnonzero(spectrum.sum(-1).max(0) > 400)
  window = 0.02 / 4 * PLOT  # half of a spectrum's samples
  assert abs(bright[0] - PLOT / 4) < window and abs(bright[-1] - PLOT / 2) < window
  assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_higher_is_further_up(tmp_path):
  places = []
  for frequency in (200, 1000, 5000, 15_000):
    audio_sheet(tmp_path / 'a.png', [tone(frequency, 1.0, 0.1, 0.4)], [''], 48_000)
    _, spectrum = parts(tmp_path / 'a.png')
    places.append(int(spectrum[:, PLOT // 4].sum(-1).argmax()))
  assert places == sorted(places, reverse=True) and min(-np.diff(places)) > 5


def test_each_sound_has_its_place_whatever_its_length_and_channels(tmp_path):
  sounds = [np.zeros((1, 1)), tone(440, 0.1, 0, 1), np.repeat(tone(440, 130.0, 5, 6), 2, 1)]
  audio_sheet(tmp_path / 'a.png', sounds, ['one', 'two', 'three'], 48_000)
  sheet = opened(tmp_path / 'a.png').astype(int)
  assert sheet.shape[1] == 1000 and sheet.shape[0] % 3 == 0
  audio_sheet(tmp_path / 'b.png', sounds[:1], [''], 48_000)
  assert sheet.shape[0] // 3 == opened(tmp_path / 'b.png').shape[0]


@pytest.mark.parametrize(
  'seconds, ticks', [(0.4, 9), (1.0, 11), (2.0, 11), (5.28, 6), (30.0, 7), (58.0, 6), (120.0, 7)]
)
def test_the_axis_is_marked_in_round_seconds(tmp_path, seconds, ticks):
  sound = np.zeros((round(seconds * 8000), 1), np.float32)
  audio_sheet(tmp_path / 'a.png', [sound], [''], 8000)
  sheet = opened(tmp_path / 'a.png').astype(int)
  black = np.flatnonzero((sheet[:, LEFT : LEFT + PLOT].sum(-1) < 60).mean(1) > 0.5)[-1]
  assert (sheet[black + 2, LEFT : LEFT + PLOT].sum(-1) < 200).sum() == ticks


def test_a_long_sound_does_not_lose_its_peaks(tmp_path):
  sound = np.zeros((8000 * 600, 1), np.float32)
  sound[8000 * 300] = 1  # one sample of ten minutes
  audio_sheet(tmp_path / 'a.png', [sound], [''], 8000)
  wave, _ = parts(tmp_path / 'a.png')
  blue = (wave[..., 2] - wave[..., 0] > 100).sum(0)
  assert abs(int(blue.argmax()) - PLOT // 2) <= 1 and blue.max() > 30
