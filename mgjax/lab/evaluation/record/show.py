"""Writes samples of an evaluation: videos and audio for its page, several ways side by side."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mgjax.core.typing import Float, UInt8
from mgjax.data.media.audio import write_wav
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.viewing import write_clip

# Place of a sample, where to write it without an ending -> the file that shows it; None for none.
Show = Callable[[int, pathlib.Path], pathlib.Path | None]
Samples = Mapping[int, np.ndarray] | Sequence[np.ndarray] | np.ndarray  # by place


@dataclasses.dataclass(frozen=True)
class Shown:
  """One sample in several ways, name -> video; one of one frame stands still beside the others."""

  title: str
  ways: Mapping[str, UInt8[np.ndarray, '_ h w 3']]

  @property
  def beside(self) -> UInt8[np.ndarray, 't h v 3']:
    """All ways side by side."""
    frames = max(map(len, self.ways.values()))
    ways = (np.repeat(video, frames // len(video), 0) for video in self.ways.values())
    return np.concatenate(list(ways), axis=2)


def draw_below(path: pathlib.Path, shown: Sequence[Shown]) -> pathlib.Path:
  """Draws the ways of samples below each other."""
  rows = [video for each in shown for video in each.ways.values()]
  contact_sheet(path, rows, [f'{each.title}: {way}' for each in shown for way in each.ways])
  return path


def clips_of(videos: Samples, fps: float) -> Show:
  """Returns what writes the videos that there are, as .mp4 and those of one frame as .png."""

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

  def show(place: int, stem: pathlib.Path) -> pathlib.Path | None:
    return write(np.asarray(samples[place]), stem) if place in samples else None

  return show
