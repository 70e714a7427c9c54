"""Owns the devices: loads models, warms their programs, and makes videos in batches.

One thread calls the devices, whatever other threads wait for it. What waits and is of one kind
(model, shape, settings) goes through a model together, filled up to a size that is compiled
already. After every step each job of a batch has a small preview, and its cancel is looked at.
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
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import fields_of
from mgjax.data.settings import video_shapes
from mgjax.data.synthetic_datasets import WORLDS
from mgjax.training.checkpoints.workdir import read_config

_COMPONENTS = ('video', 'personalization', 'editing', 'upsampler', 'audio')
_PICTURES = ('first_frame', 'reference')  # conditions that a picture to start from goes to
_SETTINGS = 8  # steps and scales of guidance that a model is ready for
_log = logging.getLogger(__name__)


class CancelledError(Exception):
  """All jobs of a batch were cancelled."""


@dataclasses.dataclass
class Live:
  """A job in the making: what another thread may look at, or set."""

  job: Job
  created: float
  cancelled: bool = False
  step: int = 0
  steps: int = 0
  colours: np.ndarray | None = None  # uint8 (t h w 3), of the latents

  @property
  def percent(self) -> int:
    """How much of it is done, in steps; 100 is for what is there to be had."""
    return min(99, 100 * self.step // self.steps) if self.steps else 0

  def check(self) -> None:
    """Raises CancelledError if somebody cancelled it."""
    if self.cancelled:
      raise CancelledError


class Device:
  """One thread that calls what waits, in order, what is of one key at once."""

  def __init__(self, most: int):
    """Begins; `most` is how many are handed to a call."""
    self._most = most
    self._adding = threading.Lock()
    self._waiting: dict[Hashable, list[tuple[Any, concurrent.futures.Future]]] = {}
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'device')

  def call(self, key: Hashable, work: Callable[[list[Any]], Sequence[Any]], item: Any) -> Any:
    """Returns what `work` makes of an item, which it may get with others of the same key."""
    future: concurrent.futures.Future = concurrent.futures.Future()
    with self._adding:
      self._waiting.setdefault(key, []).append((item, future))
    self._thread.submit(self._turn, key, work)  # a turn for each, those of a batch for nothing
    return future.result()

  def _turn(self, key: Hashable, work: Callable[[list[Any]], Sequence[Any]]) -> None:
    with self._adding:
      found = self._waiting.pop(key, [])
      if later := found[self._most :]:
        self._waiting[key] = later
    if found:
      self._work(work, found[: self._most])

  def _work(self, work: Callable[[list[Any]], Sequence[Any]], chosen: list[Any]) -> None:
    try:
      made = work([item for item, _ in chosen])
    except Exception as error:
      if len(chosen) > 1:  # one of them is wrong, or together they are too much
        for each in chosen:
          self._work(work, [each])
      else:
        chosen[0][1].set_exception(error)
    else:
      for (_, future), each in zip(chosen, made, strict=True):
        future.set_result(each)


class Models:
  """The models of a server, by their names, and what they make of jobs."""

  def __init__(self, names: Sequence[str], loras: Mapping[str, str], limits: Limits):
    """Looks at the models, without their weights.
    Raises ConfigError if one is not there, cannot be served, or there is none that makes videos.
    """
    self._loras = dict(loras)
    self._limits = limits
    self.metrics = Metrics()
    self.offers: dict[str, Offer] = {}
    self._loaded: collections.OrderedDict[tuple[str, str], dict] = collections.OrderedDict()
    self._colours: dict[str, np.ndarray] = {}  # model -> matrix (c + 1, 3)
    self._places: dict[str, str] = {}  # model -> where it lies
    self._plain: dict[str, Any] = {}  # model -> it without its weights, to check requests
    for place in names:
      config = read_config(place)
      check_one_of(f'--model={place}: a run of {config.component}', config.component, _COMPONENTS)
      name = _shown_name(place)
      if self._places.setdefault(name, place) != place:
        raise ConfigError(
          f'--model={place}: {self._places[name]} is called {name!r} as well; rename a folder'
        )
      self.offers[name] = Offer(name, config.component, datasets=_datasets(config.data))
    if not any(offer.makes_videos for offer in self.offers.values()):
      raise ConfigError(f'--model={",".join(names)}: none of them makes videos of prompts')
    self._device = Device(limits.batch)
    self.ready = threading.Event()

  def warm(self) -> None:
    """Loads all models and compiles what the usual requests need; on the device's thread."""
    self._fit_adapters()  # before anything is compiled, so that a wrong one is soon said
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
    """Says what the model of a job does not read of its prompt, in sentences.
    Raises ApiError if it cannot make this.
    """
    pipeline = self._plain[job['model']]
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
    # Words of an adapter are not known; what is cut is.
    return pipeline.describe_prompt(job['prompt'], rate, words=not job['lora'])

  def make(
    self, live: Live, folder: pathlib.Path, given: pathlib.Path | None = None
  ) -> dict[str, Any]:
    """Makes all files of a job into a folder, and returns what is known of them beside the job.

    `given` is the picture to start from, or the video to edit.
    Raises CancelledError if somebody cancelled it, ConfigError if it cannot be made.
    """
    from mgjax.apps.serving.videos.files import write_files

    job = live.job
    kind = [job[k] for k in ('model', 'frames', 'height', 'width', 'fps', 'steps', 'lora')]
    edit = id(live) if job['source'] else 0  # which goes alone
    key = (*kind, job['guidance'], job['negative'], given is None, edit)
    video = self._device.call(key, self._make_videos, (live, given))
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
    rows = min(1 << (len(items) - 1).bit_length(), self._limits.batch)  # as they were compiled
    padded = [*items, *[items[-1]] * (rows - len(items))]
    prompts, seeds = ([live.job[name] for live, _ in padded] for name in ('prompt', 'seed'))
    began = last = time.monotonic()

    def watch(step: int, steps: int, preview: Any) -> None:
      nonlocal last
      colours = np.asarray(_coloured(preview.latents, self._colours[offer.name]))
      for live, shown in zip(lives, colours, strict=False):
        live.colours, live.steps, live.step = shown, steps, step
      self.metrics.step.observe(time.monotonic() - last)
      last = time.monotonic()
      if all(live.cancelled for live in lives):
        raise CancelledError

    options: dict[str, Any] = {'batch_size': rows, 'fps': job['fps'], 'callback': watch}
    with self._timed('sample'):
      if job['source']:
        made = list(pipeline.stream(prompts, video=items[0][1], seed=seeds[0], **options))
      else:
        if job['picture']:
          options[offer.reads] = [path for _, path in padded]
        shape = (job['frames'], job['height'], job['width'])
        options |= {'shape': shape, 'seed': seeds, 'first': [0] * rows}
        made = list(pipeline.stream(prompts, negative=job['negative'], **options))[: len(items)]
    spent = time.monotonic() - began
    self.metrics.factor.set(len(items) * job['frames'] / job['fps'] / spent)
    return made

  def _upscale(self, items: list[tuple[Live, Any]]) -> list[Any]:
    upsampler = self._pipeline(items[0][0].job['upscale'])
    made = []
    with self._timed('upscale'):
      for live, video in items:
        live.check()
        options = {'scale': 2, 'fps': live.job['fps'], 'seed': live.job['seed']}
        made.append(upsampler.generate([live.job['prompt']], video=video[None], **options)[0])
    return made

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
    """Returns a loaded model; those that were not used for longest make room."""
    key = (name, lora)
    usual = (None, None)
    asked = (steps, guidance)
    if key not in self._loaded:
      options = {'lora': self._loras[lora]} if lora else {}
      self._loaded[key] = {usual: mgjax.load(self._places[name], **options)}
    self._loaded.move_to_end(key)
    while self._limits.memory and len(self._loaded) > 1:
      if sum(each[usual].size for each in self._loaded.values()) <= self._limits.memory * 1e9:
        break
      self._loaded.popitem(last=False)
    made = self._loaded[key]
    if asked not in made:  # with programs of its own, of which some are kept
      text = None if guidance is None else {'text': guidance}
      made[asked] = made[usual].changed(steps=steps, guidance=text)
      if len(made) > _SETTINGS:
        del made[next(each for each in made if each != usual)]
    return made[asked]

  def _prepare(self, names: list[str]) -> list[None]:
    """Loads a model, says what it can do, and compiles its programs for each size of a batch."""
    (name,) = names
    began = time.monotonic()
    pipeline = self._pipeline(name)
    offer = self.offers[name]
    if offer.component == 'upsampler':
      shapes = video_shapes(fields_of(pipeline.config, 'buckets'), pipeline.config.data.fps)
      shapes = tuple((each.frames, *each.size) for each in shapes.values())
      self.offers[name] = dataclasses.replace(offer, shapes=shapes)
    elif offer.component != 'audio':
      self._plain[name] = pipeline.without_weights()
      fps = pipeline.config.data.fps
      usual = pipeline.default_shape
      buckets = video_shapes(fields_of(pipeline.config, 'buckets'), fps).values()
      shapes = {(each.frames, *each.size) for each in buckets} - {usual}
      self.offers[name] = offer = dataclasses.replace(
        offer,
        shapes=(usual, *sorted(shapes, reverse=True)),
        fps=float(fps),
        steps=pipeline.settings['steps'],
        reads=next((each for each in _PICTURES if each in pipeline.reads), ''),
        words=tuple(pipeline.words),
        most_steps=self._limits.steps,
        takes_guidance=_can(pipeline, guidance={'text': 2.0}),
        example=_example(offer),
      )
      able = [each + 1 for each in range(offer.most_steps) if _can(pipeline, steps=each + 1)]
      if len(able) < offer.most_steps:
        self.offers[name] = offer = dataclasses.replace(offer, steps_able=tuple(able))
      most = 1 if offer.component == 'editing' else self._limits.batch
      for rows in sorted({min(1 << power, most) for power in range(9)}):
        self._warm(offer, pipeline, rows)
    _log.info('%s is ready after %.0f s', name, time.monotonic() - began)
    return [None]

  def _fit_adapters(self) -> None:
    """Offers adapters with the models that they fit. Raises ConfigError if there is none."""
    makers = [name for name, offer in self.offers.items() if offer.makes_videos]
    for lora, place in self._loras.items():
      wrong = []
      for name in makers:
        try:
          mgjax.load(self._places[name], lora=place)
        except ConfigError as error:
          wrong.append(error)
        else:
          able = (*self.offers[name].loras, lora)
          self.offers[name] = dataclasses.replace(self.offers[name], loras=able)
      if len(wrong) == len(makers):
        raise ConfigError(f'--lora={lora}={place}: {wrong[0]}; give another one')

  def _warm(self, offer: Offer, pipeline: Any, rows: int) -> None:
    """Compiles the programs of so many videos, and fits what shows their latents in colour.

    Latents z of a place become colours `[z, 1] M`; M is that of the least squared error to what
    the autoencoder decodes of them, averaged over the pixels of the place.
    """
    seen: list[Any] = []
    options: dict[str, Any] = {
      'callback': lambda *step: seen.append(step[2].latents),
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
    latents = np.asarray(seen[-1], np.float32)
    small = jax.image.resize(jnp.asarray(videos, jnp.float32), (*latents.shape[:4], 3), 'linear')
    points = np.concatenate([latents, np.ones_like(latents[..., :1])], -1)
    points = points.reshape(-1, points.shape[-1])
    matrix, *_ = np.linalg.lstsq(points, np.asarray(small).reshape(-1, 3), rcond=None)
    self._colours[offer.name] = matrix
    _coloured(seen[-1], matrix)


def _can(pipeline: Any, **changes: Any) -> bool:
  try:
    pipeline.changed(**changes)
  except ConfigError:
    return False
  return True


def _example(offer: Offer) -> str:
  if offer.component == 'editing':
    return 'make it blue'
  return WORLDS[offer.datasets[0]].example if offer.datasets[0] in WORLDS else ''


def _shown_name(place: str) -> str:
  """Returns what clients call a model: not where it lies, but for a name or from here on."""
  below = not (os.path.isabs(place) or '..' in place or ':' in place or place.startswith('~'))
  return place if below else pathlib.PurePath(place).name


def _datasets(data: Any) -> tuple[str, ...]:
  """Names what a model was trained on, the main dataset first; whatever has no name is 'clips'."""
  given = [data, *data.get('sources', {}).values()]
  kinds = [each.get('kind', data.kind) for each in given]
  return tuple(dict.fromkeys(each if each in WORLDS else 'clips' for each in kinds))


@jax.jit
def _coloured(latents: jax.Array, matrix: jax.Array) -> jax.Array:
  ones = jnp.ones_like(latents[..., :1])
  colours = jnp.concatenate([latents, ones], -1) @ matrix
  return jnp.clip(colours, 0, 255).astype(jnp.uint8)
