"""Edits video files: read, edited and written frame by frame, the sound untouched."""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from mgjax.checkpoints.workdir import read_config_of
from mgjax.core.errors import ConfigError
from mgjax.core.files import check_places, read_optional_json, write_json
from mgjax.core.settings import Count, Positive, Range, check, fields_of
from mgjax.data.ingest.edit_bench import EditRequest
from mgjax.editing.pipeline import Editor, Frame, model_rate, pipeline_of
from mgjax.editing.requests import EDIT, SDEDIT, STRENGTH, check_edit
from mgjax.editing.sdedit import Strength
from mgjax.flow_models.build import make_flow_model
from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.containers import ANY_LENGTH
from mgjax.media.provenance import release
from mgjax.media.transcode import write_frames
from mgjax.media.video import ClipInfo, probe, stream_frames
from mgjax.media.viewing import write_clip
from mgjax.runtime.progress import Progress
from mgjax.text.prompts import clean_prompt, frame_rate_of
from mgjax.video import files as video_files

SHEET_FRAMES = 4  # of the picture, before and after


@dataclasses.dataclass(frozen=True)
class Request:
  """One video to edit.

  Attributes:
    video: the file; a picture is a video of one frame.
    instruction: what to change, or of SDEdit what the edited video shows.
    task: which kind of edit it is, '' for none; None has it guessed.
    how: 'edit' or 'sdedit'.
    strength: of SDEdit.
    seed: of all noise.
    rows: windows in a call of the model.
    crf: the constant rate factor of x264; lower is better and larger.
  """

  video: str
  instruction: str
  task: str | None = None
  how: str = EDIT
  strength: Strength = STRENGTH
  seed: Count = 0
  rows: Positive = 8
  crf: Annotated[float, Range(least=0, most=51)] = 16.0

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True)
class Job:
  """A request that can be done.

  Attributes:
    video: what is edited.
    instruction: cleaned.
    fps: that the model reads: the instruction's, else the video's, within `RATES`.
    out: what is written, an .mp4, or of one frame also a .png.
    sheet: beside it, the picture of some frames.
    record: beside it, the json.
  """

  video: ClipInfo
  instruction: str
  fps: float
  out: pathlib.Path
  sheet: pathlib.Path
  record: pathlib.Path


def check_workdir(
  workdir: str | os.PathLike[str], request: Request, changes: Mapping[str, Any] = {}
) -> None:
  """Checks whether the model of a run can do what is asked for; needs no weights.

  Args:
    workdir: of the run.
    request: what is asked for.
    changes: as of `Editor`.

  Raises:
    ConfigError: it cannot.
  """
  kind = pipeline_of(workdir)
  config = read_config_of(workdir, kind.component, kind.noun)
  model = make_flow_model(fields_of(config, 'model'))
  check_edit(model, workdir, request.how, [request.instruction], [request.task])
  video_files.check_request(workdir, [], changes=changes, pipeline=kind)


def check_request(request: Request, out: str | os.PathLike[str]) -> Job:
  """Returns what is to be done, if files can be read and written; needs no model.

  Raises:
    ConfigError: there is no instruction, it is refused, or nothing can be written to `out`, or
      only over the video.
    DataError: the video cannot be read.
  """
  path = pathlib.Path(out)
  instruction = clean_prompt(request.instruction)
  release.admit([instruction])
  video = probe(request.video)
  if path.suffix != '.mp4' and (path.suffix != '.png' or video.frames > 1):
    raise ConfigError(
      f'--out={path}: {video.frames} frame(s) are written as .mp4, one also as .png; name it so'
    )
  fps = frame_rate_of(instruction, None, model_rate(video.fps))
  sheet, record = path.with_name(f'{path.stem}_sheet.png'), path.with_suffix('.json')
  check_places(path, (path, sheet, record), request.video)
  return Job(video, instruction, fps, path, sheet, record)


