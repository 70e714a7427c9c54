"""A trained video editor with its autoencoder: videos and instructions in, edited videos out."""

import contextlib
import functools
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError, DataError, check_one_of, printable
from mgjax.core.settings import Positive, Strength, checked, fields_of
from mgjax.core.typing import Array, Batch, Tree, UInt8
from mgjax.data.media.clips import Clips, formed, fps_of, stacked
from mgjax.data.media.video import probe, stream_frames
from mgjax.data.settings import video_shapes
from mgjax.flow.frame_noise import frame_noise
from mgjax.flow.guidance import make_guided
from mgjax.flow.path import FlowMatching
from mgjax.flow.prediction import make_prediction
from mgjax.flow.streaming import TimeWindows
from mgjax.models.conditioning.clips.source_video import SOURCE_VIDEO_KEY as SOURCE
from mgjax.models.conditioning.edit_task import TASK_KEY as TASK
from mgjax.models.flow_model.conditions import condition_fields
from mgjax.models.flow_model.initial_noise import draw, seeds_of
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.flow_model.sampling import make_predict
from mgjax.models.flow_model.settings import SampleSettings
from mgjax.models.text.prompts import frame_rate_of
from mgjax.models.text.vocabulary import shortened
from mgjax.parallel.rules import place_rows
from mgjax.sections.editing.files import Edited
from mgjax.sections.editing.requests import EDIT, SDEDIT, STRENGTH, check_edit, name_task, tasks_of
from mgjax.sections.editing.sdedit import noised, rest_of_grid
from mgjax.sections.editing.windows import edit_windows
from mgjax.sections.flow.calls import (
  OUTPUT_TYPES,
  Callback,
  Seeds,
  callable_as,
  rows_of,
  watch_steps,
)
from mgjax.sections.flow.requests import VideoFrame, checked_video, model_rate
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.workdir import read_config

_Video = UInt8[np.ndarray, 't h w 3']
_STILL = 0.5  # of latents; edits that change something reach 0.7 and more, others 0.3 at most
_log = logging.getLogger(__name__)


class _Edit(NamedTuple):
  """One video to edit; `index` is that among those of a seed."""

  video: _Video
  prompt: str
  task: str
  rate: float
  index: int
  seed: int


