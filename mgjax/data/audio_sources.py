"""Makes the sources of audio samples, with or without video, that a configuration names."""

import functools
import operator
from collections.abc import Mapping
from typing import Any, SupportsIndex

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Sample, Wrapped
from mgjax.data.buckets import Shape, sort_out
from mgjax.data.clip_index import ClipIndex, IndexedClip, announce
from mgjax.data.clips import ClipWindows, VideoClips, probe_video
from mgjax.data.ingest.entries import PLAIN, SOUND, VIDEO, Captions, RejectedEntry
from mgjax.data.media.audio import probe_audio, read_audio
from mgjax.data.settings import AudioShape, DataSettings
from mgjax.data.shape import whole
from mgjax.data.source import Source
from mgjax.data.sources import Report, from_each_source, make_world, open_clip_index
from mgjax.data.synthetic_datasets import RATE, WORLDS, source_of

_CLIP_FRAMES = 50  # of a clip of a world that windows are cut from
_NEAR_EVENTS = 0.7  # share of the windows that are placed around an event
_Shapes = Mapping[str, AudioShape]


def make_audio_sources(
  data: DataSettings,
  shapes: Mapping[str, AudioShape],
  split: str,
  report: Report = None,
  captions: Captions = PLAIN,
) -> dict[str, Source]:
  """Makes the sources of the buckets' samples: {'audio': float32 (s c), 'caption', ...}.

  A file serves the longest bucket that it fills, so that no file comes twice. If `data.share` is
  'given', it serves every bucket that it is long enough for, because the weights then say how often
  each length comes. Buckets without any file are left out.

  Args:
    data: a synthetic dataset with audio (`fps` of its clips), 'sounds' (any audio files),
      'clips' (videos with sound, taken at `fps`) or 'records' (clip records that have sound).
    shapes: of the buckets; with a size, samples have 'video' too, uint8 (t h w 3) of
      seconds * fps frames.
    report: where rejected files are listed; see `from_each_source`.

  Raises:
    ConfigError: the kind or a source is unknown, or lengths and rates do not fit each other.
    DataError: there is no usable data.
  """
  report = report if split == 'train' else None
  make = functools.partial(_make_sources, split, captions)
  return from_each_source(data, shapes, make, report)


def _make_sources(
  split: str, captions: Captions, data: DataSettings, shapes: _Shapes, report: Report
) -> dict[str, Source]:
  sounds, clips = (functools.partial(make, captions) for make in (_sounds, _clips))
  pictures = all(shape.size for shape in shapes.values())
  records = clips if pictures else sounds
  makers = {'sounds': sounds, 'clips': clips, 'records': records}
  if data.kind in makers:
    return makers[data.kind](data, shapes, split, report)
  if data.kind not in WORLDS or not _sounds_at_all(data.kind):
    known = [*filter(_sounds_at_all, WORLDS), *makers]
    raise ConfigError(
      f'unknown kind of sound data {data.kind!r}; expected one of {", ".join(known)}'
    )
  return {name: _world_sounds(data, shape, split) for name, shape in shapes.items()}


def _sounds_at_all(world: str) -> bool:
  return hasattr(source_of(world), 'listen')


