"""Writes samples of an evaluation: videos and audio for its page, several ways side by side."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mgjax.core.typing import Float, UInt8
from mgjax.data.media.audio import write_wav
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.viewing import write_clip

# Index of a sample, path without a suffix -> the written file; None if there is no sample.
Show = Callable[[int, pathlib.Path], pathlib.Path | None]
Samples = Mapping[int, np.ndarray] | Sequence[np.ndarray] | np.ndarray  # by index


@dataclasses.dataclass(frozen=True)
class SampleViews:
  """Several videos of one sample, name -> video; an image is repeated as a still video."""

  title: str
  ways: Mapping[str, UInt8[np.ndarray, '_ h w 3']]

  @property
  def beside(self) -> UInt8[np.ndarray, 't h v 3']:
    """All views side by side."""
    frames = max(map(len, self.ways.values()))
    ways = (np.repeat(video, frames // len(video), 0) for video in self.ways.values())
    return np.concatenate(list(ways), axis=2)


def draw_below(path: pathlib.Path, views: Sequence[SampleViews]) -> pathlib.Path:
  """Draws the views of samples below each other."""
  rows = [video for view in views for video in view.ways.values()]
  contact_sheet(path, rows, [f'{view.title}: {way}' for view in views for way in view.ways])
  return path


def clips_of(videos: Samples, fps: float) -> Show:
  """Returns the function that writes a video as .mp4, or as .png if it has one frame."""

  def write(video: np.ndarray, stem: pathlib.Path) -> pathlib.Path:
    path = stem.with_suffix('.mp4' if len(video) > 1 else '.png')
    write_clip(path, video, fps)
    return path

  return _show_of(videos, write)


def sounds_of(sounds: Mapping[int, Float[np.ndarray, 's c']], rate: int) -> Show:
  """Returns what writes the audio, as .wav."""

  def write(sound: np.ndarray, stem: pathlib.Path) -> pathlib.Path:
    path = stem.with_suffix('.wav')
    write_wav(path, np.clip(sound, -1, 1), rate)
    return path

  return _show_of(sounds, write)


def _show_of(samples: Samples, write: Callable[[np.ndarray, pathlib.Path], pathlib.Path]) -> Show:
  samples = samples if isinstance(samples, Mapping) else dict(enumerate(samples))

  def show(index: int, stem: pathlib.Path) -> pathlib.Path | None:
    return write(np.asarray(samples[index]), stem) if index in samples else None

  return show
