"""What is asked of a flow model: prompts, conditions, files in and out, and the record of it all.

A section's own request is a subclass of `Request`. Its fields are the flags of `launch.sample` and
the options of a pipeline's `save`. `check` refuses impossible values before any weights are read,
and `write` makes the files with a pipeline. The record is the .json beside them.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import check_places, parse_json, write_json
from mgjax.core.settings import Positive, Range, Seed, check, fields_of, unpack
from mgjax.core.typing import UInt8
from mgjax.data.media.containers import ANY_LENGTH
from mgjax.data.media.provenance import release
from mgjax.data.media.transcode import write_frames
from mgjax.data.media.video import ClipInfo, probe, stream_frames
from mgjax.data.media.viewing import write_clip
from mgjax.models.flow_model.build import make_flow_model, make_sampler_of
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.models.text.prompts import RATES, clean_prompt, frame_rate_of
from mgjax.training.checkpoints.workdir import read_config
from mgjax.training.monitoring.progress import Progress

VideoFrame = UInt8[np.ndarray, 'h w 3']
SHEET_FRAMES = 4  # of a changed video that its picture shows, before and after


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked of a model in one call; its prompts are cleaned, and admitted or refused.

  Attributes:
    prompts: what to make, one each; None is one of nothing in particular.
    out: where to write it, a file or a folder; by default out.mp4 or what suits in its place.
    seed: of all noise.
    batch_size: videos or tracks of audio, or windows of a long one, in a call of the model.
  """

  needs_prompt: ClassVar[bool] = True  # at the command line

  prompts: Any = None
  out: str | os.PathLike[str] | None = None
  seed: Seed = 0
  batch_size: Positive = 8

  def __post_init__(self):
    check(self)
    prompts = [self.prompts] if isinstance(self.prompts, str) else self.prompts or ['']
    cleaned = tuple(clean_prompt(prompt) if prompt else '' for prompt in prompts)
    object.__setattr__(self, 'prompts', cleaned)
    release.admit(cleaned)

  @classmethod
  def of(cls, prompts: Any, out: str | os.PathLike[str], **options: Any) -> Self:
    """Makes a request of the options of `save`: those that are no fields are conditions by name."""
    fields = {field.name for field in dataclasses.fields(cls)}
    if 'conditions' in fields:
      named = {name: options.pop(name) for name in options.keys() - fields}
      options['conditions'] = {**options.get('conditions', {}), **named}
    return cls(prompts, out, **options)

  @property
  def prompt(self) -> str:
    """The one prompt. Raises ConfigError if there are several."""
    if len(self.prompts) != 1:
      raise ConfigError(f'{len(self.prompts)} prompts; this model makes one thing at a time')
    return self.prompts[0]

  def check(self, workdir: str | os.PathLike[str], changes: Mapping[str, object] = {}) -> None:
    """Checks whether the model of a run can do it; needs no weights.

    `changes` are of `config.sample`, as of a pipeline. Raises ConfigError if it cannot, and
    DataError if a file cannot be read.
    """
    model_of(workdir, changes)

  def write(self, pipeline: object) -> list[pathlib.Path]:
    """Makes what is asked for and writes it, the json last.

    Args:
      pipeline: of the section, as `mgjax.load` returns it.

    Returns:
      What was written.

    Raises:
      ConfigError: it cannot be done; before anything is made.
      DataError: a file cannot be read.
    """
    raise NotImplementedError

  def described(self) -> dict[str, Any]:
    """Returns the request as plain JSON values, without its output path and unset conditions."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    del fields['prompts'], fields['out']
    if 'conditions' in fields:
      fields['conditions'] = describe_conditions(fields['conditions'])
    fields = {key: os.fspath(v) if isinstance(v, os.PathLike) else v for key, v in fields.items()}
    return {'prompt': self.prompt, **fields}


@dataclasses.dataclass(frozen=True)
class Change(Request):
  """A video to change frame by frame: its frames keep their times, and its sound stays as it is.

  Attributes:
    video: the file; a picture is a video of one frame.
    crf: the constant rate factor of x264; lower is better and larger.
  """

  video: str | os.PathLike[str] | None = None
  crf: Annotated[float, Range(least=0, most=51)] = 16.0

  def paths(self, video: ClipInfo) -> list[pathlib.Path]:
    """Returns the paths of the video, the picture of some frames and the json, if they may be.
    Raises ConfigError if nothing can be written there, or only over the video.
    """
    out = pathlib.Path(self.out or 'out.mp4')
    if out.suffix != '.mp4' and (out.suffix != '.png' or video.frames > 1):
      raise ConfigError(
        f'--out={out}: {video.frames} frame(s) are written as .mp4, one also as .png; name it so'
      )
    paths = [out, out.with_name(f'{out.stem}_sheet.png'), out.with_suffix('.json')]
    check_places(out, paths, os.fspath(self.video))
    return paths

  def probe(self) -> ClipInfo:
    """Looks at the video.

    Raises:
      ConfigError: none is given.
      DataError: it cannot be read.
    """
    if self.video is None:
      raise ConfigError('--video is missing: what is changed, as in --video=in.mp4')
    return probe(self.video)

  def rate(self, video: ClipInfo) -> float:
    """Returns the frames a second that the model reads: the prompt's, else the video's."""
    return frame_rate_of(self.prompt, None, model_rate(video.fps))

  def _write_frames(
    self,
    path: pathlib.Path,
    video: ClipInfo,
    make: Callable[[Iterator[VideoFrame]], Iterator[VideoFrame]],
    size: tuple[int, int] | None = None,
  ) -> tuple[list[list[VideoFrame]], dict[str, str]]:
    """Writes the video changed by `make`, in memory that does not grow with its length.

    Args:
      path: an .mp4, or of one frame a .png.
      make: frames -> changed frames.
      size: at which frames are read; None reads them as they are.

    Returns:
      Some frames, those before and those after; digests of all, as the model read and made them.
    """
    sheet_pairs: list[tuple[VideoFrame, VideoFrame]] = []
    sheet_numbers = set(np.linspace(0, video.frames - 1, SHEET_FRAMES).round().astype(int).tolist())
    # Times and frames of the video that `make` has not returned yet.
    waiting: collections.deque[tuple[float, float, VideoFrame]] = collections.deque()
    digests = {name: hashlib.sha256() for name in ('source_pixels', 'pixels')}

    def before() -> Iterator[VideoFrame]:
      for timed in stream_frames(self.video, limits=ANY_LENGTH, size=size):
        waiting.append(timed)
        digests['source_pixels'].update(timed[2].tobytes())
        yield timed[2]

    def after() -> Iterator[tuple[float, float, VideoFrame]]:
      changed = make(before())
      with progress.waiting('compiling the model and making the first frames'):
        first = next(changed)
      for number, frame in enumerate(itertools.chain([first], changed)):
        start, end, source = waiting.popleft()
        digests['pixels'].update(frame.tobytes())
        frame = release.postprocess(frame[None])[0]
        if number in sheet_numbers:
          sheet_pairs.append((source, frame))
        yield start, end, frame
        progress.report(min(number + 1, video.frames))

    with contextlib.closing(Progress(video.frames, unit='frame')) as progress:
      if path.suffix == '.png':
        write_clip(path, np.stack([frame for *_, frame in after()]), self.rate(video), scale=1)
      else:
        write_frames(path, after(), fps=video.fps, crf=self.crf, sound_of=self.video)
    pairs = [list(frames) for frames in zip(*sheet_pairs, strict=True)]
    return pairs, {name: digest.hexdigest()[:16] for name, digest in digests.items()}

  def _finish(self, paths: list[pathlib.Path], record: Fields) -> list[pathlib.Path]:
    """Signs the video and its picture, writes the json, the last of the paths, and returns all."""
    release.sign(paths[:-1], made_from=self.video)
    write_json(paths[-1], {**record, **release.described()})
    return paths


def model_of(
  workdir: str | os.PathLike[str], changes: Mapping[str, object] = {}
) -> tuple[FlowModel, Any]:
  """Returns the network of a run, without weights, and the run's configuration.
  Raises ConfigError if there is no such run, or it cannot be sampled with these changes.
  """
  config = read_config(workdir)
  model = make_flow_model(fields_of(config, 'model'))
  settings = unpack(SampleSettings, fields_of(config, 'sample'), 'sample').changed(changes)
  objective = unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective')
  make_sampler_of(settings, objective, model)
  return model, config


def model_rate(fps: float) -> float:
  """Returns frames a second within what models are asked for."""
  return min(max(fps, RATES.least), RATES.most)


def read_prompts(path: str | os.PathLike[str]) -> tuple[list[str], dict[str, list[Any]]]:
  """Returns the prompts of a file, cleaned, and conditions by name, one for each prompt.

  A file of another name than .jsonl has prompts alone, one a line. A line of a .jsonl is an object
  with 'prompt' and conditions, as in {"prompt": "a dog", "first_frame": "dog.png"}. Empty lines are
  skipped.

  Raises:
    ConfigError: a prompt holds no text.
    DataError: the file cannot be read, or holds no prompt.
  """
  try:
    lines = pathlib.Path(path).read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'cannot read prompts from {os.fspath(path)!r}: {error}') from error
  lines = [line for line in lines if line.strip()]
  if not lines:
    raise DataError(f'{os.fspath(path)!r} holds no prompts; write one a line')
  if pathlib.Path(path).suffix != '.jsonl':
    return [clean_prompt(line) for line in lines], {}
  rows = []
  for number, line in enumerate(lines, 1):
    mend = 'write an object with "prompt" and conditions'
    row = parse_json(line, f'line {number} of {os.fspath(path)!r}', error=DataError, mend=mend)
    if not isinstance(row.get('prompt'), str):
      raise DataError(f'line {number} of {os.fspath(path)!r} has no "prompt"; {mend}')
    rows.append(row)
  names = {name for row in rows for name in row} - {'prompt'}
  prompts = [clean_prompt(row['prompt']) for row in rows]
  return prompts, {name: [row.get(name) for row in rows] for name in sorted(names)}


def checked_video(video: Any) -> UInt8[np.ndarray, 'b t h w 3']:
  """Returns one video or several as an array with an axis for them.
  Raises DataError if it is something else.
  """
  if isinstance(video, str | os.PathLike):
    raise DataError(
      f'video = {os.fspath(video)!r} is a file; give its frames, uint8 (t h w 3), or call '
      "save(None, 'out.mp4', video=...), which reads files"
    )
  array = np.asarray(video)
  array = array[None] if array.ndim == 4 else array
  if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] != 3 or not array.size:
    raise DataError(
      f'a video of {array.dtype} {np.shape(video)}; expected uint8 (t h w 3), or (b t h w 3)'
    )
  return array


def describe_conditions(conditions: Mapping[str, Any]) -> dict[str, Any]:
  """Returns conditions as plain JSON values; arrays become their shape and a digest."""

  def describe(value: Any) -> Any:
    if isinstance(value, list | tuple):
      return [describe(entry) for entry in value]
    if isinstance(value, os.PathLike):
      return os.fspath(value)
    if hasattr(value, 'shape'):
      array = np.ascontiguousarray(value)
      digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
      return {'shape': list(array.shape), 'dtype': str(array.dtype), 'digest': digest}
    return value

  return {name: describe(value) for name, value in conditions.items() if value is not None}