class WorldWithAudio(Wrapped):
  """Windows of clips of a synthetic dataset with audio: `source[i]` is cut from `world[i]`.

  Seven of ten windows hold an event at a random place, if their clip has one, since most of a clip
  is silent. Where a window lies is a function of the index alone. 'events' are the seconds from the
  start of the window. Windows with 'video' begin on a frame. One channel is the mean of two.
  """

  def __init__(self, world: Any, seconds: float, pictures: bool, channels: int):
    samples = whole(seconds * RATE, f'{seconds} s at {RATE} samples a second')
    super().__init__(world)
    self.said = f'{"seen and heard" if pictures else "heard"} for {samples}'
    self._samples, self._pictures, self._channels = samples, pictures, channels
    self._step = RATE // world.fps if pictures else 1
    self._last = (world.frames * RATE // world.fps - samples) // self._step

  def __getitem__(self, index: SupportsIndex) -> Sample:
    index = operator.index(index)
    sample = self.source[index] if self._pictures else self.source.listen(index)
    events = np.rint(sample['events'] * RATE)  # the samples that they are heard at
    start = self._start(index, events)
    inside = (events >= start) & (events < start + self._samples)
    sample['audio'] = _mixed(sample['audio'][start : start + self._samples], self._channels)
    sample['events'] = np.maximum(sample['events'][inside] - start / RATE, 0)
    for name in self.source.of_events & sample.keys():
      sample[name] = sample[name][inside]
    if self._pictures:
      first = start // self._step
      count = self._samples // self._step
      for name in self.source.of_frames & sample.keys():
        sample[name] = sample[name][first : first + count]
    return sample

  def _start(self, index: int, events: np.ndarray) -> int:
    step = self._step
    generator = np.random.default_rng((*self.source.key, index, 1))
    chance, position, which = generator.uniform(size=3)
    if chance >= _NEAR_EVENTS or not events.size:
      return int(position * (self._last + 1)) * step
    event = events[int(which * events.size)]
    start = (event - position * (self._samples - step)) // step
    return int(np.clip(start, 0, self._last)) * step


class AudioClips(ClipWindows):
  """Windows of sound files: `source[i]` is {'audio': float32 (s c), 'caption', 'source'}."""

  def __init__(self, clips: ClipIndex, *, seconds: float, rate: int, channels: int):
    super().__init__(clips, seconds)
    self._seconds, self._rate, self._channels = seconds, rate, channels

  def read(self, clip: IndexedClip, start: float, number: int, index: int) -> dict[str, Any]:
    return {'audio': _read(clip, start, self._seconds, self._rate, self._channels)}


class VideoClipsWithAudio(VideoClips):
  """Windows of videos with what is heard meanwhile: {'video', 'audio', 'caption', 'source'}."""

  def __init__(self, clips: ClipIndex, shape: Shape, *, rate: int, channels: int):
    super().__init__(clips, shape)
    self._rate, self._channels = rate, channels

  def read(self, clip: IndexedClip, start: float, number: int, index: int) -> dict[str, Any]:
    seconds = self.length(number, index)
    sound = _read(clip, start, seconds, self._rate, self._channels)
    return {'video': super().read(clip, start, number, index)['video'], 'audio': sound}


def _read(clip: IndexedClip, start: float, seconds: float, rate: int, channels: int) -> np.ndarray:
  return read_audio(clip.file, start=start, seconds=seconds, rate=rate, channels=channels)


def _mixed(audio: np.ndarray, channels: int) -> np.ndarray:
  """Sound in so many channels: one is the mean, two of one are the same twice."""
  if audio.shape[1] == channels:
    return audio
  return audio.mean(1, keepdims=True) if channels == 1 else audio.repeat(channels, axis=1)


def _world_sounds(data: DataSettings, shape: AudioShape, split: str) -> WorldWithAudio:
  seconds, fps = shape.seconds, data.fps
  frames = seconds * fps
  options = {'fps': fps, 'sound': True}
  if shape.size:
    frames = whole(frames, f'{seconds} s at {fps} frames a second')
    options['size'] = shape.size
  frames = max(data.world.get('frames', _CLIP_FRAMES), int(np.ceil(frames - 1e-6)))
  world = make_world(data, split, frames=frames, **options)
  if world.silence:
    raise ConfigError(f'config.data.{data.kind}.{world.silence}')
  return WorldWithAudio(world, seconds, bool(shape.size), data.channels)


def _sounds(
  captions: Captions, data: DataSettings, shapes: _Shapes, split: str, report: Report
) -> dict[str, Source]:
  form = _form(data, shapes)
  probe = lambda file: {'seconds': probe_audio(file).seconds, 'sounding': True}  # noqa: E731
  clips, rejected = open_clip_index(data, split, SOUND, probe, report, captions)
  lengths = {name: shape.seconds for name, shape in shapes.items()}
  least = min(lengths.values())
  needed = clips.begin + least
  for index in np.flatnonzero(needed > clips.columns['seconds'] + 1e-6).tolist():
    lasting = clips.columns['seconds'][index]
    reason = f'is too short: it lasts {lasting:.2f} s, {needed[index]:.2f} s are needed'
    rejected.append(RejectedEntry(clips.name(index), reason))
  taken = _by_length(clips, lengths, alone=data.share == 'samples')
  used = len(np.unique(np.concatenate(list(taken.values()))))
  expected = f'sounds of at least {least:.2f} s with {SOUND.wanted}'
  announce(data.path_of(split), used, rejected, expected, report)
  return {
    name: AudioClips(clips.take(indices), seconds=lengths[name], **form)
    for name, indices in taken.items()
    if len(indices)
  }


def _by_length(
  clips: ClipIndex, lengths: Mapping[str, float], alone: bool
) -> dict[str, np.ndarray]:
  """Returns the clips of each bucket: those that fill it and, if `alone`, no longer one."""
  remaining = clips.columns['seconds'] - clips.begin + 1e-6
  best = np.max([np.where(remaining >= length, length, 0) for length in lengths.values()], axis=0)
  return {
    name: np.flatnonzero(
      clips.columns['sounding'] & (best == length if alone else (remaining >= length))
    )
    for name, length in lengths.items()
  }


def _clips(
  captions: Captions, data: DataSettings, shapes: _Shapes, split: str, report: Report
) -> dict[str, Source]:
  form = _form(data, shapes)
  cut = {}
  for name, shape in shapes.items():
    if not shape.size:
      raise ConfigError(
        f"bucket {name!r}: kind='clips' needs height and width; for sound alone say kind='sounds'"
      )
    frames = whole(shape.seconds * data.fps, f'{shape.seconds} s at {data.fps} frames')
    cut[name] = Shape(frames, *shape.size, (data.fps, data.fps))
  probe = functools.partial(probe_video, shapes=cut, sounding=True)
  clips, rejected = open_clip_index(data, split, VIDEO, probe, report, captions)
  clips = clips.take(np.flatnonzero(clips.columns['sounding']))
  alone = data.share == 'samples'
  path = data.path_of(split)
  assigned = sort_out(clips, rejected, cut, path, report, not alone, data.repeats)
  return {
    name: VideoClipsWithAudio(clips.take(indices), cut[name], **form)
    for name, indices in assigned.items()
  }


def _form(data: DataSettings, shapes: _Shapes) -> dict[str, int]:
  """Rate and channels, if the lengths are whole at that rate."""
  for shape in shapes.values():
    whole(shape.seconds * data.rate, f'{shape.seconds} s at {data.rate} samples a second')
  return {'rate': data.rate, 'channels': data.channels}