class Editor(VideoPipeline):
  """Edits videos by instruction with a run of component 'editing'; attributes as `FlowPipeline`.

  With `how='sdedit'` it edits by SDEdit, which also works with a run of text to video. Without a
  `video` it is the `VideoPipeline` of its weights.

  A video that is longer than the clips of training is covered by windows, of which neighbours share
  half of their latents; their velocities are averaged at every step of the solver.
  """

  component = 'editing'
  noun = 'a video editor'

  def __init__(self, workdir: str | os.PathLike[str], **options: object):
    """Reads the averaged weights of an editor, or for SDEdit of text to video; see `FlowPipeline`.

    Of `mesh`, 'data' shares out videos and windows.
    """
    if read_config(workdir, self.component).component == VideoPipeline.component:
      self.component, self.noun = VideoPipeline.component, VideoPipeline.noun
    super().__init__(workdir, **options)
    if self._objective.student:
      teacher = self._objective.teacher
      raise ConfigError(
        f'{os.fspath(workdir)!r} learned from {"a teacher" if teacher else "data"} to sample in '
        'fewer steps, and editing needs a velocity; give '
        f'{f"its teacher, {printable(teacher)}" if teacher else "the run that it started from"}'
      )
    if options.get('shifts'):
      raise ConfigError(f'shifts = {options["shifts"]}: edits have no shifted turns; give none')

  def _use(self, settings: SampleSettings) -> None:
    super()._use(settings)
    self._prediction = make_prediction(self._objective.prediction)
    self._velocity = jax.jit(_make_velocity(self._model, self._prediction, settings.guidance))

  @property
  def window(self) -> int:
    """Frames of what is made at a time: of the longest clips of training."""
    return self.default_shape[0]

  @functools.partial(callable_as, like=VideoPipeline.stream)
  def stream(
    self,
    prompts: Sequence[str] | str | None = None,
    *,
    video: Any = None,
    task: Sequence[str | None] | str | None = None,
    how: str = EDIT,
    strength: Strength | None = None,
    seed: Seeds = 0,
    first: int = 0,
    fps: float | None = None,
    batch_size: Positive = 32,
    callback: Callback | None = None,
    output_type: str = 'np',
    **options: Any,
  ) -> Iterator[Any]:
    """Edits one video an instruction, in order. Its dependencies are those of `VideoPipeline`.

    Args:
      prompts: instructions, one each; with SDEdit, what the edited videos show.
      video: a file, uint8 (t h w 3), images of PIL, or a list of one each. A file is brought to a
        size that the model makes; an array has one. None makes videos of the prompts alone.
      task: which kind of edit each is, a name of `tasks_of`, or '' for none; None has it guessed.
      how: 'edit', or 'sdedit', which noises the video and follows the prompt alone from there.
      strength: how much of the video is noised to begin with, above 0, hardly changed, to 1,
        nothing is kept; None for `STRENGTH` of SDEdit, and of an edit for what the run says.
      seed: of all noise.
      first: index of the first video among those of this seed.
      fps: frames a second; by default those of a file, of a prompt or of training.
      batch_size: videos, or windows of a long one, at a time.
      callback: as of `VideoPipeline.stream`; of videos longer than a window none.
      output_type: 'np' or 'pil', and where there is no video 'latent'.
      **options: of `VideoPipeline.stream`, where there is no video.

    Raises:
      ConfigError: there is no instruction, not one for each video, or the model cannot make such
        videos or does not know the task.
      DataError: a file cannot be read, or an array is no video.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts or [])
    if video is None:
      if how != EDIT:
        raise ConfigError(f'there is no video for how={how!r}; give one, or leave it out')
      options |= {TASK: task} if task else {}
      options |= {'seed': seed, 'first': first, 'fps': fps, 'batch_size': batch_size}
      options |= {'callback': callback, 'output_type': output_type}
      yield from super().stream(prompts or None, **options)
      return
    check_one_of(f'output_type = {output_type!r}', output_type, OUTPUT_TYPES[:2])
    if options:
      raise ConfigError(f'{min(options)} does not go with a video, which has its own')
    tasks = [task] * len(prompts) if task is None or isinstance(task, str) else list(task)
    self.check_edit(how, prompts, tasks)
    listed = isinstance(video, list | tuple)
    # Images of PIL are frames of one video, as of other pipelines.
    listed = listed and not hasattr(next(iter(video), None), 'getbands')
    several = listed or getattr(video, 'ndim', 0) == 5
    clips = list(video) if several else [video] * len(prompts)
    if not len(clips) == len(tasks) == len(prompts):
      raise ConfigError(
        f'{len(prompts)} instructions for {len(clips)} videos and {len(tasks)} tasks; give one each'
      )
    edits = []
    seeds = seed if isinstance(seed, list) else [seed] * len(clips)
    for row, (clip, prompt, kind) in enumerate(zip(clips, prompts, tasks, strict=True)):
      frames, usual = self._read_clip(clip)
      rate = frame_rate_of(prompt, fps, usual)
      kind = self.name_task(prompt, kind, how)
      edits.append(_Edit(frames, prompt, kind, rate, first + row, seeds[row]))
    for batch, size in _batches(edits, batch_size, self.window):
      edit = batch[0]
      if len(edit.video) <= self.window:
        padded = batch + batch[-1:] * (size - len(batch))
        edited_clips = self._whole(padded, how, strength, callback)[: len(batch)]
      else:
        frames = [*self._stream_windows(edit.video, edit, how, strength, batch_size)]
        edited_clips = [np.stack(frames)]
      for edit, edited in zip(batch, edited_clips, strict=True):
        yield formed(Clips.of(edited, fps=edit.rate), output_type)

  @functools.partial(callable_as, like=stream)
  def generate(self, prompts: Sequence[str] | str | None = None, **options: Any) -> Any:
    """Edits one video an instruction, all in one array, with the options of `stream`.

    Raises ConfigError as `stream`, or if the videos are not of one shape.
    """
    videos = list(self.stream(prompts, **options))
    if len(shapes := sorted({np.shape(video)[:3] for video in videos})) > 1:
      raise ConfigError(
        f'the videos are of several shapes, {shapes[0]} and {shapes[1]}; stream() yields such one '
        'by one'
      )
    return stacked(videos)

  def edit_frames(
    self,
    frames: Iterable[VideoFrame],
    prompt: str,
    *,
    task: str | None = None,
    how: str = EDIT,
    strength: float | None = None,
    fps: float | None = None,
    seed: int = 0,
    index: int = 0,
    rows: int = 8,
  ) -> Iterator[VideoFrame]:
    """Yields the edited version of each frame, in memory that does not grow with their number.

    Args:
      frames: uint8 (h w 3), all of one size that the model makes.
      prompt: the instruction; with SDEdit, what the edited video shows.
      task: which kind of edit it is; None where nobody says.
      how: 'edit' or 'sdedit'.
      strength: as of `stream`.
      fps: frames a second; by default those of the prompt or of training.
      seed: of all noise.
      index: of the video among those of this seed.
      rows: windows in a call of the model.

    Raises:
      ConfigError: the model cannot make such videos, or does not know the task.
      DataError: there are no frames, or of several sizes.
    """
    self.check_edit(how, [prompt], [task])
    frames = iter(frames)
    head = list(itertools.islice(frames, self.window + 1))
    if len(shapes := sorted({frame.shape for frame in head})) > 1:
      raise DataError(f'frames of {shapes[0]} and of {shapes[1]}; expected all of one size')
    clip = checked_video(head)[0]
    self.check((min(len(clip), self.window), *clip.shape[1:3]))
    task = self.name_task(prompt, task, how)
    rate = frame_rate_of(prompt, fps, self.config.data.fps)
    edit = _Edit(clip, prompt, task, rate, index, seed)
    if len(clip) <= self.window:
      yield from self._whole([edit], how, strength)[0]
      return
    yield from self._stream_windows(itertools.chain(head, frames), edit, how, strength, rows)

  @callable_as
  def save(
    self, prompts: Sequence[str] | str | None, out: str | os.PathLike[str], **options: Any
  ) -> list[Any]:
    """Edits a video file and writes it, with the fields of `Edited` as options.

    Without a `video` it is that of `VideoPipeline`.
    """
    if 'video' not in options:
      return super().save(prompts, out, **options)
    return self._make_request(Edited, prompts, out, **options).write(self)

  @property
  def tasks(self) -> tuple[str, ...]:
    """Names the tasks that the model was trained on."""
    return tasks_of(self._model)

  def name_task(self, instruction: str, task: str | None, how: str = EDIT) -> str:
    """Returns the task of an instruction, see `requests.name_task`; SDEdit reads none."""
    return name_task(instruction, task, self.tasks) if how == EDIT else ''

  def check_edit(self, how: str, prompts: Sequence[str], tasks: Sequence[str | None]) -> None:
    """Raises ConfigError if the model cannot edit in this way, or the task is missing."""
    check_edit(self._model, self.weights['workdir'], how, prompts, tasks)

  def size_for(self, frames: int, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the height and width at which a video is edited.

    A video that is larger than the clips of training keeps its size if the model can make it.
    Others get the most similar size among those of the longest clips of training.
    """
    shapes = video_shapes(fields_of(self.config, 'buckets'), self.config.data.fps).values()
    sizes = sorted({shape.size for shape in shapes if shape.frames == self.window})
    usual = min(
      sizes, key=lambda candidate: abs(math.log(candidate[0] * size[1] / (candidate[1] * size[0])))
    )
    if math.prod(size) > math.prod(usual):
      with contextlib.suppress(ConfigError):
        self.check((min(frames, self.window), *size))
        return size
    return usual

  def _read_clip(self, video: Any) -> tuple[_Video, float]:
    """Returns a video that the model can make, and its frames a second, by default training's."""
    if isinstance(video, str | os.PathLike):
      info = probe(video)
      size = self.size_for(info.frames, (info.height, info.width))
      fps = model_rate(info.fps)
      clip = np.stack([frame for *_, frame in stream_frames(video, size=size)])
    else:
      clips = checked_video(video)
      fps = fps_of(video, 1, self.config.data.fps)[0]
      if len(clips) != 1:
        raise ConfigError(f'{len(clips)} videos for one instruction; give one each')
      clip = clips[0]
    self.check((min(len(clip), self.window), *clip.shape[1:3]))
    return clip, fps

  def _whole(
    self,
    edits: Sequence[_Edit],
    how: str,
    strength: float | None,
    callback: Callback | None = None,
  ) -> UInt8[np.ndarray, 'b t h w 3']:
    """Edits videos of one shape and no more than a window, all in one call of the model."""
    videos = np.stack([edit.video for edit in edits])
    shape = videos.shape[1:4]
    batch = self._conditions(edits, shape, {SOURCE: list(videos)} if how == EDIT else {})
    indices = np.array([edit.index for edit in edits])
    noise = draw(*seeds_of([e.seed for e in edits], indices), shape=self._codec.latent_shape(shape))
    decode = functools.partial(self._decode, count=len(edits), frames=shape[0])
    with self._devices():
      strength, times = self._rest(how, strength)
      if strength < 1:
        source = self._encode(jnp.asarray(videos)) if how == SDEDIT else batch[SOURCE]
        noise = noised(source, noise, strength, self._sigma_min)
      latents = self._sample(batch, noise, watch_steps(callback, decode), *times)
      if how == EDIT:
        self._tell_unchanged(edits, latents, batch[SOURCE])
      return decode(latents)

  def _tell_unchanged(self, edits: Sequence[_Edit], edited: Array, source: Array) -> None:
    """Warns of edits that change no position of the latents, whose deviation is 1."""
    change = np.square(np.asarray(edited, np.float32) - np.asarray(source, np.float32)).mean(-1)
    still = change.max((1, 2, 3)) < _STILL**2
    for prompt in dict.fromkeys(e.prompt for e, same in zip(edits, still, strict=True) if same):
      _log.warning(
        '%s: the edit %s changed nothing; describe the object as the captions of training do, as '
        "in 'make the red ball yellow'",
        self.weights['workdir'],
        shortened(prompt),
      )

  def _rest(self, how: str, strength: float | None) -> tuple[float, tuple[float, ...]]:
    """Returns the strength and the times that it leaves; no times where those are all."""
    if strength is None:
      strength = STRENGTH if how == SDEDIT else self._settings.strength
    known: float = checked(Strength, strength, 'strength')
    return known, tuple(rest_of_grid(self._times, known)) if known < 1 else ()

  def _stream_windows(
    self,
    frames: Iterable[VideoFrame],
    edit: _Edit,
    how: str,
    strength: float | None,
    rows: int,
  ) -> Iterator[VideoFrame]:
    """Edits a video of any length."""
    strength, times = self._rest(how, strength)
    height, width = edit.video.shape[1:3]
    batch = self._conditions([edit], (self.window, height, width), {})
    window, *spatial = self._codec.latent_shape((self.window, height, width))
    index = np.array([edit.index])

    def start(latents: Array, begin: int, stop: int) -> Array:
      noise = frame_noise(edit.seed, index, begin, stop, tuple(spatial))[0]
      return noised(latents, jnp.asarray(noise), strength, self._sigma_min)

    edited = edit_windows(
      self._codec,
      functools.partial(self._velocity, self._params),
      frames,
      # All but the ends are made twice; how many the report shares is not in public sources.
      TimeWindows(window, overlap=window // 2, rows=rows),
      start=start,
      reads=how == EDIT,
      times=np.array(times or self._times),
      constant={name: np.asarray(value) for name, value in batch.items()},
      solver=self._settings.solver_of_windows,
    )
    for part in self._on_devices(edited):
      yield from part

  @property
  def _sigma_min(self) -> float:
    return self._prediction.sigma_min if isinstance(self._prediction, FlowMatching) else 0.0

  def _conditions(
    self, edits: Sequence[_Edit], shape: tuple[int, int, int], conditions: Mapping[str, Any]
  ) -> Batch:
    """Returns the batch of instructions and other conditions."""
    fields = condition_fields(self._model.conditionings, shape, self._codec.latent_shape(shape))
    if TASK in fields:
      conditions = {**conditions, TASK: [edit.task for edit in edits]}
    rates = [edit.rate for edit in edits] if shape[0] > 1 else None
    samples = self._samples([edit.prompt for edit in edits], conditions, fields, rates)
    return self._batch(self._read_conditions(samples, fields))


def _batches(edits: Sequence[_Edit], most: int, window: int) -> Iterator[tuple[list[_Edit], int]]:
  """Groups neighbours of one shape, with the size of their batches.

  A video that is longer than a window stands alone.
  """
  for shape, neighbours in itertools.groupby(edits, lambda edit: edit.video.shape):
    group = list(neighbours)
    size = rows_of(len(group), most) if shape[0] <= window else 1
    for begin in range(0, len(group), size):
      yield group[begin : begin + size], size


def _make_velocity(
  model: FlowModel, prediction: Any, guidance: Any
) -> Callable[[Tree, Batch, Array, Array], Array]:
  """Makes `velocity(params, batch, x, time)` of windows (b t h w c), a function to compile."""

  def velocity(params: Tree, batch: Batch, x: Array, time: Array) -> Array:
    predict = prediction.as_velocity(make_predict(model, params))
    batch = {name: place_rows(value) for name, value in batch.items()}
    return make_guided(predict, batch, guidance)(place_rows(x), time)

  return velocity
