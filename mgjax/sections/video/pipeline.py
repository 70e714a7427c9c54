"""A trained text-to-video model with its autoencoder: prompts in, videos out."""

import contextlib
import functools
import operator
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import Positive, fields_of
from mgjax.core.typing import Array, Batch, Float, Int, Key, Tree, UInt8
from mgjax.data.media.clips import Clips, formed, stacked
from mgjax.data.settings import video_shapes
from mgjax.data.shape import longest_bucket
from mgjax.flow.path import interpolate
from mgjax.flow.prediction import make_prediction
from mgjax.models.conditioning.frames import CLIP, KNOWN, Frames
from mgjax.models.flow_model.conditions import condition_fields
from mgjax.models.flow_model.initial_noise import draw, seeds_of
from mgjax.models.flow_model.likelihood import make_evidence
from mgjax.models.flow_model.sampling import make_predict
from mgjax.models.flow_model.shape import check_shape
from mgjax.models.tae.fitting import make_fit
from mgjax.models.text.prompts import frame_rate_of
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.flow.calls import (
  OUTPUT_TYPES,
  Callback,
  Seeds,
  callable_as,
  prompt_list,
  rows_of,
  watch_steps,
)
from mgjax.sections.flow.pipeline import FlowPipeline
from mgjax.sections.video.extend import check_reads, continued
from mgjax.sections.video.shifts import half_a_block, moved, put_back, since_on
from mgjax.training.monitoring.garbage_collection import uncollected
from mgjax.training.monitoring.progress import Progress

_APART = 2**24  # between indices of noise of one video
_ROWS = 16  # videos at a time whose likelihood is asked for


