"""Draws waveforms and mel spectrograms of audio as one picture."""

import functools
import math
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mgjax.core.spectrum import magnitudes, triangles
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.titles import draw_title, ticks, title_width, write_sheet

_WIDTH = 1000
_LEFT, _RIGHT = 48, 12  # beside the plots
_TITLE, _LABEL = 15, 11  # pixels of letters
# heights
_WAVE = 72
_MEL = 112
_AXIS = 18
_GAP = 6
_BINS = 96  # of the mel scale
_SPAN = 90.0  # dB below a sine of full scale, where black begins
_LOOKS = 8  # spectra that one column averages, at most
_TICKS = 10  # steps of the time axis, at most
_PITCHES = (100, 1000, 10_000)  # Hz, marked beside the spectrogram
_INK, _FAINT, _BLUE = (40, 40, 40), (200, 200, 200), (50, 100, 190)
_COLOURS = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


def audio_sheet(
  path: str | os.PathLike[str],
  sounds: Sequence[Float[np.ndarray, '_ _']],
  titles: Sequence[str],
  rate: int,
) -> None:
  """Writes a PNG, 1,000 pixels wide, with a title, waveform and spectrogram per sound, atomically.

  The spectrogram has the mel scale and shows the power from a sine of full scale (bright) to 90 dB
  below (black). The waveform is scaled to its peak, which stands beside it. Each sound fills the
  width: a column shows the least and the most of its samples, and below their mean power at up to
  eight places. Channels are averaged; titles are cut to the width.
  """
  if not sounds or len(sounds) != len(titles):
    raise ValueError(f'expected a title for each sound, got {len(sounds)} and {len(titles)}')
  title_height = _TITLE + 2 * _GAP
  height = title_height + _WAVE + _GAP + _MEL + _AXIS + _GAP
  sheet = Image.new('RGB', (_WIDTH, height * len(sounds)), 'white')
  pen = ImageDraw.Draw(sheet)
  for number, (sound, title) in enumerate(zip(sounds, titles, strict=True)):
    if sound.ndim != 2 or not sound.size or not np.isfinite(sound).all():
      raise ValueError(f'{title!r}: expected finite numbers (samples, channels), got {sound.shape}')
    mono = sound.mean(1)
    top = number * height
    room = _WIDTH - 2 * _GAP
    draw_title(pen, (_GAP, top + _GAP), title, size=_TITLE, width=room, fill=_INK)
    _draw_waveform(pen, mono, top + title_height)
    below = top + title_height + _WAVE + _GAP
    sheet.paste(Image.fromarray(_picture(mono, rate)), (_LEFT, below))
    _draw_pitches(pen, rate, below)
    _draw_seconds(pen, len(mono) / rate, below + _MEL)
  write_sheet(path, sheet, titles)


def _draw_waveform(pen: ImageDraw.ImageDraw, sound: np.ndarray, top: int) -> None:
  columns = _WIDTH - _LEFT - _RIGHT
  middle = top + _WAVE // 2
  peak = float(np.abs(sound).max())
  edges = np.linspace(0, len(sound), columns + 1).astype(int)
  pen.line([(_LEFT, middle), (_LEFT + columns - 1, middle)], fill=_FAINT)
  half = (_WAVE // 2 - 1) / max(peak, 1e-9)
  for column in range(columns if peak else 0):
    # With the neighbour on the right, so that what rises from column to column is one line.
    part = sound[edges[column] : max(edges[column + 1] + 1, edges[column] + 1)]
    if len(part):
      ends = middle - part.max() * half, middle - part.min() * half
      pen.line([(_LEFT + column, ends[0]), (_LEFT + column, ends[1])], fill=_BLUE)
  _label(pen, f'{peak:.2g}', _LEFT - 4, top, right=True)


def _picture(sound: np.ndarray, rate: int) -> UInt8[np.ndarray, 'h w 3']:
  """The power of the sound over time and the mel scale, low pitches at the bottom."""
  columns = _WIDTH - _LEFT - _RIGHT
  length = 1 << max(5, round(math.log2(rate * 0.04)))  # samples of one spectrum, about 40 ms
  step = len(sound) / columns
  looks = int(np.clip(step // length, 1, _LOOKS))
  window = np.hanning(length)
  padded = np.pad(sound, length // 2 + 1)
  power = np.zeros((columns, length // 2 + 1))
  for look in range(looks):
    starts = ((np.arange(columns) + (look + 0.5) / looks) * step).astype(int)
    power += magnitudes(padded, window, starts) ** 2 / looks
  power *= (2 / window.sum()) ** 2  # a sine of full scale has 1
  decibels = 10 * np.log10(np.maximum(power @ _mel_filters(length, rate), 1e-20))
  brightness = np.clip(1 + decibels / _SPAN, 0, 1).T[::-1]
  rows = (np.arange(_MEL) * _BINS // _MEL).astype(int)
  anchors = np.linspace(0, 1, len(_COLOURS))
  planes = [np.interp(brightness[rows], anchors, plane) for plane in np.array(_COLOURS).T]
  return np.stack(planes, axis=-1).astype(np.uint8)


@functools.cache
def _mel_filters(length: int, rate: int) -> Float[np.ndarray, 'n c']:
  """Triangles over the spectrum, of height 1 and evenly spaced in mel = 2595 log10(1 + f / 700)."""
  edges = np.linspace(0, _mel(rate / 2), _BINS + 2)
  return triangles(_mel(np.fft.rfftfreq(length, 1 / rate)), edges)


def _mel(frequency):
  return 2595 * np.log10(1 + frequency / 700)


def _draw_pitches(pen: ImageDraw.ImageDraw, rate: int, top: int) -> None:
  for pitch in _PITCHES:
    if pitch < rate / 2:
      y = top + _MEL * (1 - _mel(pitch) / _mel(rate / 2))
      pen.line([(_LEFT - 4, y), (_LEFT - 1, y)], fill=_INK)
      name = f'{pitch} Hz' if pitch < 1000 else f'{pitch // 1000} kHz'
      _label(pen, name, _LEFT - 6, min(y - _LABEL / 2, top + _MEL - _LABEL), right=True)


def _draw_seconds(pen: ImageDraw.ImageDraw, seconds: float, top: int) -> None:
  columns = _WIDTH - _LEFT - _RIGHT
  for second in ticks(0, seconds, _TICKS):
    x = _LEFT + second / seconds * (columns - 1)
    pen.line([(x, top), (x, top + 4)], fill=_INK)
    _label(pen, f'{second:g} s', x, top + 4)


def _label(pen: ImageDraw.ImageDraw, text: str, x: float, y: float, right: bool = False) -> None:
  width = title_width(text, _LABEL)
  label_left = x - width if right else min(max(0, x - width / 2), _WIDTH - width)
  draw_title(pen, (label_left, y), text, size=_LABEL, width=_WIDTH, fill=_INK)
