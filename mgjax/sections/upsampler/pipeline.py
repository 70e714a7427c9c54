"""A trained upsampler with its image autoencoder: small videos in, large ones out."""

import functools
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError, NonFiniteError
from mgjax.core.resize import resize
from mgjax.core.settings import Positive, fields_of
from mgjax.core.typing import Array, UInt8
from mgjax.data.media.clips import Clips, fps_of
from mgjax.data.settings import video_shapes
from mgjax.data.shape import longest_bucket
from mgjax.flow.frame_noise import frame_noise
from mgjax.flow.prediction import make_prediction
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.streaming import TimeWindows, WindowVelocity, stream_windows
from mgjax.flow.windows import Cover
from mgjax.models.conditioning.clips.low_resolution import LOW_RESOLUTION_KEY
from mgjax.models.flow_model.settings import SampleSettings
from mgjax.models.tae.latents import LatentCodec
from mgjax.models.tae.tiling import regroup
from mgjax.models.text.prompts import frame_rate_of
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.flow.calls import callable_as, rows_of
from mgjax.sections.flow.pipeline import FlowPipeline
from mgjax.sections.flow.requests import VideoFrame, checked_video
from mgjax.sections.upsampler import colours
from mgjax.sections.upsampler.files import Enlarged, Scale
from mgjax.sections.upsampler.geometry import CHUNK, Windows, frame_covers, scaled_size
from mgjax.sections.upsampler.velocity import make_tiled_velocity
from mgjax.training.monitoring.progress import track


