"""Writes sampled videos: files, a sheet and an animation of all, and how they were made."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import write_json
from mgjax.core.settings import Positive, fields_of
from mgjax.core.typing import UInt8
from mgjax.data.media.provenance import release
from mgjax.data.media.video import stream_clip
from mgjax.data.media.viewing import viewing_scale, write_clip, write_sheets
from mgjax.data.settings import video_shapes
from mgjax.data.shape import longest_bucket
from mgjax.models.conditioning.frames import CLIP, FIRST, LAST
from mgjax.models.flow_model.conditions import condition_fields, spread_conditions
from mgjax.models.flow_model.shape import check_shape
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.text.prompts import frame_rate_of, prompt_hash
from mgjax.sections.flow.files import find_autoencoder
from mgjax.sections.flow.requests import Request, describe_conditions, model_of
from mgjax.sections.video.extend import check_continuation, check_reads, default_overlap
from mgjax.training.checkpoints.workdir import read_config

SHEET_ROWS = 32
_LARGEST = 2**31  # bytes of a clip that is continued


@dataclasses.dataclass(frozen=True)
class Samples(Request):
  """One video a prompt, or with one frame an image.

  Attributes:
    frames: of a video, with those of `video`; by default as in training, or half a window more.
    size: height and width; by default as in training.
    fps: frames a second; by default what a prompt begins with, or training's.
    scale: repeats of each pixel in the files; by default small videos are enlarged to be seen.
    video: a file or an array (t h w 3) that each video continues, as `VideoPipeline.extend` does.
    negative: what no video should show.
    upsampler: a `mgjax.sections.upsampler.pipeline.Upsampler` that enlarges each before it is
      written.
    typed: what prompts were before a language model wrote them anew.
    conditions: beside the prompts, as of `VideoPipeline.stream`.
  """

  batch_size: Positive = 16
  frames: Positive | None = None
  size: tuple[Positive, Positive] | None = None
  fps: float | None = None
  scale: Positive | None = None
  video: Any = None
  negative: str = ''
  upsampler: Any = None
  typed: Sequence[str] | None = None
  conditions: Fields = dataclasses.field(default_factory=dict)

  def check(self, workdir: str | os.PathLike[str], changes: Mapping[str, object] = {}) -> None:
    """Checks the shape, the conditions and where videos go; see `Request.check`."""
    model, config = model_of(workdir, changes)
    for prompt in self.prompts:
      frame_rate_of(prompt, self.fps, config.data.fps)
    _, usual = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
    clip_condition = {CLIP: self.video} if self.video is not None else {}
    frames = usual.frames if clip_condition else self.frames or usual.frames
    shape = (frames, *(self.size or usual.size))
    self.destination(frames)
    autoencoder_config = read_config(find_autoencoder(workdir, config.autoencoder))
    codec = make_autoencoder(fields_of(autoencoder_config, 'model'))
    check_shape(model.backbone, codec, shape)
    fields = condition_fields(model.conditionings, shape, codec.latent_shape(shape))
    conditions = {**self.conditions, **clip_condition}
    for name in (FIRST, LAST, CLIP):
      if conditions.get(name) is not None:
        check_reads(tuple(fields), name, os.fspath(workdir))
    spread_conditions(conditions, fields, len(self.prompts))

  def destination(self, frames: int) -> tuple[pathlib.Path, bool]:
    """Returns where videos go, and whether that is the file of a single one, not a directory.

    Raises ConfigError if it is, but there are several, or videos of so many frames are called
    otherwise.
    """
    kind = '.mp4' if frames > 1 else '.png'
    count = len(self.prompts)
    out = pathlib.Path(self.out or ('samples' if count > 1 else f'out{kind}'))
    alone = out.suffix[1:].isalnum() and not out.suffix[1:].isdigit() and not out.is_dir()
    if alone and count > 1:
      raise ConfigError(f'--out={out} is one file, but there are {count} videos; give a directory')
    if alone and out.suffix != kind:
      raise ConfigError(f'--out={out}: {frames} frame(s) are written as {kind}; name it so')
    return out, alone

  def write(self, pipeline: Any) -> list[pathlib.Path]:
    """Generates the videos with a `VideoPipeline`; writes them, sheets of all and a json.

    Small videos are written enlarged by a whole number, which the json states; its digests are
    those of the model's own pixels. Pixels are changed as they are written, and files signed, as
    `mgjax.data.media.provenance.release` says.

    A single video goes to `out` if that is a file name, with the sheet and the json beside it.
    Otherwise `out` is a directory, and files are named by index and a hash of the prompt.
    """
    prompts = self.prompts
    conditions = dict(self.conditions)
    window, *size = pipeline.default_shape
    size = self.size or tuple(size)
    rates = pipeline.frame_rates(prompts, self.fps)
    video = self.video
    if isinstance(video, str | os.PathLike):
      video = _read_source(video, size, rates[0])
    if video is None:
      frames = self.frames or window
    else:
      frames = self.frames or len(video) + window - default_overlap(window)
      check_continuation(frames, len(video))
    pipeline.check((frames if video is None else window, *size))
    paths, sheet, record = self._paths(frames)
    unknown = pipeline.tell(prompts, rates if frames > 1 else None)
    options = {'seed': self.seed, 'fps': self.fps, 'batch_size': self.batch_size}
    options |= {'negative': self.negative, **conditions}
    if video is None:
      videos = pipeline.stream(prompts, shape=(frames, *size), **options)
    else:
      videos = iter(pipeline.extend(prompts, video, frames=frames, **options))
      conditions['video'] = video
    sheet_videos = []
    digests = []
    writing = None
    scale = self.scale
    # A clip is written while the next one is generated.
    with concurrent.futures.ThreadPoolExecutor(1) as writer:
      for index, (path, rate, clip) in enumerate(zip(paths, rates, videos, strict=True)):
        if self.upsampler is not None:
          upsampling = {'video': clip, 'fps': rate, 'seed': self.seed, 'first': index}
          clip = self.upsampler.generate([prompts[index]], **upsampling)[0]
        digests.append(hashlib.sha256(clip.tobytes()).hexdigest()[:16])
        scale = scale or viewing_scale(*clip.shape[1:3])
        clip, repeats = release.postprocess_enlarged(clip, scale)
        if writing is not None:
          writing.result()
        writing = writer.submit(write_clip, path, clip, rate, repeats)
        sheet_videos += [clip] if len(sheet_videos) < SHEET_ROWS else []
      sheets = write_sheets(sheet, sheet_videos, list(prompts[:SHEET_ROWS]), rates[:SHEET_ROWS])
      if writing is not None:
        writing.result()
    samples = []
    for index, prompt in enumerate(prompts):
      typed = prompt if self.typed is None else self.typed[index]
      samples.append(
        {
          'index': index,
          'prompt': prompt,
          'fps': rates[index],
          'file': paths[index].name,
          'pixels': digests[index],
          'unknown_words': unknown[index],
          **({} if typed == prompt else {'typed': typed}),
        }
      )
    described = {
      'weights': pipeline.weights,
      'settings': pipeline.settings,
      'seed': self.seed,
      'frames': frames,
      'height': size[0],
      'width': size[1],
      'batch_size': self.batch_size,
      'samples': samples,
      'upsampler': None if self.upsampler is None else self.upsampler.provenance,
      'scale': scale,
      'conditions': describe_conditions(conditions),
      **({'negative': self.negative} if self.negative.strip() else {}),
    }
    release.sign([*paths, *sheets])
    write_json(record, described | release.described())
    return [*paths, *sheets, record]

  def _paths(self, frames: int) -> tuple[list[pathlib.Path], pathlib.Path, pathlib.Path]:
    """Returns the paths of videos, contact sheet and json, and makes their directory."""
    out, alone = self.destination(frames)
    directory = out.parent if alone else out
    try:
      directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise ConfigError(f'--out={out}: cannot make {directory}: {error.strerror}') from error
    if alone:
      return [out], out.with_name(f'{out.stem}_sheet.png'), out.with_suffix('.json')
    names = [f'{index:04d}_{prompt_hash(prompt)}' for index, prompt in enumerate(self.prompts)]
    kind = '.mp4' if frames > 1 else '.png'
    return [out / f'{name}{kind}' for name in names], out / 'sheet.png', out / 'samples.json'


def _read_source(
  path: str | os.PathLike[str], size: tuple[int, int], fps: float
) -> UInt8[np.ndarray, 't h w 3']:
  """Reads a whole clip that is to be continued, brought to a size and a frame rate.
  Raises DataError if it cannot be read, or is too long to be held.
  """
  frames = []
  most = _LARGEST // (3 * size[0] * size[1])
  for frame in stream_clip(path, size=size, fps=fps):
    frames.append(frame)
    if len(frames) > most:
      raise DataError(f'{path}: has more than {most} frames at {fps:g} a second; cut its end out')
  return np.stack(frames)
