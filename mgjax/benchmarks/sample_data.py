"""Makes the records that data loading is timed with: windows of anyone's videos, random latents."""

import dataclasses
import itertools
import os
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.settings import Positive, check
from mgjax.data.buckets import Rate
from mgjax.data.ingest.clip_check import COLUMNS, make_row
from mgjax.data.ingest.entries import VIDEO
from mgjax.data.records.reader import Records, write_records
from mgjax.media.video import encode_frames, stream_clip

RATE = 25  # frames a second of the files
CRF = 20.0
_ROWS_PER_SHARD = 64

Windows = list[tuple[str, float]]  # (file, second that it begins at)


@dataclasses.dataclass(frozen=True)
class ClipSettings:
  """The clips that are read, by the keys of `configs/bench/data.py`.

  Attributes:
    path: folder of videos.
    seconds: of each video that are encoded.
    gops: frames from key frame to key frame; of each, all videos are encoded once.
    windows: clips that are read in one run.
    frames: of a clip.
    fps: frames a second of a clip.
    height: of its pictures in pixels.
    width: of its pictures in pixels.
    batch_size: clips of a batch.
  """

  path: str
  seconds: Rate
  gops: tuple[Positive, ...]
  windows: Positive
  frames: Positive
  fps: Rate
  height: Positive
  width: Positive
  batch_size: Positive

  def __post_init__(self):
    check(self)

  @property
  def batches(self) -> int:
    """Whole batches of one run."""
    return self.windows // self.batch_size


@dataclasses.dataclass(frozen=True)
class LatentSettings:
  """The latents that are read, `latents` of `configs/bench/data.py`.

  Attributes:
    rows: how many.
    shape: of one.
    batch_size: rows of a batch.
  """

  rows: Positive
  shape: tuple[Positive, ...]
  batch_size: Positive

  def __post_init__(self):
    check(self)


def make_footage(clips: ClipSettings, directory: pathlib.Path) -> dict[int, Windows]:
  """Encodes the beginning of every video of a folder, and writes records of random windows of them.

  The files are as high as the samples and may be wider. A window is a row of the records with the
  whole file it is of, as it would be of a clip that is read once an epoch.

  Args:
    clips: what they are to be like.
    directory: gets `gop_<n>/` with files and `gop_<n>/records/`.

  Returns:
    Frames from key frame to key frame -> windows, the same ones each time.

  Raises:
    DataError: there is no video that is long enough.
  """
  length, found = clips.frames / clips.fps, {}
  for gop in clips.gops:
    folder = directory / f'gop_{gop}'
    folder.mkdir(parents=True)
    files = {}
    for path in _videos(clips.path):
      name = str(folder / f'{path.stem}.mp4')
      if (seconds := _encode(path, pathlib.Path(name), clips, gop)) > length + 2 / RATE:
        files[name] = seconds
    if not files:
      raise DataError(f'{clips.path!r} holds no video of more than {length:g} s; give some')
    generator = np.random.default_rng(0)
    names = generator.choice(sorted(files), clips.windows)
    found[gop] = [
      (str(name), float(generator.uniform(0, files[name] - length - 1 / RATE))) for name in names
    ]
    _write(folder / 'records', found[gop])
  return found


def make_latents(latents: LatentSettings, directory: pathlib.Path) -> Records:
  """Writes records of random latents in bfloat16."""
  generator = np.random.default_rng(0)

  class Rows:
    def __len__(self) -> int:
      return latents.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
      row = generator.standard_normal(latents.shape, np.float32)
      return {'latents': row.astype(ml_dtypes.bfloat16), 'caption': f'row {index}'}

  return write_records(directory, Rows(), rows_per_shard=_ROWS_PER_SHARD)


def _videos(path: str | os.PathLike[str]) -> list[pathlib.Path]:
  folder = pathlib.Path(path)
  if not folder.is_dir():
    raise DataError(f'{os.fspath(path)!r} is no folder; give one with videos')
  return sorted(each for each in folder.iterdir() if each.suffix.lower() in VIDEO.suffixes)


def _encode(source: pathlib.Path, target: pathlib.Path, clips: ClipSettings, gop: int) -> float:
  """Encodes the first seconds of a video; returns how many there are."""
  size = clips.height, round(clips.width * 1.75 / 2) * 2
  most = round(RATE * clips.seconds)
  images = itertools.islice(stream_clip(source, size=size, fps=RATE), most)
  count = 0

  def frames():
    nonlocal count
    for count, image in enumerate(images, 1):
      yield (count - 1) / RATE, count / RATE, image

  target.write_bytes(encode_frames(frames(), fps=RATE, clock=RATE, crf=CRF, gop=gop))
  return count / RATE


def _write(directory: pathlib.Path, windows: Windows) -> None:
  class Rows:
    def __len__(self) -> int:
      return len(windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
      name, start = windows[index]
      return make_row(pathlib.Path(name).read_bytes(), 'footage', name, start=start)

  write_records(directory, Rows(), rows_per_shard=_ROWS_PER_SHARD, columns=COLUMNS)
