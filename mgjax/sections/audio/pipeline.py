"""A trained audio model with its codec: prompts and pictures in, sound of any length out."""

import functools
import os
import pathlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, NonFiniteError
from mgjax.core.settings import Positive, fields_of
from mgjax.core.typing import Array, Batch, Float, UInt8
from mgjax.data.media.clips import Clips
from mgjax.data.media.video import probe, stream_clip
from mgjax.data.settings import audio_shapes, longest_audio_bucket
from mgjax.flow.frame_noise import frame_noise
from mgjax.flow.multidiffusion import multi_diffusion
from mgjax.flow.windows import Cover
from mgjax.models.codec.latents import AudioCodec
from mgjax.models.conditioning.frame_features import FRAME_FEATURES_KEY as FRAME_FEATURES
from mgjax.models.conditioning.known_latents import CONTEXT_KEY as CONTEXT
from mgjax.models.flow_model.build import make_sampler_of
from mgjax.models.flow_model.conditions import ConditionShapes, condition_fields
from mgjax.models.flow_model.settings import SampleSettings
from mgjax.sections.audio.extend import ALONG, Extension, Search, Seconds, autoregress, concatenate
from mgjax.sections.audio.files import Soundtrack
from mgjax.sections.audio.frame_features import FRAME_ENCODERS, See, resample
from mgjax.sections.audio.known_audio import KnownAudio
from mgjax.sections.audio.length import VISION, as_video, check_length
from mgjax.sections.audio.rerank import OnsetAlignment, Scorer, best_of, count_candidates
from mgjax.sections.audio.video_track import VideoTrack
from mgjax.sections.clip.pipeline import find_frame_encoder
from mgjax.sections.codec.pipeline import load_audio_codec
from mgjax.sections.flow.calls import callable_as, rows_of
from mgjax.sections.flow.pipeline import FlowPipeline
from mgjax.training.monitoring.progress import track

_DEFAULT = Extension()
_NOISES = 2**16  # noises that are set apart for each sample of a seed