def write_edited(
  pipeline: Editor, request: Request, out: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Edits a video and writes it, in memory that does not grow with its length.

  Frames keep their times, and the sound is copied packet by packet. Beside the video there are a
  picture of some frames, before above after, and a json with everything needed to make it again.

  Returns:
    What was written.

  Raises:
    ConfigError: it cannot be done; before anything is made.
    DataError: the file cannot be read.
  """
  pipeline.check_edit(request.how, [request.instruction], [request.task])
  job = check_request(request, out)
  unknown = pipeline.tell([job.instruction], [job.fps] if job.video.frames > 1 else None)
  size = pipeline.size_for(job.video.frames, (job.video.height, job.video.width))
  shown: list[tuple[Frame, Frame]] = []
  count = job.video.frames
  kept = set(np.linspace(0, count - 1, SHEET_FRAMES).round().astype(int).tolist())
  waiting = collections.deque[
    tuple[float, float, Frame]
  ]()  # times and frames that are in the making
  digests = {name: hashlib.sha256() for name in ('source_pixels', 'pixels')}

  def before() -> Iterator[Frame]:
    for timed in stream_frames(request.video, limits=ANY_LENGTH, size=size):
      waiting.append(timed)
      digests['source_pixels'].update(timed[2].tobytes())
      yield timed[2]

  def after() -> Iterator[tuple[float, float, Frame]]:
    made = pipeline.edit_frames(
      before(), job.instruction, task=request.task, how=request.how, strength=request.strength,
      fps=job.fps, seed=request.seed, rows=request.rows,
    )  # fmt: skip
    with progress.waiting('compiling the model and making the first frames'):
      first = next(made)
    for number, frame in enumerate(itertools.chain([first], made)):
      start, end, source = waiting.popleft()
      digests['pixels'].update(frame.tobytes())
      frame = release.postprocess(frame[None])[0]
      if number in kept:
        shown.append((source, frame))
      yield start, end, frame
      progress.report(min(number + 1, count))

  with contextlib.closing(Progress(count, unit='frame')) as progress:
    if job.out.suffix == '.png':
      write_clip(job.out, np.stack([frame for *_, frame in after()]), job.fps, scale=1)
    else:
      write_frames(job.out, after(), fps=job.video.fps, crf=request.crf, sound_of=request.video)
  rows = [np.stack(frames) for frames in zip(*shown, strict=True)]
  contact_sheet(job.sheet, rows, ['before', job.instruction], columns=SHEET_FRAMES)
  height, width = size
  asked = _described(pipeline, request)
  made: dict[str, Any] = {'height': height, 'width': width, 'fps': job.fps}
  made |= {name: digest.hexdigest()[:16] for name, digest in digests.items()}
  made |= {'unknown_words': unknown[0]} | release.described()
  release.sign([job.out, job.sheet], made_from=request.video)
  write_json(job.record, pipeline.provenance | {'request': asked} | made)
  return [job.out, job.sheet, job.record]


def write_bench(
  pipeline: Editor,
  rows: Sequence[EditRequest],
  out: str | os.PathLike[str],
  /,  # `rows` is an option too
  **options: Any,
) -> Iterator[pathlib.Path]:
  """Makes the edits of a bench, each as `write_edited` writes it, and yields the videos.

  Those that are there already are passed over, so that the same call again goes on where it
  stopped.

  Args:
    pipeline: the editor.
    rows: what is asked for; a task that the model does not know is left out.
    out: a folder.
    **options: of `Request`, for all.

  Raises:
    ConfigError: an edit cannot be done, or one that is there was made by another request.
    DataError: a video cannot be read.
  """
  folder = pathlib.Path(out)
  for number, row in enumerate(rows):
    sdedit = options.get('how') == SDEDIT
    instruction = clean_prompt((sdedit and row.target) or row.instruction)
    task = row.task if row.task in pipeline.tasks else None
    request = Request(str(row.video), instruction, None if sdedit else task, **options)
    path = folder / f'{number:04d}_{row.video.stem}.mp4'
    made = read_optional_json(path.with_suffix('.json'), lambda record: 'request' in record)
    wanted = json.loads(
      json.dumps(pipeline.provenance | {'request': _described(pipeline, request)})
    )
    if made is None:
      write_edited(pipeline, request, path)
    elif changed := [key for key, value in wanted.items() if made.get(key) != value]:
      raise ConfigError(
        f'{path} was made with other {changed[0]}; take another --out, or delete it'
      )
    yield path


def _described(pipeline: Editor, request: Request) -> dict[str, Any]:
  """A request as its json has it: cleaned, with the task that is taken."""
  instruction = clean_prompt(request.instruction)
  task = pipeline.name_task(instruction, request.task, request.how)
  return dataclasses.asdict(request) | {'instruction': instruction, 'task': task}
