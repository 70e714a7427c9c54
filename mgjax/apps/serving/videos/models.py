"""Loads models, compiles their programs, and makes the videos of jobs in batches.

One thread calls the devices, and other threads wait for it. Waiting jobs of the same model, shape
and settings run as one batch, padded to a size that is already compiled. After every step, each job
of a batch gets a small preview, and cancelled batches end.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mgjax
from mgjax.apps.serving.videos.job_states import CancelledError, Live
from mgjax.apps.serving.videos.metrics import Metrics
from mgjax.apps.serving.videos.schema import (
  BESIDE,
  ApiError,
  Job,
  Limits,
  Offer,
  mismatch,
  plain_job,
  public,
)
from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import fields_of
from mgjax.data.settings import video_shapes
from mgjax.data.synthetic_datasets import WORLDS
from mgjax.training.checkpoints.workdir import read_config

_COMPONENTS = ('video', 'personalization', 'editing', 'upsampler', 'audio')
_PICTURES = ('first_frame', 'reference')  # conditions that can read a request's picture
_log = logging.getLogger(__name__)


class Device:
  """A thread that runs calls in order, and calls of the same key as one batch."""

  def __init__(self, batch_size: int):
    """Starts the thread; `batch_size` is the most items of one call."""
    self._batch_size = batch_size
    self._adding = threading.Lock()
    self._waiting: dict[Hashable, list[tuple[Any, concurrent.futures.Future]]] = {}
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'device')

  def call(self, key: Hashable, work: Callable[[list[Any]], Sequence[object]], item: object) -> Any:
    """Returns the result of `work` for an item; `work` may get it with others of the same key."""
    future: concurrent.futures.Future = concurrent.futures.Future()
    with self._adding:
      self._waiting.setdefault(key, []).append((item, future))
    self._thread.submit(self._run_next, key, work)  # does nothing if the item was in a batch
    return future.result()

  def _run_next(self, key: Hashable, work: Callable[[list[Any]], Sequence[object]]) -> None:
    with self._adding:
      waiting = self._waiting.pop(key, [])
      if later := waiting[self._batch_size :]:
        self._waiting[key] = later
    if waiting:
      self._run(work, waiting[: self._batch_size])

  def _run(
    self,
    work: Callable[[list[Any]], Sequence[object]],
    batch: list[tuple[Any, concurrent.futures.Future]],
  ) -> None:
    try:
      results = work([item for item, _ in batch])
    except Exception as error:
      if len(batch) > 1:  # one of them may be wrong, or they need too much memory together
        for call in batch:
          self._run(work, [call])
      else:
        batch[0][1].set_exception(error)
    else:
      for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)


class Models:
  """The models of a server: loads them, and makes the files of jobs."""

  def __init__(
    self,
    names: Sequence[str],
    loras: Mapping[str, str],
    limits: Limits,
    expert_loras: Mapping[str, str] = {},
  ):
    """Reads the configurations of models, without their weights.
    `loras` are adapters of a run, and `expert_loras` those of its expert, by the names of requests.
    Raises ConfigError if a model is missing or cannot be served, or none makes videos of prompts.
    """
    # Name -> options of `mgjax.load`.
    self._loras = {name: {'lora': path} for name, path in loras.items()}
    for name, path in expert_loras.items():
      self._loras.setdefault(name, {})['expert_lora'] = path
    self._limits = limits
    self.metrics = Metrics()
    self.offers: dict[str, Offer] = {}
    self._loaded: collections.OrderedDict[tuple[str, str], Any] = collections.OrderedDict()
    self._colours: dict[str, np.ndarray] = {}  # model -> matrix (c + 1, 3)
    self._workdirs: dict[str, str] = {}  # by model
    self._without_weights: dict[str, Any] = {}  # model -> pipeline that checks requests
    for workdir in names:
      config = read_config(workdir)
      check_one_of(f'--model={workdir}: a run of {config.component}', config.component, _COMPONENTS)
      name = _public_name(workdir)
      if self._workdirs.setdefault(name, workdir) != workdir:
        raise ConfigError(
          f'--model={workdir}: {self._workdirs[name]} is called {name!r} as well; rename a folder'
        )
      self.offers[name] = Offer(name, config.component, datasets=_datasets(config.data))
    if not any(offer.makes_videos for offer in self.offers.values()):
      raise ConfigError(f'--model={",".join(names)}: none of them makes videos of prompts')
    self._device = Device(limits.batch)
    self.ready = threading.Event()

  def warm(self) -> None:
    """Loads all models, and compiles the programs of usual requests, in the device's thread."""
    self._match_adapters()  # before the slow compilation, so that an error comes soon
    for name in self.offers:
      self._device.call(('warm', name), self._prepare, name)
    makers = [offer for offer in self.offers.values() if offer.makes_videos]
    for other in self.offers.values():
      if other.component not in ('audio', 'upsampler'):
        continue
      for maker in [m for m in makers if not mismatch(m, other, m.shapes[0][1:])][:1]:
        job = plain_job(maker, 'a', **{BESIDE[other.component]: other.name})
        with tempfile.TemporaryDirectory() as folder:
          self.make(Live(job, time.time()), pathlib.Path(folder))
    self.ready.set()

  def check(self, job: Job) -> list[str]:
    """Returns warnings: the parts of a job's prompt that its model was not trained on, or cuts.
    Raises ApiError if the model cannot run this job.
    """
    pipeline = self._without_weights[job['model']]
    for field, name in (('num_inference_steps', 'steps'), ('guidance_scale', 'guidance')):
      value = job[name]
      if value is not None:
        try:
          pipeline = pipeline.changed(**{name: {'text': value} if name == 'guidance' else value})
        except ConfigError as error:
          raise ApiError(f'{field}: {public(error)}', field) from error
    if job['negative'] and not pipeline.takes_negative:
      scale = 'give guidance_scale above 1' if job['guidance'] == 1 else 'leave it out'
      raise ApiError(
        f'negative_prompt: there is no guidance to lead away from it; {scale}', 'negative_prompt'
      )
    rate = job['fps'] if job['frames'] > 1 else None
    # The words that an adapter was trained on are not known here.
    return pipeline.describe_prompt(job['prompt'], rate, words=not job['lora'])

  def make(self, live: Live, folder: pathlib.Path, file: pathlib.Path | None = None) -> JSON:
    """Writes all files of a job to a folder, and returns their record for the API.

    `file` is the picture to start from, or the video to edit.
    Raises CancelledError if the job was cancelled, ConfigError if the model cannot run it.
    """
    from mgjax.apps.serving.videos.files import write_files

    job = live.job
    kind = [job[k] for k in ('model', 'frames', 'height', 'width', 'fps', 'steps', 'lora')]
    edit = id(live) if job['source'] else 0  # edits run one by one
    key = (*kind, job['guidance'], job['negative'], file is None, edit)
    video = self._device.call(key, self._make_videos, (live, file))
    if job['upscale']:
      video = self._device.call((job['upscale'], *kind), self._upscale, (live, video))
    live.check()

    def track(path: pathlib.Path) -> None:
      self._device.call(('sound', path), self._sound, (live, path))

    with self._timed('write'):
      return write_files(folder, video, job, track if job['soundtrack'] else None)

  def _make_videos(self, items: list[tuple[Live, pathlib.Path | None]]) -> list[Any]:
    lives = [live for live, _ in items]
    job = items[0][0].job
    offer = self.offers[job['model']]
    pipeline = self._pipeline(offer.name, job['lora'], job['steps'], job['guidance'])
    if len(lives) == 1:
      lives[0].check()
    for live in lives:
      self.metrics.queue_time.observe(time.time() - live.created)
    self.metrics.batch.observe(len(lives))
    rows = min(1 << (len(items) - 1).bit_length(), self._limits.batch)  # a compiled size
    padded = [*items, *[items[-1]] * (rows - len(items))]
    prompts, seeds = ([live.job[name] for live, _ in padded] for name in ('prompt', 'seed'))
    began = last = time.monotonic()

    def watch(step: int, steps: int, preview: Any) -> None:
      nonlocal last
      colours = np.asarray(_coloured(preview.latents, self._colours[offer.name]))
      for live, preview_colours in zip(lives, colours, strict=False):
        live.colours = preview_colours
        live.steps = steps
        live.step = step  # last: streams of events wait for it
      self.metrics.step.observe(time.monotonic() - last)
      last = time.monotonic()
      if all(live.cancelled for live in lives):
        raise CancelledError

    options: dict[str, Any] = {'batch_size': rows, 'fps': job['fps'], 'callback': watch}
    with self._timed('sample'):
      if job['source']:
        videos = list(pipeline.stream(prompts, video=items[0][1], seed=seeds[0], **options))
      else:
        if job['picture']:
          options[offer.reads] = [path for _, path in padded]
        shape = (job['frames'], job['height'], job['width'])
        options |= {'shape': shape, 'seed': seeds, 'first': [0] * rows}
        videos = list(pipeline.stream(prompts, negative=job['negative'], **options))[: len(items)]
    spent = time.monotonic() - began
    self.metrics.factor.set(len(items) * job['frames'] / job['fps'] / spent)
    return videos

  def _upscale(self, items: list[tuple[Live, Any]]) -> list[Any]:
    upsampler = self._pipeline(items[0][0].job['upscale'])
    videos = []
    with self._timed('upscale'):
      for live, video in items:
        live.check()
        options = {'scale': 2, 'fps': live.job['fps'], 'seed': live.job['seed']}
        videos.append(upsampler.generate([live.job['prompt']], video=video[None], **options)[0])
    return videos

  def _sound(self, items: list[tuple[Live, pathlib.Path]]) -> list[None]:
    from mgjax.sections.audio.files import Soundtrack

    ((live, path),) = items
    live.check()
    job = live.job
    out = path.with_name('audio.mp4')
    with self._timed('sound'):
      track = Soundtrack(job['prompt'], out, job['seed'], video=path)
      track.write(self._pipeline(job['soundtrack']))
    return [None]

  @contextlib.contextmanager
  def _timed(self, stage: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    self.metrics.stage.labels(stage).observe(time.monotonic() - began)

  def _pipeline(
    self, name: str, lora: str = '', steps: int | None = None, guidance: float | None = None
  ) -> Any:
    """Returns the pipeline of a model, loaded, with these steps and this guidance.

    Unloads the least recently used models if the loaded ones exceed the limit of memory.
    """
    key = (name, lora)
    if key not in self._loaded:
      options = self._loras[lora] if lora else {}
      self._loaded[key] = mgjax.load(self._workdirs[name], **options)
    self._loaded.move_to_end(key)
    while self._limits.memory and len(self._loaded) > 1:
      if sum(loaded.size for loaded in self._loaded.values()) <= self._limits.memory * 1e9:
        break
      self._loaded.popitem(last=False)
    text = None if guidance is None else {'text': guidance}
    return self._loaded[key].variant(steps=steps, guidance=text)

  def _prepare(self, names: list[str]) -> list[None]:
    """Loads a model, completes its offer, and compiles its programs for each batch size."""
    (name,) = names
    began = time.monotonic()
    pipeline = self._pipeline(name)
    offer = self.offers[name]
    if offer.component == 'upsampler':
      shapes = video_shapes(fields_of(pipeline.config, 'buckets'), pipeline.config.data.fps)
      shapes = tuple((shape.frames, *shape.size) for shape in shapes.values())
      self.offers[name] = dataclasses.replace(offer, shapes=shapes)
    elif offer.component != 'audio':
      self._without_weights[name] = pipeline.without_weights()
      fps = pipeline.config.data.fps
      usual = pipeline.default_shape
      buckets = video_shapes(fields_of(pipeline.config, 'buckets'), fps).values()
      shapes = {(bucket.frames, *bucket.size) for bucket in buckets} - {usual}
      self.offers[name] = offer = dataclasses.replace(
        offer,
        shapes=(usual, *sorted(shapes, reverse=True)),
        fps=float(fps),
        steps=pipeline.settings['steps'],
        reads=next((condition for condition in _PICTURES if condition in pipeline.reads), ''),
        words=tuple(pipeline.words),
        most_steps=self._limits.steps,
        takes_guidance=_allows(pipeline, guidance={'text': 2.0}),
        example=_example(offer),
      )
      # Both the objective and options of the schedule refuse numbers of steps, so each is tried.
      steps = range(1, offer.most_steps + 1)
      able = [number for number in steps if _allows(pipeline, steps=number)]
      if len(able) < offer.most_steps:
        self.offers[name] = offer = dataclasses.replace(offer, steps_able=tuple(able))
      largest = 1 if offer.component == 'editing' else self._limits.batch
      for rows in sorted({min(1 << power, largest) for power in range(9)}):
        self._warm(offer, pipeline, rows)
    _log.info('%s is ready after %.0f s', name, time.monotonic() - began)
    return [None]

  def _match_adapters(self) -> None:
    """Adds adapters to the offers of the models that they fit. Raises ConfigError if none fits."""
    makers = [name for name, offer in self.offers.items() if offer.makes_videos]
    for lora, options in self._loras.items():
      errors = []
      for name in makers:
        try:
          mgjax.load(self._workdirs[name], **options)
        except ConfigError as error:
          errors.append(error)
        else:
          loras = (*self.offers[name].loras, lora)
          self.offers[name] = dataclasses.replace(self.offers[name], loras=loras)
      if len(errors) == len(makers):
        given = ' '.join(f'--{flag}={lora}={path}' for flag, path in options.items())
        raise ConfigError(f'{given}: {errors[0]}; give another one')

  def _warm(self, offer: Offer, pipeline: Any, rows: int) -> None:
    """Compiles the programs of a batch of `rows` videos, and fits the colours of previews.

    The latents z of a position become colours `[z, 1] M`. M has the least squared error to the
    decoded video, averaged over the pixels of the position.
    """
    previews: list[Any] = []
    options: dict[str, Any] = {
      'callback': lambda *step: previews.append(step[2].latents),
      'batch_size': rows,
    }
    if offer.component == 'editing':
      options['video'] = np.random.default_rng(0).integers(0, 256, (*offer.shapes[0], 3), np.uint8)
    else:
      options |= {'seed': list(range(rows)), 'first': [0] * rows}
    if offer.reads:
      picture = [np.full((*offer.shapes[0][1:], 3), 128, np.uint8)] * rows
      list(pipeline.stream(['a'] * rows, **options, **{offer.reads: picture}))
    videos = np.stack(list(pipeline.stream(['a'] * rows, **options)))
    latents = np.asarray(previews[-1], np.float32)
    small = jax.image.resize(jnp.asarray(videos, jnp.float32), (*latents.shape[:4], 3), 'linear')
    points = np.concatenate([latents, np.ones_like(latents[..., :1])], -1)
    points = points.reshape(-1, points.shape[-1])
    matrix, *_ = np.linalg.lstsq(points, np.asarray(small).reshape(-1, 3), rcond=None)
    self._colours[offer.name] = matrix
    _coloured(previews[-1], matrix)


def _allows(pipeline: Any, **changes: Any) -> bool:
  try:
    pipeline.changed(**changes)
  except ConfigError:
    return False
  return True


def _example(offer: Offer) -> str:
  if offer.component == 'editing':
    return 'make it blue'
  return WORLDS[offer.datasets[0]].example if offer.datasets[0] in WORLDS else ''


def _public_name(workdir: str) -> str:
  """Returns the name of a model for clients: a relative path or a name, or the last part of it.

  The rest of an absolute path or a URL is private.
  """
  hidden = os.path.isabs(workdir) or '..' in workdir or ':' in workdir or workdir.startswith('~')
  return pathlib.PurePath(workdir).name if hidden else workdir


def _datasets(data: Any) -> tuple[str, ...]:
  """Returns the names of the datasets of training, the main one first; 'clips' without a name."""
  sources = [data, *data.get('sources', {}).values()]
  kinds = [source.get('kind', data.kind) for source in sources]
  return tuple(dict.fromkeys(kind if kind in WORLDS else 'clips' for kind in kinds))


@jax.jit
def _coloured(latents: jax.Array, matrix: jax.Array) -> jax.Array:
  ones = jnp.ones_like(latents[..., :1])
  colours = jnp.concatenate([latents, ones], -1) @ matrix
  return jnp.clip(colours, 0, 255).astype(jnp.uint8)