class VideoPipeline(FlowPipeline):
  """Generates videos from a work directory of `launch.train`; attributes as `FlowPipeline`."""

  component = 'video'
  noun = 'a video model'
  read_codec = staticmethod(load_codec)

  def __init__(self, workdir: str | os.PathLike[str], **options: Any):
    """Reads the averaged weights; see `FlowPipeline`."""
    super().__init__(workdir, **options)
    self._fit = make_fit(self._codec, self._settings.known_steps)

  @property
  def default_shape(self) -> tuple[int, int, int]:
    """Frames, height and width of the longest clips that the model was trained on."""
    config = self.config
    _, shape = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
    return shape.frames, shape.height, shape.width

  def frame_rates(self, prompts: Sequence[str], fps: float | None = None) -> list[float]:
    """Returns the frames a second of each prompt's video; `fps` as in `stream`."""
    prompts = prompt_list(prompts)
    return [frame_rate_of(prompt, fps, self.config.data.fps) for prompt in prompts]

  @callable_as
  def save(
    self,
    prompts: Sequence[str] | str | None,
    out: str | os.PathLike[str],
    *,
    shape: tuple[Positive, Positive, Positive] | None = None,
    frames: Positive | None = None,
    height: Positive | None = None,
    width: Positive | None = None,
    **options: Any,
  ) -> list[pathlib.Path]:
    """Generates one video a prompt and writes them.

    Args:
      prompts: as of `stream`.
      out: a file, or of several a folder.
      shape, frames, height, width: as of `stream`.
      **options: fields of `mgjax.sections.video.files.Samples`, and conditions by name.
    """
    if shape or height or width:
      frames_, *size = self._shape(shape, frames, height, width)
      options |= {'size': tuple(size)}
      frames = frames_ if shape else frames
    return self._make_request(self._request(), prompts, out, frames=frames, **options).write(self)

  def _shape(
    self,
    shape: tuple[int, int, int] | None,
    frames: int | None,
    height: int | None,
    width: int | None,
  ) -> tuple[int, int, int]:
    if shape is not None:
      if any((frames, height, width)):
        raise ConfigError(f'shape = {shape} and frames, height or width as well; give one of them')
      return shape
    usual = self.default_shape
    return frames or usual[0], height or usual[1], width or usual[2]

  def _request(self) -> Any:
    from mgjax.sections.video.files import Samples  # and with it FFmpeg, for files alone

    return Samples

  @callable_as
  def stream(
    self,
    prompts: Sequence[str] | None = None,
    *,
    seed: Seeds = 0,
    first: int | Sequence[int] = 0,
    shape: tuple[Positive, Positive, Positive] | None = None,
    frames: Positive | None = None,
    height: Positive | None = None,
    width: Positive | None = None,
    fps: float | None = None,
    batch_size: Positive = 32,
    negative: str | None = None,
    callback: Callback | None = None,
    output_type: str = 'np',
    **conditions: Any,
  ) -> Iterator[Any]:
    """Yields one video a prompt, in order, as soon as its batch is done.

    Video i depends on (seed, its index first + i), its prompt and the shape alone: not on what else
    is asked for, and not on the batch size beyond rounding. (With 'dormand_prince' all videos of a
    batch share their steps, which therefore do depend on the others.)

    Args:
      prompts: what to show, one text or a list of them; None is one video of nothing in particular.
      seed: of all noise, or that of each; None draws one, which is logged.
      first: index of the first video among those of this seed, or the index of each.
      shape: frames, height, width; one frame makes images.
      frames, height, width: in place of `shape`; by default as in training.
      fps: frames a second; by default what a prompt begins with, 'FPS-24 a dog', or training's.
      batch_size: videos at a time, at most; fewer prompts are padded to a power of two.
      negative: what no video should show: guidance leads away from it, not from no prompt.
      callback: called after every step of a batch, which it may end by raising, as `callback(step,
        total, preview)`; see `mgjax.sections.flow.calls.Preview`.
      output_type: 'np' for uint8 arrays, 'pil' for a list of PIL images of each video, 'latent' for
        normalised latents (t h w c), float32.
      **conditions: beside the prompts, by the names of the fields that the model's conditionings
        read, such as `first_frame='picture.png'`: a file or an array for all videos, or a list of
        one each, None where there is none.

    Raises:
      ConfigError: the model cannot make videos of this shape, or does not read a condition. Also
        if fps is out of its range or another than a prompt's, for a negative prompt without
        guidance, and for an argument of another type.
      DataError: a file cannot be read.
    """
    check_one_of(f'output_type = {output_type!r}', output_type, OUTPUT_TYPES)
    shape = self._shape(shape, frames, height, width)
    self.check(shape)
    prompts = prompts or ['']
    latent_shape = self._codec.latent_shape(shape)
    fields = condition_fields(self._model.conditionings, shape, latent_shape)
    rates = self.frame_rates(prompts, fps)
    conditioned_rates = rates if shape[0] > 1 else None
    samples = self._samples(
      prompts, conditions, fields, conditioned_rates, (negative or '').strip()
    )
    samples = [sample | {'frames': shape[0]} for sample in samples]
    batch_size = rows_of(len(prompts), batch_size)
    every = np.arange(len(prompts) + batch_size)  # those that fill the last batch up too
    all_indices = np.asarray(first) if np.ndim(first) else np.add(first, every)
    compiling = f'compiling the sampler of {batch_size} x {" x ".join(map(str, shape))}'
    with contextlib.closing(Progress(len(prompts), unit='video')) as progress:
      for begin in range(0, len(prompts), batch_size):
        chosen = samples[begin : begin + batch_size]
        padded = chosen + [chosen[-1]] * (batch_size - len(chosen))
        indices = np.resize(all_indices[begin : begin + batch_size], batch_size)
        seeds = seed
        if isinstance(seed, list):
          few = seed[begin : begin + batch_size]
          seeds = [few[row % len(few)] for row in range(batch_size)]
        noise = draw(*seeds_of(seeds, indices), shape=latent_shape)
        waits = '' if compiling in self._compiled else compiling
        self._compiled.add(compiling)
        with progress.waiting(waits), self._devices(), uncollected():
          read = self._read_conditions(padded, fields)
          batch = self._batch(read)
          decode = functools.partial(self._decode, count=len(chosen), frames=shape[0])
          latents = self._sample(batch, noise, watch_steps(callback, decode))
          if self._settings.shifts:
            draws = functools.partial(draw, seeds_of(seeds, indices)[0], shape=latent_shape)
            latents = self._shifted(latents, batch, draws, indices, shape[0])
          latents = self._fit_known(latents, read)
          if output_type == 'latent':
            videos = np.asarray(latents, np.float32)[: len(chosen)]
          else:
            videos = decode(latents)
        progress.report(begin + len(chosen))
        for video, rate in zip(videos, rates[begin : begin + batch_size], strict=True):
          yield formed(Clips.of(video, fps=rate), output_type)

  def _decode(self, latents: Array, *, count: int, frames: int) -> UInt8[np.ndarray, 'b t h w 3']:
    """Returns the videos of latents, without those that only fill a batch up."""
    with self._devices():
      return np.asarray(self._codec.decode(latents, frames))[:count]

  @functools.partial(callable_as, like=stream)
  def generate(self, prompts: Sequence[str] | str | None = None, **options: Any) -> Any:
    """Generates one video a prompt, all in one array, with the options of `stream`.

    Returns:
      `mgjax.data.media.clips.Clips` uint8 (b t h w 3), an array that knows its frame rate; latents
      (b t h w c) or a list of lists of PIL images for another `output_type`.
    """
    return stacked(list(self.stream(prompts, **options)))

  @functools.partial(callable_as, like=stream)
  def extend(
    self,
    prompts: Sequence[str] | str,
    video: UInt8[np.ndarray, 't h w 3'] | Sequence[UInt8[np.ndarray, 't h w 3']],
    *,
    frames: Positive,
    first: int = 0,
    overlap: int | None = None,
    **options: Any,
  ) -> UInt8[Clips, 'b u h w 3']:
    """Continues a clip, or one a prompt, to any length; each window sees the previous one.

    Args:
      prompts: what the windows show, one each.
      video: the clip, or a list of one each, all of one length; it comes first in what is returned.
      frames: in all, with those of the clip.
      first: as in `stream`.
      overlap: frames of a window that are given; by default half of them.
      **options: of `stream` but `shape`: windows are of the default length and the clip's size.

    Raises:
      ConfigError: as `stream`, or the model reads no frames, or there is nothing to add.
    """
    check_reads(self.reads, CLIP, self.weights['workdir'])
    several = isinstance(video, list | tuple) or video.ndim == 5
    clips = list(video) if several else [video] * len(prompts)
    if len(clips) != len(prompts) or len({clip.shape for clip in clips}) > 1:
      raise ConfigError(f'{len(clips)} clips for {len(prompts)} prompts: give one each, of a size')
    shape = (self.default_shape[0], *clips[0].shape[1:3])

    def generate(conditions: dict[str, Any], later: int) -> UInt8[np.ndarray, 'b t h w 3']:
      arguments = {**options, **conditions, 'first': first + later}
      return self.generate(prompts, shape=shape, **arguments)

    new = continued(generate, clips, frames=frames, window=shape[0], overlap=overlap)
    rates = self.frame_rates(prompts, options.get('fps'))
    return Clips.of(np.concatenate([np.stack(clips), *new], axis=1), fps=rates)

  def _shape_said(self) -> str:
    frames, height, width = self.default_shape
    return f'{frames} frames of {height} x {width} pixels at {self.config.data.fps:g} fps'

  def _shifted(
    self,
    latents: Array,
    batch: Batch,
    draws: Callable[[np.ndarray], Array],
    indices: Int[np.ndarray, 'b'],
    frames: int,
  ) -> Array:
    """Returns latents of videos sampled again and again; see `shifts`."""
    times = since_on(self._times, self._settings.shift_time)
    start = jnp.full(len(latents), times[0], jnp.float32)
    block = map(operator.mul, self._codec.model.compression, self._model.backbone.patch)
    half = half_a_block(tuple(block), frames)
    videos = np.asarray(self._codec.decode(latents, frames))
    for turn in range(1, self._settings.shifts + 1):
      by = half if turn % 2 else (0, 0, 0)
      clips = self._encode(jnp.asarray(moved(videos, by)))
      noise = draws(np.int32(indices + turn * _APART))
      latents = self._sample(batch, interpolate(clips, noise, start), None, *times)
      if turn < self._settings.shifts:
        videos = put_back(videos, np.asarray(self._codec.decode(latents, frames)), by)
    return latents

  def _fit_known(self, latents: Array, samples: Sequence[Fields]) -> Array:
    """Returns latents that decode to the known frames of samples; see `make_fit`."""
    frames = next(
      (
        conditioning
        for conditioning in self._model.conditionings
        if isinstance(conditioning, Frames)
      ),
      None,
    )
    conditions = [
      {**frames.clips(sample), **frames.prepare(sample)} for sample in samples if frames
    ]
    like = next(filter(None, conditions), None)
    if like is None:
      return latents
    clip, known = (
      np.stack([condition.get(name, np.zeros_like(like[name])) for condition in conditions])
      for name in (CLIP, KNOWN)
    )
    return self._fit(latents, clip, known)

  def evidence(
    self, prompts: Sequence[str], videos: UInt8[np.ndarray, 'b t h w 3'], *, seed: int = 0
  ) -> Float[np.ndarray, 'b']:
    """Returns the log likelihood of each video under its prompt in nats, up to a constant.

    The constant depends on the video, its place and the seed: what another prompt makes of the same
    is a difference of likelihoods (`mgjax.models.flow_model.likelihood`).
    """
    shape = videos.shape[1:4]
    self.check(shape)
    if len(prompts := prompt_list(prompts)) != len(videos):
      raise ConfigError(f'{len(prompts)} prompts for {len(videos)} videos; give one for each')
    rates = self.frame_rates(prompts) if shape[0] > 1 else None
    samples = self._samples(prompts, {}, {}, rates)
    likelihoods = []
    for begin in range(0, len(videos), _ROWS):
      chosen = np.resize(np.arange(len(videos))[begin : begin + _ROWS], min(_ROWS, len(videos)))
      with self._devices():
        latents = self._codec.encode(jnp.asarray(videos[chosen]))
        batch = self._batch([samples[index] for index in chosen])
        key = jax.random.fold_in(jax.random.key(seed), begin)
        likelihoods.append(np.asarray(self._evidence(self._params, latents, batch, key)))
    return np.concatenate(likelihoods)[: len(videos)] if likelihoods else np.zeros(0, np.float32)

  @functools.cached_property
  def _evidence(self) -> Callable[..., Array]:
    prediction = make_prediction(self._objective.prediction)

    def evidence(params: Tree, latents: Array, batch: Batch, key: Key) -> Array:
      predict = prediction.as_velocity(make_predict(self._model, params))
      drop = {
        conditioning.name: jnp.zeros(len(latents), bool)
        for conditioning in self._model.conditionings
      }
      return make_evidence(predict)(latents, batch, drop, key)

    return jax.jit(evidence)

  def reconstruction_error(self, video: UInt8[np.ndarray, 't h w 3']) -> float:
    """Returns the mean squared error of the autoencoder's reconstruction, pixels in [0, 1]."""
    return float(np.mean(((self.reconstruct(video) - np.float64(video)) / 255) ** 2))

  def reconstruct(self, video: UInt8[np.ndarray, 't h w 3']) -> UInt8[np.ndarray, 't h w 3']:
    """Returns the autoencoder's reconstruction of a video."""
    latents = self._codec.encode(jnp.asarray(video[None]))
    reconstruction = np.asarray(self._codec.decode(latents, len(video)))[0]
    return Clips.of(reconstruction, fps=getattr(video, 'fps', None))

  def check(self, shape: tuple[int, int, int]) -> None:
    """Raises ConfigError if the model cannot make videos of this shape (frames, height, width)."""
    check_shape(self._model.backbone, self._codec.model, shape)
