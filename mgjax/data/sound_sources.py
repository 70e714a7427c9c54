"""Configurations to sources of sound, with or without the pictures that it belongs to."""

import operator
import os
import pathlib
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.data.clip_files import SOUND, Entry
from mgjax.data.clips import Clip, Clips, Windows, find, find_clips
from mgjax.data.digit_sounds import RATE
from mgjax.data.digits import AUDIBLE, SPLITS, Digits
from mgjax.data.mixture import Source
from mgjax.data.sound_io import probe_sound, read_sound
from mgjax.data.sources import Fields, make_digits

_CLIP_FRAMES = 50  # of a clip of digits that windows are cut from
_NEAR_EVENTS = 0.7  # share of the windows that are placed around an event


def make_sound_source(
  data: Fields,
  name: str,
  shape: Fields,
  split: str,
  report: str | os.PathLike[str] | None = None,
) -> Source:
  """Makes the source of one bucket's samples: {'sound': float32 (s c), 'caption', ...}.

  Args:
    data: `kind` is 'digits' (their fields under `digits`; `fps` of their clips), 'sounds' (a folder
      or manifest of any files with sound at `path`) or 'clips' (videos with sound, taken at `fps`).
      The last two have `rate`, 48,000 by default, and `channels`, 1 or 2, and their
      `validation_path` names others for validation, without it the same are taken.
    name: of the bucket.
    shape: the bucket's `seconds`; with `height` and `width` samples have 'video' too, uint8
      (t h w 3) of seconds * fps frames.
    split: 'train' or 'validation'.
    report: where rejected files are listed.

  Raises:
    ConfigError: the kind is unknown, or lengths and rates do not fit each other.
    DataError: there is no usable data.
  """
  makers = {'digits': _digits, 'sounds': _sounds, 'clips': _clips}
  if data['kind'] not in makers:
    raise ConfigError(
      f'unknown kind of sound data {data["kind"]!r}; expected one of {", ".join(makers)}'
    )
  if not shape['seconds'] > 0:
    raise ConfigError(f'bucket {name!r}: seconds={shape["seconds"]}, expected more than 0')
  return makers[data['kind']](data, name, shape, split, report)


