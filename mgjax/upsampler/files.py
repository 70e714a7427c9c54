"""Enlarges video files: read, upsampled and written frame by frame, the sound untouched."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.files import check_places, write_json
from mgjax.core.resize import resize
from mgjax.core.settings import Count, Positive, Range, check
from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.containers import ANY_LENGTH
from mgjax.media.provenance import release
from mgjax.media.transcode import write_frames
from mgjax.media.video import ClipInfo, probe, stream_frames
from mgjax.runtime.progress import Progress
from mgjax.text.prompts import RATES, clean_prompt, frame_rate_of
from mgjax.upsampler.geometry import check_size
from mgjax.upsampler.pipeline import Frame, Upsampler, scaled_size

SHEET_FRAMES = 4  # of the picture, which shows a part of each


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


@dataclasses.dataclass(frozen=True)
class Job:
  """A request that can be done.

  Attributes:
    video: what is enlarged.
    size: height and width of the result.
    prompt: cleaned; '' where nobody says.
    fps: that the model reads: the prompt's, else the video's, within what models are asked for.
    mp4: what is written.
    sheet: beside it, the picture of some frames.
    record: beside it, the json.
  """

  video: ClipInfo
  size: tuple[int, int]
  prompt: str
  fps: float
  mp4: pathlib.Path
  sheet: pathlib.Path
  record: pathlib.Path


def check_request(request: Request, out: str | os.PathLike[str]) -> Job:
  """Returns what is to be done, if it can be: nothing of it needs the weights.

  Raises:
    ConfigError: the result would be too large, the prompt is none or refused, or nothing can be
      written to `out`, or only over the video.
    DataError: the video cannot be read.
  """
  mp4 = pathlib.Path(out)
  if mp4.suffix != '.mp4':
    raise ConfigError(f'--out={mp4}: expected the name of an .mp4, as in large.mp4')
  video = probe(request.video)
  size = request.size or scaled_size((video.height, video.width), request.scale)
  check_size(size)
  prompt = clean_prompt(request.prompt) if request.prompt else ''
  release.admit([prompt])
  fps = frame_rate_of(prompt, None, min(max(video.fps, RATES.least), RATES.most))
  job = Job(
    video, size, prompt, fps, mp4, mp4.with_name(f'{mp4.stem}_sheet.png'), mp4.with_suffix('.json')
  )
  check_places(mp4, (job.mp4, job.sheet, job.record), request.video)
  return job


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
    ConfigError: it cannot be done, as `check_request` says before anything is made.
    DataError: the file cannot be read.
  """
  job = check_request(request, out)
  shown: list[tuple[np.ndarray, np.ndarray]] = []
  count = job.video.frames
  kept = set(np.linspace(0, count - 1, SHEET_FRAMES).round().astype(int).tolist())
  waiting: list[tuple[float, float, Frame]] = []  # times and frames that are in the making
  digest = hashlib.sha256()

  def small() -> Iterator[Frame]:
    for timed in stream_frames(request.video, limits=ANY_LENGTH):
      waiting.append(timed)
      yield timed[2]

  def large() -> Iterator[tuple[float, float, Frame]]:
    made = pipeline.stream(
      small(), size=job.size, prompt=job.prompt, fps=job.fps, seed=request.seed, rows=request.rows
    )
    with progress.waiting('compiling the model and making the first frames'):
      first = next(made)
    for number, frame in enumerate(itertools.chain([first], made)):
      start, end, before = waiting.pop(0)
      digest.update(frame.tobytes())
      frame = release.postprocess(frame[None])[0]
      if number in kept:
        shown.append((before, frame))
      yield start, end, frame
      progress.report(min(number + 1, count))

  with contextlib.closing(Progress(count, unit='frame')) as progress:
    write_frames(job.mp4, large(), fps=job.video.fps, crf=request.crf, sound_of=request.video)
  _write_sheet(job.sheet, shown, job.size)
  height, width = job.size
  made: dict[str, Any] = {'height': height, 'width': width, 'pixels': digest.hexdigest()[:16]}
  made |= release.described()
  release.sign([job.mp4, job.sheet], made_from=request.video)
  write_json(job.record, pipeline.provenance | {'request': dataclasses.asdict(request)} | made)
  return [job.mp4, job.sheet, job.record]


def _write_sheet(
  path: pathlib.Path, shown: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, int]
) -> None:
  """Draws the middle of some frames, in rows of bicubic and upsampled, pixel by pixel."""
  height, width = (min(side, 256) for side in size)
  top, left = (size[0] - height) // 2, (size[1] - width) // 2

  def middle(frames: list[Frame]) -> np.ndarray:
    return np.stack(frames)[:, top : top + height, left : left + width]

  bicubic = [resize(before[None], size, 'bicubic')[0] for before, _ in shown]
  rows = [middle(bicubic), middle([after for _, after in shown])]
  contact_sheet(path, rows, ['bicubic', 'upsampled'], columns=SHEET_FRAMES)
