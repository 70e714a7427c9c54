"""Reads prompts from files and writes sampled videos."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.checkpoints.workdir import places_of, read_config, read_config_of
from mgjax.conditioning.frames import CLIP, FIRST, LAST
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import parse_json, write_json
from mgjax.core.settings import fields_of, unpack
from mgjax.core.typing import UInt8
from mgjax.data.settings import video_shapes
from mgjax.data.sources import longest_bucket
from mgjax.flow_models.build import make_flow_model, make_sampler_of
from mgjax.flow_models.conditions import condition_fields
from mgjax.flow_models.files import describe_conditions, spread_conditions
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.flow_models.shape import check_shape
from mgjax.media.provenance import release
from mgjax.media.video import stream_clip
from mgjax.media.viewing import viewing_scale, write_clip, write_sheets
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.text.prompts import clean_prompt, frame_rate_of, prompt_hash
from mgjax.video.extend import check_reads
from mgjax.video.pipeline import VideoPipeline

SHEET_ROWS = 32
_LARGEST = 2**31  # bytes of a clip that is continued


def read_prompts(prompt: str | None, path: str | os.PathLike[str] | None) -> list[str]:
  """Returns the one prompt, or those of a file, cleaned; empty lines of a file are skipped.

  Raises:
    ConfigError: a prompt holds no text.
    DataError: the file cannot be read, or holds no prompt.
  """
  if prompt is not None:
    return [clean_prompt(prompt)]
  return [clean_prompt(line) for line in _lines(path)]


def read_requests(path: str | os.PathLike[str]) -> tuple[list[str], dict[str, list[Any]]]:
  """Returns the prompts of a file, and conditions by name, one for each prompt.

  A file of another name than .jsonl has prompts alone, one a line. A line of a .jsonl is an object
  with 'prompt' and conditions, as in {"prompt": "a dog", "first_frame": "dog.png"}.

  Raises:
    ConfigError: a prompt holds no text.
    DataError: the file cannot be read, or holds no prompt.
  """
  if pathlib.Path(path).suffix != '.jsonl':
    return read_prompts(None, path), {}
  rows = []
  for number, line in enumerate(_lines(path), 1):
    mend = 'write an object with "prompt" and conditions'
    row = parse_json(line, f'line {number} of {os.fspath(path)!r}', error=DataError, mend=mend)
    if not isinstance(row.get('prompt'), str):
      raise DataError(f'line {number} of {os.fspath(path)!r} has no "prompt"; {mend}')
    rows.append(row)
  names = {name for row in rows for name in row} - {'prompt'}
  prompts = [clean_prompt(row['prompt']) for row in rows]
  return prompts, {name: [row.get(name) for row in rows] for name in sorted(names)}


def write_samples(
  pipeline: VideoPipeline,
  prompts: Sequence[str],
  out: str | os.PathLike[str],
  *,
  seed: int = 0,
  shape: tuple[int, int, int] | None = None,
  fps: float | None = None,
  batch_size: int = 16,
  scale: int | None = None,
  upsampler: Any = None,
  video: UInt8[np.ndarray, 't h w 3'] | None = None,
  typed: Sequence[str] | None = None,
  negative: str = '',
  **conditions: Any,
) -> list[pathlib.Path]:
  """Generates a video a prompt and writes them, sheets of all and a json that describes them.

  Small videos are written enlarged by a whole number, which the json states; its digests are those
  of the model's own pixels. Prompts are checked, pixels changed as they are written, and files
  signed, as `mgjax.media.provenance.release` is told to.

  A single video goes to `out` if that is a file name, with the sheet and the json beside it; else
  `out` is a directory and files are named by index and a hash of the prompt, never by the prompt.

  Conditions beside the prompts are those of `VideoPipeline.stream`; `scale` is that of
  `mgjax.media.viewing.write_clip`. With an `upsampler`, a `mgjax.upsampler.pipeline.Upsampler`,
  each video is enlarged by it before it is written. With a `video` each one continues that clip, as
  in `VideoPipeline.extend`, to the frames of `shape` in all. What was `typed` before prompts were
  rewritten stands in the json beside them. `negative` is that of `VideoPipeline.stream`.

  Returns:
    What was written: videos, then the contact sheet, their animation, and the json.

  Raises:
    ConfigError: the model cannot make this shape, a prompt is refused, or `out` or `fps`, as in
      `VideoPipeline.stream`, does not suit; before anything is made.
  """
  release.admit(prompts)
  shape = shape or pipeline.default_shape
  pipeline.check(shape if video is None else (pipeline.default_shape[0], *shape[1:]))
  rates = pipeline.frame_rates(prompts, fps)
  paths, sheet, record = _name_files(pathlib.Path(out), prompts, shape[0])
  unknown = pipeline.tell(prompts, rates if shape[0] > 1 else None)
  options = {'seed': seed, 'fps': fps, 'batch_size': batch_size, 'negative': negative, **conditions}
  if video is None:
    videos = pipeline.stream(prompts, shape=shape, **options)
  else:
    videos = iter(pipeline.extend(prompts, video, frames=shape[0], **options))
    conditions = {**conditions, 'video': video}
  shown, digests, writing = [], [], None
  with concurrent.futures.ThreadPoolExecutor(1) as writer:  # a clip, while the next one is made
    for index, (path, rate, made) in enumerate(zip(paths, rates, videos, strict=True)):
      if upsampler is not None:
        given = {'video': made, 'fps': rate, 'seed': seed, 'first': index}
        made = upsampler.generate([prompts[index]], **given)[0]
      digests.append(hashlib.sha256(made.tobytes()).hexdigest()[:16])
      scale = scale or viewing_scale(*made.shape[1:3])
      made, repeats = release.postprocess_enlarged(made, scale)
      if writing is not None:
        writing.result()
      writing = writer.submit(write_clip, path, made, rate, repeats)
      shown += [made] if len(shown) < SHEET_ROWS else []
    sheets = write_sheets(sheet, shown, list(prompts[:SHEET_ROWS]), rates[:SHEET_ROWS])
    if writing is not None:
      writing.result()
  described = _describe(pipeline, prompts, rates, paths, digests, seed, shape, batch_size)
  for sample, words in zip(described['samples'], unknown, strict=True):
    sample['unknown_words'] = words
  for sample, prompt, words in zip(described['samples'], prompts, typed or prompts, strict=True):
    sample |= {} if words == prompt else {'typed': words}
  described |= {'upsampler': None if upsampler is None else upsampler.provenance}
  described |= {'scale': scale, 'conditions': describe_conditions(conditions)}
  described |= {'negative': negative} if negative else {}
  release.sign([*paths, *sheets])
  write_json(record, described | release.described())
  return [*paths, *sheets, record]


def _lines(path: str | os.PathLike[str] | None) -> list[str]:
  try:
    lines = pathlib.Path(path).read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'cannot read prompts from {os.fspath(path)!r}: {error}') from error
  lines = [line for line in lines if line.strip()]
  if not lines:
    raise DataError(f'{os.fspath(path)!r} holds no prompts; write one a line')
  return lines


def check_request(
  workdir: str | os.PathLike[str],
  prompts: Sequence[str],
  *,
  out: str | None = None,
  frames: int | None = None,
  size: tuple[int, int] | None = None,
  fps: float | None = None,
  conditions: Mapping[str, Any] = {},
  changes: Mapping[str, Any] = {},
  pipeline: type[VideoPipeline] = VideoPipeline,
) -> tuple[int, int, int]:
  """Returns frames, height and width of the videos, if the model can make what is asked for.

  Args:
    workdir: of a run of the pipeline's component.
    prompts: one a video.
    out: where they will be written, if that is known.
    frames: of a video; by default as in training.
    size: height and width; by default as in training.
    fps: frames a second, if they are given.
    conditions: as of `VideoPipeline.stream`.
    changes: as of `VideoPipeline`.
    pipeline: that will be asked.

  Raises:
    ConfigError: it cannot, or a prompt is refused.
    DataError: the file of a condition is not there.
  """
  release.admit(prompts)
  config = read_config_of(workdir, pipeline.component, pipeline.noun)
  model = make_flow_model(fields_of(config, 'model'))
  settings = unpack(SampleSettings, fields_of(config, 'sample'), 'sample').changed(changes)
  objective = unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective')
  make_sampler_of(settings, objective, model)
  for prompt in prompts:
    frame_rate_of(prompt, fps, config.data.fps)
  _, usual = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  shape = (frames or usual.frames, *(size or usual.size))
  if out is not None:
    check_out(pathlib.Path(out), len(prompts), shape[0])
  for place in places_of(workdir, config.autoencoder):
    if place.exists():
      codec = make_autoencoder(fields_of(read_config(place), 'model'))
      check_shape(model.backbone, codec, shape)
      fields = condition_fields(model.conditionings, shape, codec.latent_shape(shape))
      for name in (FIRST, LAST, CLIP):
        if conditions.get(name) is not None:
          check_reads(tuple(fields), name, os.fspath(workdir))
      spread_conditions(conditions, fields, len(prompts))
      break
  return shape


def read_source(
  path: str | os.PathLike[str], size: tuple[int, int], fps: float
) -> UInt8[np.ndarray, 't h w 3']:
  """Reads a whole clip that is to be continued, brought to a size and a frame rate.

  Raises:
    DataError: it cannot be read, or is too long to be held.
  """
  frames, most = [], _LARGEST // (3 * size[0] * size[1])
  for frame in stream_clip(path, size=size, fps=fps):
    frames.append(frame)
    if len(frames) > most:
      raise DataError(f'{path}: has more than {most} frames at {fps:g} a second; cut its end out')
  return np.stack(frames)


def check_out(out: pathlib.Path, count: int, frames: int) -> bool:
  """Says whether `out` is the file of a single video, and not a directory.

  Raises:
    ConfigError: it is, but there are several, or videos of so many frames are called otherwise.
  """
  kind = '.mp4' if frames > 1 else '.png'
  alone = out.suffix[1:].isalnum() and not out.suffix[1:].isdigit() and not out.is_dir()
  if alone and count > 1:
    raise ConfigError(f'--out={out} is one file, but there are {count} videos; give a directory')
  if alone and out.suffix != kind:
    raise ConfigError(f'--out={out}: {frames} frame(s) are written as {kind}; name it so')
  return alone


def _name_files(
  out: pathlib.Path, prompts: Sequence[str], frames: int
) -> tuple[list[pathlib.Path], pathlib.Path, pathlib.Path]:
  """Returns the paths of videos, contact sheet and json, and makes their directory."""
  kind, alone = '.mp4' if frames > 1 else '.png', check_out(out, len(prompts), frames)
  directory = out.parent if alone else out
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(f'--out={out}: cannot make {directory}: {error.strerror}') from error
  if alone:
    return [out], out.with_name(f'{out.stem}_sheet.png'), out.with_suffix('.json')
  paths = [out / f'{index:04d}_{prompt_hash(prompt)}{kind}' for index, prompt in enumerate(prompts)]
  return paths, out / 'sheet.png', out / 'samples.json'


def _describe(pipeline, prompts, rates, paths, digests, seed, shape, batch_size) -> dict[str, Any]:
  return {
    'weights': pipeline.weights,
    'settings': pipeline.settings,
    'seed': seed,
    'frames': shape[0],
    'height': shape[1],
    'width': shape[2],
    'batch_size': batch_size,
    'samples': [
      {'index': index, 'prompt': prompt, 'fps': rate, 'file': path.name, 'pixels': digest}
      for index, (prompt, rate, path, digest) in enumerate(
        zip(prompts, rates, paths, digests, strict=True)
      )
    ],
  }
