"""Clips in which something is marked, by a segmenter of the user's own (Movie Gen §5).

Generative segmentation teaches an editor to change a video where the instruction says and nowhere
else. Its pairs are clips and the same clips with a layer of colour over one thing, which needs no
edited video, only masks.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError, MgjaxError, first_line, printable
from mgjax.core.files import write_bytes
from mgjax.core.settings import Checked, Count, Positive, Range
from mgjax.core.typing import Float, UInt8
from mgjax.data.clip_index import tell_captions
from mgjax.data.ingest.entries import SOURCE, TASK, MediaEntry, RejectedEntry, list_entries
from mgjax.data.media.transcode import write_frames
from mgjax.data.media.video import probe, stream_frames
from mgjax.lab.report.tables import csv_text
from mgjax.models.text.prompts import prompt_hash
from mgjax.training.monitoring.progress import track

FILE = 'pairs.csv'
COLOURS: Mapping[str, tuple[int, int, int]] = {
  'red': (230, 40, 40),
  'green': (40, 200, 60),
  'blue': (50, 90, 240),
  'yellow': (240, 220, 40),
}
Segmenter = Callable[[UInt8[np.ndarray, 't h w 3'], str], Any]


@dataclasses.dataclass(frozen=True)
class MarkSettings(Checked):
  """How clips are marked; none of it is in public sources."""

  # Of the layer: so little that no recolouring looks like it.
  opacity: Annotated[float, Range(above=0, most=1)] = 0.3
  # Share of all pixels of a clip that its masks cover at least, or there is nothing to see.
  least: Annotated[float, Range(least=0, below=1)] = 0.002
  frames: Positive = 512  # of a clip at most: a segmenter sees all of them at once
  crf: Annotated[float, Range(least=0, most=51)] = 12.0  # of x264, of the marked clip
  seed: Count = 0  # of the colours


@dataclasses.dataclass(frozen=True)
class Marked:
  """What came of the clips of a folder."""

  pairs: int  # how many the manifest has
  rejected: dict[str, str]  # name -> why a clip has none
  path: pathlib.Path  # of the manifest


def mark_clips(
  source: str | os.PathLike[str],
  output: str | os.PathLike[str],
  segmenter: Segmenter,
  settings: MarkSettings = MarkSettings(),
) -> Marked:
  """Writes marked clips, and the manifest of pairs that `configs/clips/editing.py` trains on.

  The source is a folder of clips, or a manifest, see `list_entries`. What a clip shows, and what
  is to be marked, is its caption. A segmenter (frames (t h w 3), what) returns masks (t h w) of
  [0, 1], or of False and True. A marked clip that is there already is not made again, so the same
  call goes on after a stop.
  Raises DataError if no clip can be marked.
  """
  output = pathlib.Path(output)
  output.mkdir(parents=True, exist_ok=True)
  entries = list_entries(pathlib.Path(source))
  tell_captions(source, entries)
  rows = []
  rejected = {}
  for index, entry in enumerate(track(entries, len(entries), 'clip')):
    if isinstance(entry, RejectedEntry):
      rejected[entry.name] = entry.reason
      continue
    colour = list(COLOURS)[np.random.default_rng((settings.seed, index)).integers(len(COLOURS))]
    instruction = f'mark {entry.caption} in {colour}'
    path = output / f'{index:06d}_{prompt_hash(instruction)}.mp4'
    try:
      if not path.exists():
        _mark(entry, path, COLOURS[colour], segmenter, settings)
    except ConfigError:
      raise
    except MgjaxError as error:
      rejected[entry.name] = first_line(error)
      continue
    source_video = _beside(path, entry.path)
    rows.append({'video': path.name, SOURCE: source_video, 'caption': instruction, TASK: 'mark'})
  if not rows:
    why = next(iter(rejected.items()), ('', 'it is empty'))
    raise DataError(
      f'none of {len(entries)} clips of {printable(os.fspath(source))} can be marked; the first, '
      f'{printable(why[0])}: {why[1]}'
    )
  columns = ('video', SOURCE, 'caption', TASK)
  write_bytes(output / FILE, csv_text(columns, rows).encode())
  return Marked(len(rows), rejected, output / FILE)


def _beside(marked: pathlib.Path, clip: pathlib.Path) -> str:
  """Puts the clip into the folder of its marked one, for no manifest leads out of its own."""
  path = marked.with_stem(f'{marked.stem}_source').with_suffix(clip.suffix)
  if not path.exists():
    part = path.with_name(f'.{path.name}')
    part.unlink(missing_ok=True)
    try:
      os.link(clip, part)
    except OSError:  # on another disk, or one without links
      shutil.copyfile(clip, part)
    part.replace(path)
  return path.name


def _mark(
  entry: MediaEntry,
  path: pathlib.Path,
  colour: tuple[int, int, int],
  segmenter: Segmenter,
  settings: MarkSettings,
) -> None:
  timed = []
  for frame in stream_frames(entry.path):
    timed.append(frame)
    if len(timed) > settings.frames:
      raise DataError(f'has over {settings.frames} frames; cut it, or raise the limit of frames')
  masks = _masks(segmenter, np.stack([frame for _, _, frame in timed]), entry.caption)
  if masks.mean() < settings.least:
    raise DataError(
      f'the segmenter found {entry.caption!r} in {masks.mean():.2%} of its pixels; expected '
      f'{settings.least:.2%} at least'
    )

  def marked() -> Iterator[tuple[float, float, np.ndarray]]:
    for (start, end, frame), mask in zip(timed, masks, strict=True):
      layer = settings.opacity * mask[..., None]
      yield start, end, np.rint(frame + layer * (np.float32(colour) - frame)).astype(np.uint8)

  rate = probe(entry.path).fps or 1.0
  write_frames(path, marked(), fps=rate, crf=settings.crf, sound_of=entry.path)


def _masks(
  segmenter: Segmenter, frames: UInt8[np.ndarray, 't h w 3'], what: str
) -> Float[np.ndarray, 't h w']:
  masks = np.asarray(segmenter(frames, what), np.float32)
  if masks.shape != frames.shape[:3] or not ((masks >= 0) & (masks <= 1)).all():
    span = f' from {masks.min():.3g} to {masks.max():.3g}' if masks.size else ''
    raise ConfigError(
      f'the segmenter returned masks of shape {masks.shape}{span} for frames of '
      f'{frames.shape}; expected {frames.shape[:3]}, of [0, 1]'
    )
  return masks
