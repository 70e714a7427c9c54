"""Enlarges video files: read, upsampled and written frame by frame, the sound untouched."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.core.resize import resize
from mgjax.core.settings import Count, Positive, Range, check
from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.containers import LIMITS
from mgjax.media.transcode import write_frames
from mgjax.media.video import probe, stream_frames
from mgjax.runtime.progress import Progress
from mgjax.text.prompts import clean_prompt
from mgjax.upsampler.pipeline import Frame, Upsampler, scaled_size

SHEET_FRAMES = 4  # of the picture, which shows a part of each
_ANY = dataclasses.replace(LIMITS, frames=10**9)  # frames that come one by one fill no memory


@dataclasses.dataclass(frozen=True)
class Request:
  """One video to enlarge.

  Attributes:
    video: the file.
    scale: of both sides.
    size: height and width of the result, in place of `scale`.
    prompt: what it shows; '' where nobody says.
    seed: of all noise.
    rows: windows in a call of the model.
    crf: the constant rate factor of x264; lower is better and larger.
  """

  video: str
  scale: Annotated[float, Range(least=1, most=16)] = 2.0
  size: tuple[Positive, Positive] | None = None
  prompt: str = ''
  seed: Count = 0
  rows: Positive = 8
  crf: Annotated[float, Range(least=0, most=51)] = 16.0

  def __post_init__(self):
    check(self)


def write_upsampled(
  pipeline: Upsampler, request: Request, out: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Enlarges a video and writes it, in memory that does not grow with its length.

  Beside the mp4, whose frames keep their times and whose sound is copied packet by packet, there
  are a picture of some frames, bicubic and upsampled, and a json with everything needed to make it
  again.

  Returns:
    What was written.

  Raises:
    ConfigError: the video would be too large; before anything is made.
    DataError: the file cannot be read.
  """
  out, info = check_out(out), probe(request.video)
  size = request.size or scaled_size((info.height, info.width), request.scale)
  shown: list[tuple[Frame, Frame]] = []
  kept = set(np.linspace(0, info.frames - 1, SHEET_FRAMES).round().astype(int).tolist())
  waiting: list[tuple[float, float, Frame]] = []  # times and frames that are in the making
  digest = hashlib.sha256()

  def small() -> Iterator[Frame]:
    for timed in stream_frames(request.video, limits=_ANY):
      waiting.append(timed)
      yield timed[2]

  def large() -> Iterator[tuple[float, float, Frame]]:
    prompt = clean_prompt(request.prompt) if request.prompt else ''
    made = pipeline.stream(
      small(), size=size, prompt=prompt, fps=info.fps, seed=request.seed, rows=request.rows
    )
    for number, frame in enumerate(made):
      start, end, before = waiting.pop(0)
      if number in kept:
        shown.append((before, frame))
      digest.update(frame.tobytes())
      yield start, end, frame
      progress.report(min(number + 1, info.frames))

  out.parent.mkdir(parents=True, exist_ok=True)
  with contextlib.closing(Progress(info.frames, unit='frame')) as progress:
    write_frames(out, large(), fps=info.fps, crf=request.crf, sound_of=request.video)
  sheet, record = out.with_name(f'{out.stem}_sheet.png'), out.with_suffix('.json')
  _write_sheet(sheet, shown, size)
  made: dict[str, Any] = {'height': size[0], 'width': size[1], 'pixels': digest.hexdigest()[:16]}
  write_json(record, pipeline.provenance | {'request': dataclasses.asdict(request)} | made)
  return [out, sheet, record]


def check_out(out: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the place of an mp4.

  Raises:
    ConfigError: it is called otherwise, or is a folder.
  """
  out = pathlib.Path(out)
  if out.suffix != '.mp4' or out.is_dir():
    raise ConfigError(f'--out={out}: expected the name of an .mp4, as in large.mp4')
  return out


def _write_sheet(
  path: pathlib.Path, shown: list[tuple[Frame, Frame]], size: tuple[int, int]
) -> None:
  """Draws the middle of some frames, in rows of bicubic and upsampled, pixel by pixel."""
  height, width = (min(side, 256) for side in size)
  top, left = (size[0] - height) // 2, (size[1] - width) // 2

  def middle(frames: list[Frame]) -> np.ndarray:
    return np.stack(frames)[:, top : top + height, left : left + width]

  bicubic = [resize(before[None], size, 'bicubic')[0] for before, _ in shown]
  rows = [middle(bicubic), middle([after for _, after in shown])]
  contact_sheet(path, rows, ['bicubic', 'upsampled'], columns=SHEET_FRAMES)