class DigitSounds:
  """Windows of the sounding small world: `source[i]` is cut from `digits[i]`.

  Seven of ten windows hold an event at a random place, if their clip has one, since most of a clip
  is silent; the others lie anywhere. Where a window lies is a function of the index alone. Beside
  'sound' there are the labels and the caption of the clip, and the 'events' inside the window, in
  seconds from its start. Windows with 'video' begin on a frame.
  """

  def __init__(self, digits: Digits, seconds: float, pictures: bool):
    samples = whole(seconds * RATE, f'{seconds} s at {RATE} samples a second')
    self._digits, self._samples, self._pictures = digits, samples, pictures
    self._step = RATE // digits.fps if pictures else 1
    self._last = (digits.frames * RATE // digits.fps - samples) // self._step

  def __len__(self) -> int:
    return len(self._digits)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = operator.index(index)
    sample = self._digits[index] if self._pictures else self._digits.listen(index)
    events = np.rint(sample['events'] * RATE)  # the samples that they are heard at
    start = self._start(index, events)
    inside = (events >= start) & (events < start + self._samples)
    sample['sound'] = sample['sound'][start : start + self._samples]
    sample['events'] = np.maximum(sample['events'][inside] - start / RATE, 0)
    if self._pictures:
      first, count = start // self._step, self._samples // self._step
      sample['video'] = sample['video'][first : first + count]
    return sample

  def _start(self, index: int, events: np.ndarray) -> int:
    digits, step = self._digits, self._step
    generator = np.random.default_rng((digits.seed, SPLITS.index(digits.split), index, 1))
    near, place, which = generator.uniform(size=3)
    if near >= _NEAR_EVENTS or not events.size:
      return int(place * (self._last + 1)) * step
    event = events[int(which * events.size)]
    start = (event - place * (self._samples - step)) // step
    return int(np.clip(start, 0, self._last)) * step


class Sounds(Windows):
  """Windows of sound files: `source[i]` is {'sound': float32 (s c), 'caption'}."""

  def __init__(self, clips: Sequence[Clip], *, seconds: float, rate: int, channels: int):
    super().__init__(clips, seconds)
    self._rate, self._channels = rate, channels

  def read(self, clip: Clip, start: float, stride: int) -> dict[str, Any]:
    """Reads the sound of a window."""
    sound = read_sound(
      clip.path, start=start, seconds=self._window, rate=self._rate, channels=self._channels
    )
    return {'sound': sound, 'caption': clip.caption}


class SoundingClips(Clips):
  """Windows of videos with what is heard meanwhile: {'video', 'sound', 'caption'}."""

  def __init__(self, clips: Sequence[Clip], *, rate: int, channels: int, **video: Any):
    super().__init__(clips, **video)
    self._rate, self._channels = rate, channels

  def read(self, clip: Clip, start: float, stride: int) -> dict[str, Any]:
    """Reads the frames and the sound of a window."""
    seconds = self._frames / self._fps
    sound = read_sound(
      clip.path, start=start, seconds=seconds, rate=self._rate, channels=self._channels
    )
    return {**super().read(clip, start, stride), 'sound': sound}


def find_sounds(
  path: str | os.PathLike[str],
  *,
  seconds: float,
  report: str | os.PathLike[str] | None = None,
) -> list[Clip]:
  """Finds the files with at least `seconds` seconds of sound; see `mgjax.data.clips.find`."""

  def lack(entry: Entry, lasting: float) -> str | None:
    needed = (entry.start or 0.0) + seconds
    return None if needed <= lasting + 1e-6 else f'{needed:.2f} s are needed'

  wanted = f'sounds of at least {seconds:.2f} s'
  return find(path, SOUND, lambda file: probe_sound(file).seconds, lack, wanted, report)


def whole(number: float, what: str) -> int:
  """Returns a count that must be whole but for rounding; ConfigError names `what` if it is not."""
  if abs(number - round(number)) > 1e-6 or round(number) < 1:
    raise ConfigError(f'{what} make {number:g}, expected a whole number; choose other seconds')
  return round(number)


def _digits(data, name, shape, split, report) -> Source:
  del name, report
  seconds, fps, pictures = shape['seconds'], data['fps'], 'height' in shape
  frames = seconds * fps
  if pictures:
    frames = whole(frames, f'{seconds} s at {fps} frames a second')
  more = {'fps': fps, 'sound': True}
  if pictures:
    more['size'] = (shape['height'], shape['width'])
  frames = max(data['digits'].get('frames', _CLIP_FRAMES), int(np.ceil(frames - 1e-6)))
  digits = make_digits(data['digits'], split, frames=frames, **more)
  if not set(digits.motions) & set(AUDIBLE):
    raise ConfigError(
      f'config.data.digits.motions={digits.motions} are silent; add one of {", ".join(AUDIBLE)}'
    )
  return DigitSounds(digits, seconds, pictures)


def _sounds(data, name, shape, split, report) -> Source:
  rate, channels, path, report = _files(data, name, split, report)
  whole(shape['seconds'] * rate, f'{shape["seconds"]} s at {rate} samples a second')
  clips = find_sounds(path, seconds=shape['seconds'], report=report)
  return Sounds(clips, seconds=shape['seconds'], rate=rate, channels=channels)


def _clips(data, name, shape, split, report) -> Source:
  rate, channels, path, report = _files(data, name, split, report)
  if 'height' not in shape or 'width' not in shape:
    raise ConfigError(
      f"bucket {name!r}: kind='clips' needs height and width; for sound alone say kind='sounds'"
    )
  seconds, fps = shape['seconds'], data['fps']
  whole(seconds * rate, f'{seconds} s at {rate} samples a second')
  frames = whole(seconds * fps, f'{seconds} s at {fps} frames a second')
  video = {'frames': frames, 'fps': fps, 'size': (shape['height'], shape['width'])}
  clips = find_clips(path, **video, report=report, sounding=True)
  return SoundingClips(clips, rate=rate, channels=channels, **video)


def _files(data, name, split, report) -> tuple[int, int, Any, Any]:
  rate, channels, path = data.get('rate', RATE), data.get('channels', 1), data.get('path')
  if channels not in (1, 2):
    raise ConfigError(f'config.data.channels={channels}, expected 1 or 2')
  if not path:
    raise ConfigError('config.data.path is empty; name a folder, as in --config.data.path=sounds/')
  if split == 'validation':
    return rate, channels, data.get('validation_path') or path, None
  if report is not None:
    report = pathlib.Path(report).with_name(f'rejected_{name}.jsonl')
  return rate, channels, path, report