class AudioPipeline(FlowPipeline):
  """Makes sound from a work directory of `launch.train`; attributes as `FlowPipeline`."""

  component = 'audio'
  noun = 'an audio model'
  read_codec = staticmethod(load_audio_codec)

  def __init__(self, workdir: str | os.PathLike[str], **options: Any):
    """Reads the averaged weights; see `FlowPipeline`."""
    super().__init__(workdir, **options)
    self._workdir = workdir

  def _use(self, settings: SampleSettings) -> None:
    super()._use(settings)
    self._programs: dict[Hashable, Callable[[Batch, Array], Array]] = {}

  @property
  def codec(self) -> AudioCodec:
    """The codec whose latents the model makes."""
    return self._codec

  @property
  def rate(self) -> int:
    """Samples a second."""
    return self._codec.rate

  @property
  def channels(self) -> int:
    """Channels of the sound."""
    return self._codec.model.channels

  @property
  def latent_rate(self) -> float:
    """Latents a second."""
    return self._codec.latent_rate

  @property
  def default_seconds(self) -> float:
    """Length of the longest audio that the model was trained on."""
    shapes = audio_shapes(fields_of(self.config, 'buckets'))
    return float(shapes[longest_audio_bucket(shapes)].seconds)

  def video_track(self, path: str | os.PathLike[str]) -> VideoTrack:
    """Opens a video for `stream`, seen at the size and frame rate of training.

    Raises:
      ConfigError: the model was trained without pictures, or the encoder that it read them by is
        not there.
      DataError: the video cannot be read.
    """
    shapes = audio_shapes(fields_of(self.config, 'buckets'))
    shape = shapes[longest_audio_bucket(shapes)]
    if FRAME_FEATURES not in self.reads or not shape.size:
      raise ConfigError('this model was trained without pictures; leave the video out')
    fps = self.config.data.fps
    seconds = probe(path).seconds
    frames = stream_clip(path, size=shape.size, fps=fps)
    return VideoTrack(frames, seconds=seconds, fps=fps, rate=self.latent_rate, see=self._see)

  def frame_features(
    self, video: UInt8[np.ndarray, 't h w 3'], fps: float
  ) -> Float[np.ndarray, 'n e']:
    """Returns what the model reads of frames, a vector a latent, as `generate` takes it.

    Raises:
      ConfigError: the encoder that the model read frames by is not there.
      DataError: the frames are of another type or shape.
    """
    count = round(len(video) / fps * self.latent_rate)
    return resample(self._see(video), fps, count, self.latent_rate)

  @functools.cached_property
  def _see(self) -> See:
    vision = self.config.get(VISION) or ''
    if vision in FRAME_ENCODERS:
      return FRAME_ENCODERS[vision][0]
    return find_frame_encoder(self._workdir, vision, self._learnt.get(VISION, ''))

  def given(
    self,
    stream: Callable[[], Iterable[np.ndarray]],
    seconds: float,
    spans: Sequence[tuple[float, float]] | None = None,
  ) -> KnownAudio:
    """Makes the `KnownAudio` that `stream` extends, or whose gaps it fills.

    Args:
      stream: begins to read it: chunks (s c) at the codec's rate and channels.
      seconds: length of the soundtrack that it becomes part of, from its beginning on.
      spans: seconds that are to stay, begin and end; by default all of it.

    Raises:
      ConfigError: the model was trained without known sound, or nothing would stay.
    """
    self._needs_context('to go on with a sound')
    return KnownAudio(self._codec, stream, seconds, spans)

  @callable_as
  def generate(
    self,
    prompts: Sequence[str] | str | None = None,
    *,
    video: str | os.PathLike[str] | None = None,
    seconds: Seconds | None = None,
    seed: int = 0,
    first: int = 0,
    candidates: Positive | None = None,
    motions: Float[np.ndarray, 'b t'] | None = None,
    scorer: Scorer | None = None,
    batch_size: Positive = 8,
    **conditions: Any,
  ) -> Float[Clips, 'b s c']:
    """Generates one sound a prompt, as long as the video or at most one window.

    Sound i depends on (seed, first + i), its prompt, conditions and length alone, but for rounding.

    Args:
      prompts: one caption or a list of them; None is one sound of nothing in particular.
      video: a file that every sound is made for, as `stream` makes it, with seed + first + i.
      seconds: length; by default that of training.
      seed: of all noise.
      first: index of the first sound among those of this seed.
      candidates: of each sound, of which the best is returned; by default 8 where there is
        something to choose by, a video, `motions` or a scorer, and else 1.
      motions: of the pictures, for the scorer, from `motion_change`.
      scorer: judges candidates; by default `OnsetAlignment`, which needs `motions`.
      batch_size: tracks at a time; one program serves all of them.
      **conditions: beside the prompts, by the names of the fields that the model's conditionings
        read, one for all sounds or one each: `frame_features` (t e) of the pictures, a vector a
        latent, or `context` (t 1 1 c), known latents and zeros where nothing is known.

    Raises:
      ConfigError: the length does not suit, there is nothing to choose candidates by, or the model
        does not read a condition.
      NonFiniteError: the model answers with what is no number.
    """
    prompts = prompts or ['']
    if video is not None:
      if seconds is not None:
        raise ConfigError('seconds is for sound without a video; a video says how long it is')
      options = {'video': video, 'candidates': candidates, 'scorer': scorer, **conditions}
      streamed = [
        np.concatenate(list(self.stream(prompt, seed=seed + first + row, **options)))
        for row, prompt in enumerate(prompts)
      ]
      return Clips.of(np.stack(streamed), rate=self.rate)
    seconds = self.default_seconds if seconds is None else seconds
    frames = check_length(self._model, self._codec.model, seconds, 'what is asked for')
    candidates = count_candidates(candidates, scorer, motions is not None)
    scorer = _chosen(scorer, candidates, motions is not None)
    rows = [row for row in range(len(prompts)) for _ in range(candidates)]
    noises = [(first + row) * _NOISES + i % candidates for i, row in enumerate(rows)]
    batch_size = rows_of(len(rows), batch_size)
    fields = self._fields(frames)
    samples = self._samples(prompts, conditions, fields)
    decoded = []
    begins = range(0, len(rows), batch_size)
    first_one = 'compiling and running the first batch'
    for begin in track(begins, len(begins), 'batch', first_one):
      chosen = [min(index, len(rows) - 1) for index in range(begin, begin + batch_size)]
      batch = self._batch(self._read_conditions([samples[rows[i]] for i in chosen], fields))
      noise = self._noise(seed, np.array([noises[i] for i in chosen]), 0, frames)
      with self._devices():
        latents = self._generate(self._params, batch, noise)
        sounds = np.asarray(self._codec.decode(_checked(latents)[:, :, 0, 0]))
      decoded += list(sounds[: len(rows) - begin])
    sounds = np.stack(decoded).reshape(len(prompts), candidates, *decoded[0].shape)
    sounds = Clips.of(sounds, rate=self.rate)
    if scorer is None:
      return sounds[:, 0]
    prompt_motions = [None] * len(prompts) if motions is None else motions
    best = [
      best_of(few, self.rate, scorer, caption=prompt, motion=motion)[0]
      for prompt, few, motion in zip(prompts, sounds, prompt_motions, strict=True)
    ]
    return sounds[np.arange(len(prompts)), best]

  @callable_as
  def save(
    self, prompts: Sequence[str] | str, out: str | os.PathLike[str], **options: Any
  ) -> list[pathlib.Path]:
    """Makes a soundtrack and writes it, with the fields of `Soundtrack` as options."""
    return self._make_request(Soundtrack, prompts, out, **options).write(self)

  @callable_as
  def stream(
    self,
    prompts: Sequence[str] | str,
    *,
    seconds: Seconds | None = None,
    video: str | os.PathLike[str] | VideoTrack | None = None,
    given: KnownAudio | None = None,
    extension: Extension = _DEFAULT,
    seed: int = 0,
    candidates: Positive | None = None,
    beams: Positive = 1,
    scorer: Scorer | None = None,
    rows: Positive = 8,
    report: Callable[[int], None] = lambda done: None,
    **conditions: Any,
  ) -> Iterator[Float[np.ndarray, 's c']]:
    """Generates sound of any length, in nearly constant memory.

    Args:
      prompts: one caption, for all of it.
      seconds: length; by default that of the video, or of training.
      video: pictures to make it for: a file, or what `video_track` opened.
      given: sound that is known already, from `given`.
      extension: how to go beyond the length of training.
      seed: of all noise.
      candidates: of each window, or block of multi-diffusion, of which the best is taken; by
        default 8 with a video or a scorer, and else 1.
      beams: histories that are carried on; see `mgjax.sections.audio.extend.Search`.
      scorer: judges candidates; by default `OnsetAlignment`, which needs a video track.
      rows: windows in a call of the model at most.
      report: is called with how many of the windows or blocks of `plan` are done.
      **conditions: beside the prompt, the same for every window.

    Yields:
      The next samples.

    Raises:
      ConfigError: lengths do not suit, or there is nothing to choose candidates by.
      NonFiniteError: the model answers with what is no number.
    """
    prompt = _only(prompts)
    track = video if isinstance(video, VideoTrack | None) else self.video_track(video)
    if seconds is None:
      seconds = self.default_seconds if track is None else track.seconds
    outer, inner = self.plan(seconds, extension)
    candidates = count_candidates(candidates, scorer, track is not None)
    scorer = _chosen(scorer, candidates, track is not None)
    (sample,) = self._samples([prompt], conditions, self._fields(outer.size))

    def window(start: int, stop: int) -> Batch:
      seen = {} if track is None else {FRAME_FEATURES: track.features(start, stop)}
      return self._batch(self._read_conditions([sample | seen], self._fields(stop - start)))

    def score(window_latents: np.ndarray, start: int) -> np.ndarray:
      motion = None if track is None else track.motion(start, start + window_latents.shape[1])
      sounds = np.asarray(self._codec.decode(window_latents[:, :, 0, 0]))
      return best_of(sounds, self.rate, scorer, caption=prompt, motion=motion)[1]

    def latents() -> Iterator[np.ndarray]:
      way = concatenate if extension.how == 'concatenate' else autoregress
      parts = way(
        self._program(inner, extension.weights, rows),
        window,
        functools.partial(self._noise, seed),
        outer,
        read_known=None if given is None else given.window,
        search=Search(candidates, beams, None if scorer is None else score),
        rows=rows,
      )
      for done, part in enumerate(parts):
        report(done + 1)
        yield part[None, :, 0, 0]

    samples = round(seconds * self.rate)
    sound = (np.asarray(chunk)[0] for chunk in self._codec.decode_stream(latents(), samples))
    return sound if given is None else given.splice(sound)

  def plan(self, seconds: float, extension: Extension = _DEFAULT) -> tuple[Cover, Cover | None]:
    """Returns the windows of `stream`, or of multi-diffusion the blocks and a block's windows.

    Both are in latents; a window's joint is heard, if at all, where the one before ends.
    Raises ConfigError if lengths do not suit the model, or no way has this name.
    """
    window = self.default_seconds if extension.window is None else extension.window
    size = check_length(self._model, self._codec.model, window, 'a window')
    rate = self.latent_rate
    most = self._model.backbone.positions[0]
    cover, inner = extension.plan(seconds, rate=rate, size=size, most=most)
    if len(cover.starts) > 1 and extension.how != 'concatenate':
      self._needs_context(f'for {seconds:g} s in pieces of {cover.size / rate:g} s')
    return cover, inner

  def _program(self, inner: Cover | None, weights: str, rows: int):
    """Returns batch, noise -> latents of a window, or of a block of windows."""
    key = (inner, weights, rows)
    if key not in self._programs:
      generate = self._generate
      if inner is not None and len(inner.starts) > 1:
        widen = functools.partial(
          multi_diffusion, covers=(inner,), along=ALONG, shape=weights, rows=rows
        )
        generate = make_sampler_of(self._settings, self._objective, self._model, widen)
      self._programs[key] = generate

    def run(batch: Batch, noise: np.ndarray) -> np.ndarray:
      with self._devices():
        return _checked(self._programs[key](self._params, batch, noise))

    return run

  def _fields(self, frames: int) -> ConditionShapes:
    """Returns what the model reads beside text, of a sound of so many latents."""
    shape = (frames, 1, 1)
    latents = (*shape, self._codec.model.latent_channels)
    return condition_fields(self._model.conditionings, shape, latents)

  def _encode(self, clips: Array) -> Array:
    return as_video(super()._encode(clips))

  def _noise(self, seed: int, candidates: np.ndarray, start: int, stop: int) -> Array:
    shape = (1, 1, self._codec.model.latent_channels)
    return frame_noise(seed, candidates, start, stop, shape)

  def _shape_said(self) -> str:
    kind = {1: 'mono', 2: 'stereo'}.get(self.channels, f'{self.channels} channels')
    return f'{self.default_seconds:g} s of {kind} at {self.rate} Hz'

  def _needs_context(self, what: str) -> None:
    if CONTEXT not in self.reads:
      raise ConfigError(
        f'{what} the model has to be trained with known sound in sight, config.model.conditionings.'
        'context, which this one was not; choose concatenate or a longer block'
      )


def _chosen(scorer: Scorer | None, candidates: int, pictures: bool) -> Scorer | None:
  """Returns what candidates are chosen by, None if there is one of each."""
  if candidates == 1:
    return None
  if scorer is None and not pictures:
    raise ConfigError(
      f'there is nothing to choose the best of {candidates} candidates by: the alignment with the '
      'pictures needs pictures; give a video, a scorer, or ask for one candidate'
    )
  return scorer or OnsetAlignment()


def _only(prompts: Sequence[str] | str) -> str:
  """Returns the one prompt of a sound of any length."""
  if isinstance(prompts, str):
    return prompts
  if len(prompts) != 1:
    raise ConfigError(f'{len(prompts)} prompts; a sound of any length has one')
  return prompts[0]


def _checked(latents: Array) -> np.ndarray:
  latents = np.asarray(latents)
  if not np.isfinite(latents).all():
    raise NonFiniteError(
      'the model answers with what is no number; look at the weights, or take more --steps or less '
      'guidance'
    )
  return latents
