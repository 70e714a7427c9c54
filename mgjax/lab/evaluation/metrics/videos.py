"""All that can be measured of a set of videos, by name: beside prompts, beside others, alone.

Metrics need encoders, and none comes with weights here: what is called FVD or FID elsewhere is
`frechet_videos` or `frechet_frames` over the vectors of whatever encoder is given, and its numbers
compare only with those of the same one.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Array, Float, UInt8
from mgjax.data.clips import evenly
from mgjax.data.media.optical_flow import flows
from mgjax.lab.evaluation.metrics.embeddings import clip_score, frame_consistency
from mgjax.lab.evaluation.metrics.frechet import (
  NEAREST,
  Neighbourhood,
  frechet_value,
  kernel_value,
  neighbourhood_values,
)
from mgjax.lab.evaluation.metrics.motion import Motion, motion_of
from mgjax.lab.evaluation.metrics.stability import second_difference, warping_error
from mgjax.lab.statistics.values import Value, mean_value, share_value, unmeasured

FRAMES = 16  # of a video, spread over it, that an encoder sees; and pairs that a flow is taken of

# 1 where more is better, -1 where less is; 0 where it depends on what is asked for.
BETTER = {
  'clip_score': 1,
  'frame_consistency': 1,
  'flicker': -1,
  'warping_error': -1,
  'motion': 0,
  'dynamic_degree': 0,
  'frechet_videos': -1,
  'frechet_frames': -1,
  'kernel_distance': -1,
  **dict.fromkeys(Neighbourhood._fields, 1),
}

Video = UInt8[np.ndarray, '_ _ _ 3']


@runtime_checkable
class Encoder(Protocol):
  """What is asked of a CLIP, such as `mgjax.sections.clip.pipeline.Clip`."""

  def encode_images(self, images: np.ndarray) -> np.ndarray | Array:
    """Returns a vector of every image of bytes (b h w 3)."""

  def encode_texts(self, texts: Sequence[str]) -> np.ndarray | Array:
    """Returns a vector a text, of the same space."""


def score_videos(
  videos: Iterable[Video],
  prompts: Sequence[str] | None = None,
  clip: Encoder | None = None,
  reference: Iterable[Video] | Float[np.ndarray, '_ ...'] | None = None,
  *,
  motion: bool = True,
) -> dict[str, Value]:
  """Returns all metrics that what is given allows, by names of `BETTER`.

  Each video, bytes (t h w 3) of any size, is looked at once and not kept: they may be more than
  memory holds. Of each an encoder sees 16 frames, and the flow is taken between 16 pairs of
  neighbours, spread over it.

  Args:
    prompts: one a video; with a `clip` they give 'clip_score'.
    clip: gives 'frame_consistency', and what is compared with the reference.
    reference: true videos, or vectors that the same encoder made of them: (videos d), or
      (videos frames d) for 'frechet_frames' too.
    motion: whether to measure 'warping_error', 'motion' and 'dynamic_degree', which need OpenCV.

  Raises:
    DataError: there is not one prompt a video, there is no video, or one is no video.
    ConfigError: OpenCV is not installed.
  """
  texts = None if prompts is None or clip is None else clip.encode_texts(prompts)
  each: dict[str, list[float]] = {}
  vectors: list[np.ndarray] = []
  count = 0
  for count, video in enumerate(videos, start=1):
    _check(video, count - 1)
    if prompts is not None and count > len(prompts):
      break
    found = {}
    if len(video) > 2:
      found['flicker'] = float(second_difference(video).mean())
    if motion and len(video) > 1:
      found['warping_error'], moving = _moving(video)
      found['motion'] = float(moving.mean.mean())
      found['dynamic_degree'] = float(moving.dynamic())
    if clip is not None:
      vectors.append(_encode(clip, video))
      found['frame_consistency'] = frame_consistency(vectors[-1])
      if texts is not None:
        found['clip_score'] = clip_score(vectors[-1], texts[count - 1])
    for name in BETTER:
      each.setdefault(name, []).append(found.get(name, np.nan))
  if not count or (prompts is not None and count != len(prompts)):
    asked = '' if prompts is None else f' and {len(prompts)} prompts'
    more = ' or more' if prompts is not None and count > len(prompts) else ''
    raise DataError(f'{count} videos{more}{asked}; give a video or more, and one prompt each')
  made = {name: mean_value(values) for name, values in each.items() if np.isfinite(values).any()}
  if 'dynamic_degree' in made:
    made['dynamic_degree'] = share_value(each['dynamic_degree'])
  if reference is not None and clip is not None:
    made |= compare_clips(vectors, _reference(clip, reference))
  return {name: made[name] for name in BETTER if name in made}


def compare_clips(
  generated: Sequence[Float[np.ndarray, '_ _']] | Float[np.ndarray, '_ ...'],
  reference: Sequence[Float[np.ndarray, '_ _']] | Float[np.ndarray, '_ ...'],
) -> dict[str, Value]:
  """Compares vectors of generated videos with those of true ones, whatever encoder made them.

  Both are a vector a video (b d), or vectors of the frames of each, (t d) or in all (b t d): of
  those the mean stands for the video, and 'frechet_frames' compares them one by one. A metric that
  so few videos do not have is NaN, and says so in its warning. Raises DataError if the vectors do
  not belong together, or are not finite.
  """
  clips = [_clips(given) for given in (reference, generated)]
  widths = {each.shape[1] for side in clips for each in side}
  if len(widths) != 1:
    raise DataError(f'vectors of {sorted(widths)} numbers; compare those of one encoder')
  means = [np.stack([each.mean(0) for each in side]) for side in clips]
  counts = len(clips[1]), len(clips[0])
  names = ['frechet_videos', 'kernel_distance', *Neighbourhood._fields]
  framed = all(len(each) > 1 for side in clips for each in side)
  names += ['frechet_frames'] if framed else []
  if min(counts) < 4:
    few = f'{counts[0]} and {counts[1]} videos are too few; four of both have this number'
    return {name: unmeasured(*counts, few) for name in names}
  true, ours = means
  found = {'frechet_videos': frechet_value(ours[:, None], true[:, None])}
  found['kernel_distance'] = kernel_value(ours, true)
  if framed:
    found['frechet_frames'] = frechet_value(clips[1], clips[0])
  if min(counts) >= 2 * NEAREST + 2:
    return found | neighbourhood_values(true, ours)
  few = f'{counts[0]} and {counts[1]} videos are too few; {2 * NEAREST + 2} of both have it'
  return found | {name: unmeasured(*counts, few) for name in Neighbourhood._fields}


def read_vectors(path: str | os.PathLike[str]) -> Float[np.ndarray, '_ ...']:
  """Reads vectors of videos from a .npy, as `compare_clips` takes them; DataError if it cannot."""
  try:
    found = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise DataError(
      f'cannot read vectors from {os.fspath(path)!r}: {error}; expected the .npy of an array'
    ) from None
  if not isinstance(found, np.ndarray) or found.dtype.kind != 'f' or found.ndim not in (2, 3):
    shape = getattr(found, 'shape', '')
    kind = getattr(found, 'dtype', type(found).__name__)
    raise DataError(
      f'{os.fspath(path)!r} holds {kind} {shape}; expected floats (videos d) or (videos frames d)'
    )
  return found


def _clips(given: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
  """Rows of each clip, in float64."""
  clips = [np.atleast_2d(np.asarray(each, np.float64)) for each in given]
  if not clips or not all(each.ndim == 2 and each.size for each in clips):
    raise DataError('there are no vectors to compare; expected (videos d) or (videos frames d)')
  if not all(np.isfinite(each).all() for each in clips):
    raise DataError('vectors of videos are not all finite; look at the encoder that made them')
  return clips


def _reference(clip: Encoder, given: Any) -> Sequence[np.ndarray] | np.ndarray:
  if isinstance(given, np.ndarray) and given.dtype.kind == 'f':
    return given
  found = []
  for number, video in enumerate(given):
    _check(video, number)
    found.append(_encode(clip, video))
  return found


def _check(video: Any, number: int) -> None:
  shape = np.shape(video)
  kind = getattr(video, 'dtype', None)
  if kind != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
    raise DataError(f'video {number} is {kind} {shape}; expected uint8 (t h w 3)')


def _encode(clip: Encoder, video: Video) -> Float[np.ndarray, '_ _']:
  return np.asarray(clip.encode_images(video[evenly(len(video), FRAMES)]), np.float64)


def _moving(video: Video) -> tuple[float, Motion]:
  """Mean warping error and motion of pairs of neighbours, spread over a video."""
  errors = []
  there = []
  for first in evenly(len(video) - 1, FRAMES):
    pair = video[first : first + 2]
    ((back, forth),) = flows(pair)
    errors.append(float(warping_error(pair, [(back, forth)])[0]))
    there.append(forth)
  kept = np.array(errors)[np.isfinite(errors)]
  return float(kept.mean()) if len(kept) else float('nan'), motion_of(there)