class Upsampler(FlowPipeline):
  """Enlarges videos with a run of the component 'upsampler'; attributes as `FlowPipeline`.

  The video is enlarged bilinearly, encoded frame by frame, and conditions the generation of the
  large one. Windows of frames and tiles of space of the size that the model was trained on overlap,
  and their velocities are averaged at every step of the solver (Movie Gen §3.1.5).
  """

  component = 'upsampler'
  noun = 'an upsampler'
  read_codec = staticmethod(load_codec)

  def __init__(self, workdir: str | os.PathLike[str], **options: Any):
    """Reads the averaged weights; see `FlowPipeline`.

    Of `mesh`, 'data' shares out the windows and 'context' the tokens of each.
    """
    super().__init__(workdir, **options)
    self.windows = Windows.of(self.config.to_dict())

  def _use(self, settings: SampleSettings) -> None:
    super()._use(settings)
    self._velocity = functools.cache(self._make_velocity)  # one program a shape

  @property
  def codec(self) -> LatentCodec:
    """The image autoencoder."""
    return self._codec

  @property
  def window(self) -> tuple[int, int, int]:
    """Frames, height and width of what the model makes at a time: the clips of training."""
    shapes = video_shapes(fields_of(self.config, 'buckets'), self.config.data.fps)
    _, shape = longest_bucket(shapes)
    return shape.frames, shape.height, shape.width

  @callable_as
  def generate(
    self,
    prompts: Sequence[str] | str | None = None,
    *,
    video: Any = None,
    scale: Scale | None = None,
    size: tuple[Positive, Positive] | None = None,
    fps: float | None = None,
    seed: int = 0,
    first: int = 0,
    batch_size: Positive = 8,
    keep_colours: bool = True,
  ) -> UInt8[Clips, 'b t h w 3']:
    """Enlarges videos.

    Args:
      prompts: what they show, one text or a list with one each; None where nobody says.
      video: uint8 (t h w 3), or several of one shape (b t h w 3); `Clips` say their frame rate.
      scale: of both sides; 2 unless there is a size.
      size: height and width of the result, in place of `scale`.
      fps: frames a second; by default those of the video, the prompts or of training.
      seed: of all noise.
      first: index of the first video among those of this seed.
      batch_size: windows at a time.
      keep_colours: as of `mgjax.sections.upsampler.colours.keep_colours`; not of videos whose
        colours have suffered, which the model puts right.

    Raises:
      ConfigError: there is not a prompt for each video, or they would be too large.
      DataError: the array is not a video.
    """
    if video is None:
      raise ConfigError('video is missing: what is enlarged, uint8 (t h w 3) or (b t h w 3)')
    if scale is not None and size is not None:
      raise ConfigError(f'scale = {scale} and size = {size}; give one of them')
    videos = checked_video(video)
    prompts = list(prompts) if prompts else [''] * len(videos)
    if len(prompts) != len(videos):
      raise ConfigError(f'{len(prompts)} prompts for {len(videos)} videos; give one for each')
    size = size or scaled_size(videos.shape[2:4], scale or 2.0)
    own = fps_of(video, len(videos), self.config.data.fps)
    rates = [frame_rate_of(prompt, fps, usual) for prompt, usual in zip(prompts, own, strict=True)]
    if videos.shape[1] <= self.window[0] and len(self._tiles(size)) == 1:
      enlarged = self._generate_whole(videos, prompts, size, rates, seed, first, batch_size)
      enlarged = (
        np.stack([*map(colours.keep_colours, enlarged, videos)]) if keep_colours else enlarged
      )
      return Clips.of(enlarged, fps=rates)
    options = {'size': size, 'seed': seed, 'rows': batch_size, 'keep_colours': keep_colours}
    enlarged = [
      np.stack(list(self.stream(clip, prompt=prompt, fps=rate, index=first + row, **options)))
      for row, (clip, prompt, rate) in enumerate(zip(videos, prompts, rates, strict=True))
    ]
    return Clips.of(np.stack(enlarged), fps=rates)

  def stream(
    self,
    frames: Iterable[VideoFrame],
    *,
    size: tuple[int, int],
    prompt: str = '',
    fps: float | None = None,
    seed: int = 0,
    index: int = 0,
    rows: int = 8,
    keep_colours: bool = True,
  ) -> Iterator[VideoFrame]:
    """Yields the large frame of each small one, in memory that does not grow with their number.

    Frame i depends on (seed, index) and on the frames around it, but not on `rows`, but for
    rounding. A clip of no more frames than a window is made in one piece.

    Args:
      frames: uint8 (h w 3), all of one size.
      size: height and width of the large frames.
      prompt: what the video shows.
      fps: frames a second; by default those of the prompt or of training.
      seed: of all noise.
      index: of the video among those of this seed.
      rows: windows in a call of the model.
      keep_colours: as of `generate`.

    Raises:
      ConfigError: the size is none that can be made.
      DataError: there are no frames, or of several sizes.
    """
    height, width = size
    tiles = self._tiles(size)
    shape = self._latent_shape(size)
    # Source frames of windows in progress wait in `pending`.
    frames, pending = itertools.tee(frames)
    with self._devices():
      enlarged = stream_windows(
        self._velocity(self._covers(size), rows),
        ({LOW_RESOLUTION_KEY: latents} for latents in self._encoded(frames, size)),
        TimeWindows(self.window[0], self.windows.overlap, rows=max(1, rows // len(tiles))),
        constant=self._text([prompt], [frame_rate_of(prompt, fps, self.config.data.fps)]),
        times=make_time_grid(steps=self._settings.steps, **self._settings.schedule),
        noise=lambda start, stop: frame_noise(seed, np.array([index]), start, stop, shape)[0],
        solver=self._settings.solver_of_windows,
      )
    for chunk in regroup((part[None] for part in self._on_devices(enlarged)), CHUNK):
      padded = np.concatenate([chunk, np.repeat(chunk[:, -1:], CHUNK - chunk.shape[1], axis=1)], 1)
      with self._devices():
        decoded = np.asarray(self._codec.decode(finite(jnp.asarray(padded))))
      large = decoded[0, : chunk.shape[1], :height, :width]
      small = np.stack(list(itertools.islice(pending, len(large))))
      yield from colours.keep_colours(large, small) if keep_colours else large

  @callable_as
  def save(
    self, prompts: Sequence[str] | str | None, out: str | os.PathLike[str], **options: Any
  ) -> list[pathlib.Path]:
    """Enlarges a video file and writes it, with the fields of `Enlarged` as options."""
    return self._make_request(Enlarged, prompts, out, **options).write(self)

  def _shape_said(self) -> str:
    frames, height, width = self.window
    return f'windows of {frames} frames of {height} x {width} pixels'

  def _generate_whole(
    self,
    videos: UInt8[np.ndarray, 'b t h w 3'],
    prompts: Sequence[str],
    size: tuple[int, int],
    rates: Sequence[float],
    seed: int,
    first: int,
    batch_size: int,
  ) -> UInt8[np.ndarray, 'b t i j 3']:
    """Enlarges videos of no more than a window, several at a time."""
    count, frames = videos.shape[:2]
    batch_size = rows_of(count, batch_size)
    decoded = []
    for begin in track(range(0, count, batch_size), -(-count // batch_size), 'batch'):
      rows = [min(row, count - 1) for row in range(begin, begin + batch_size)]
      indices = first + np.arange(begin, begin + batch_size)
      with self._devices():
        batch = self._text([prompts[row] for row in rows], [rates[row] for row in rows])
        batch[LOW_RESOLUTION_KEY] = self._codec.encode(self._enlarged(videos[rows], size))
        noise = frame_noise(seed, indices, 0, frames, self._latent_shape(size))
        latents = finite(self._generate(self._params, batch, noise))
        decoded.append(np.asarray(self._codec.decode(latents))[:, :, : size[0], : size[1]])
    return np.concatenate(decoded)[:count]

  def _covers(self, size: tuple[int, int]) -> tuple[Cover, Cover]:
    """Returns the windows of rows and columns, in latents.
    Raises ConfigError if the size is none that can be made.
    """
    return frame_covers(
      size,
      self.window[1:],
      feather=self.windows.feather,
      compression=self._codec.model.compression,
      patch=self._model.backbone.patch,
    )

  def _tiles(self, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns where tiles of space begin, in latents."""
    return list(itertools.product(*(cover.starts for cover in self._covers(size))))

  def _latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
    """Returns (h, w, c) of the latents of a frame, filled up to whole patches."""
    rows, columns = self._covers(size)
    return rows.length, columns.length, self._codec.model.latent_channels

  def _make_velocity(self, covers: tuple[Cover, Cover], rows: int) -> WindowVelocity:
    """Makes the velocity of windows, compiled once per number of rows and latents."""
    velocity = make_tiled_velocity(
      self._model,
      covers,
      prediction=make_prediction(self._objective.prediction),
      guidance=self._settings.guidance,
      rows=rows,
    )
    return functools.partial(jax.jit(velocity), self._params)

  def _encoded(self, frames: Iterable[VideoFrame], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yields latents (t h w c) of frames, a few at a time."""
    for few in _chunks(frames, CHUNK):
      filled = np.stack(few + few[-1:] * (CHUNK - len(few)))[None]
      with self._devices():
        latents = self._codec.encode(self._enlarged(filled, size))
        yield np.asarray(latents, np.float32)[0, : len(few)]

  def _enlarged(self, videos: UInt8[np.ndarray, 'b t h w 3'], size: tuple[int, int]) -> Array:
    """Enlarges videos bilinearly and fills them up by repeating their edges."""
    large = np.stack([resize(video, size, 'bilinear') for video in videos])
    _, *steps = self._codec.model.compression
    edges = [
      (0, length * step - side)
      for length, step, side in zip(self._latent_shape(size), steps, size, strict=False)
    ]
    return jnp.asarray(np.pad(large, ((0, 0), (0, 0), *edges, (0, 0)), mode='edge'))

  def _text(self, prompts: Sequence[str], rates: Sequence[float]) -> JSON:
    """Returns what the model reads of prompts, a row each, at so many frames a second."""
    batch = self._batch(self._samples(prompts, {}, {}, rates))
    return {name: np.asarray(value) for name, value in batch.items()}


def _chunks(frames: Iterable[VideoFrame], count: int) -> Iterator[list[VideoFrame]]:
  """Yields `count` frames at a time, all of one size.
  Raises DataError if a frame has another size than the first, or is no uint8 (h w 3).
  """
  frames = iter(frames)
  first = None
  while few := list(itertools.islice(frames, count)):
    for frame in few:
      first = first or frame.shape
      if frame.dtype != np.uint8 or frame.shape != first or frame.ndim != 3:
        raise DataError(
          f'a frame of {frame.dtype} {frame.shape} after one of {first}; expected uint8 (h w 3), '
          'all of one size'
        )
    yield few


def finite(latents: Array) -> Array:
  """Returns latents. Raises NonFiniteError if some are no number."""
  if not bool(jnp.isfinite(latents).all()):
    raise NonFiniteError('the upsampler answers with what is no number; look at its weights')
  return latents
