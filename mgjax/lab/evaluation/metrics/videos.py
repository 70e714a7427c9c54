"""All metrics of a set of videos by name: with prompts, with reference videos, or alone.

Metrics need encoders, and none ships here. FVD and FID are `frechet_videos` and `frechet_frames`
over the vectors of your encoder, and their numbers compare only with those of the same encoder.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float, UInt8
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

FRAMES = 16  # evenly spaced frames of a video for an encoder, and pairs of frames for the flow

# 1 if more is better, -1 if less is, 0 if it depends on the prompt.
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
  """The interface of a CLIP, such as `mgjax.sections.clip.pipeline.Clip`."""

  def encode_images(self, images: np.ndarray) -> Any:
    """Returns a vector for every uint8 image (b h w 3)."""

  def encode_texts(self, texts: Sequence[str]) -> Any:
    """Returns a vector for every text, in the same space."""


def score_videos(
  videos: Iterable[Video],
  prompts: Sequence[str] | None = None,
  clip: Encoder | None = None,
  reference: Iterable[Video] | Float[np.ndarray, '_ ...'] | None = None,
  *,
  motion: bool = True,
) -> dict[str, Value]:
  """Returns all metrics that the arguments allow, by names of `BETTER`.

  Videos are uint8 (t h w 3) of any sizes. Each is read once and not kept, so they may be larger
  than memory. The encoder gets 16 evenly spaced frames of each, and the flow is computed for 16
  evenly spaced pairs of neighbours.

  Args:
    prompts: one a video; with a `clip` they give 'clip_score'.
    clip: gives 'frame_consistency', and the vectors to compare with the reference.
    reference: true videos, or their vectors of the same encoder: (videos d), or (videos frames d)
      to get 'frechet_frames' too.
    motion: whether to measure 'warping_error', 'motion' and 'dynamic_degree', which need OpenCV.

  Raises:
    DataError: there is no video, an array is no video, or there is not one prompt a video.
    ConfigError: OpenCV is not installed.
  """
  texts = None if prompts is None or clip is None else clip.encode_texts(prompts)
  scores: dict[str, list[float]] = {}
  vectors: list[np.ndarray] = []
  count = 0
  for count, video in enumerate(videos, start=1):
    _check(video, count - 1)
    if prompts is not None and count > len(prompts):
      break
    video_scores = {}
    if len(video) > 2:
      video_scores['flicker'] = float(second_difference(video).mean())
    if motion and len(video) > 1:
      video_scores['warping_error'], moving = _moving(video)
      video_scores['motion'] = float(moving.mean.mean())
      video_scores['dynamic_degree'] = float(moving.dynamic())
    if clip is not None:
      vectors.append(_encode(clip, video))
      video_scores['frame_consistency'] = frame_consistency(vectors[-1])
      if texts is not None:
        video_scores['clip_score'] = clip_score(vectors[-1], texts[count - 1])
    for name in BETTER:
      scores.setdefault(name, []).append(video_scores.get(name, np.nan))
  if not count or (prompts is not None and count != len(prompts)):
    prompt_count = '' if prompts is None else f' and {len(prompts)} prompts'
    excess = ' or more' if prompts is not None and count > len(prompts) else ''
    raise DataError(
      f'{count} videos{excess}{prompt_count}; give a video or more, and one prompt each'
    )
  results = {
    name: mean_value(values) for name, values in scores.items() if np.isfinite(values).any()
  }
  if 'dynamic_degree' in results:
    results['dynamic_degree'] = share_value(scores['dynamic_degree'])
  if reference is not None and clip is not None:
    results |= compare_clips(vectors, _reference(clip, reference))
  return {name: results[name] for name in BETTER if name in results}


def compare_clips(
  generated: Sequence[Float[np.ndarray, '_ _']] | Float[np.ndarray, '_ ...'],
  reference: Sequence[Float[np.ndarray, '_ _']] | Float[np.ndarray, '_ ...'],
) -> dict[str, Value]:
  """Compares vectors of generated videos with those of true ones, of any encoder.

  Both are a vector a video (b d), or vectors of the frames of each, (t d) or in all (b t d). The
  mean of frames stands for the video, and 'frechet_frames' compares them one by one. A metric that
  so few videos do not have is NaN, and says so in its warning. Raises DataError if the vectors do
  not belong together, or are not finite.
  """
  clips = [_clips(vectors) for vectors in (reference, generated)]
  widths = {clip.shape[1] for side in clips for clip in side}
  if len(widths) != 1:
    raise DataError(f'vectors of {sorted(widths)} numbers; compare those of one encoder')
  means = [np.stack([clip.mean(0) for clip in side]) for side in clips]
  counts = len(clips[1]), len(clips[0])
  names = ['frechet_videos', 'kernel_distance', *Neighbourhood._fields]
  framed = all(len(clip) > 1 for side in clips for clip in side)
  names += ['frechet_frames'] if framed else []
  if min(counts) < 4:
    few = f'{counts[0]} and {counts[1]} videos are too few; four of both have this number'
    return {name: unmeasured(*counts, few) for name in names}
  true, ours = means
  results = {'frechet_videos': frechet_value(ours[:, None], true[:, None])}
  results['kernel_distance'] = kernel_value(ours, true)
  if framed:
    results['frechet_frames'] = frechet_value(clips[1], clips[0])
  if min(counts) >= 2 * NEAREST + 2:
    return results | neighbourhood_values(true, ours)
  few = f'{counts[0]} and {counts[1]} videos are too few; {2 * NEAREST + 2} of both have it'
  return results | {name: unmeasured(*counts, few) for name in Neighbourhood._fields}


def read_vectors(path: str | os.PathLike[str]) -> Float[np.ndarray, '_ ...']:
  """Reads vectors of videos from a .npy, as `compare_clips` takes them; DataError if it cannot."""
  try:
    vectors = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise DataError(
      f'cannot read vectors from {os.fspath(path)!r}: {error}; expected the .npy of an array'
    ) from None
  if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != 'f' or vectors.ndim not in (2, 3):
    shape = getattr(vectors, 'shape', '')
    kind = getattr(vectors, 'dtype', type(vectors).__name__)
    raise DataError(
      f'{os.fspath(path)!r} holds {kind} {shape}; expected floats (videos d) or (videos frames d)'
    )
  return vectors


def _clips(vectors: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
  """Returns the rows of each clip, in float64."""
  clips = [np.atleast_2d(np.asarray(clip, np.float64)) for clip in vectors]
  if not clips or not all(clip.ndim == 2 and clip.size for clip in clips):
    raise DataError('there are no vectors to compare; expected (videos d) or (videos frames d)')
  if not all(np.isfinite(clip).all() for clip in clips):
    raise DataError('vectors of videos are not all finite; look at the encoder that made them')
  return clips


def _reference(clip: Encoder, reference: Any) -> Sequence[np.ndarray] | np.ndarray:
  if isinstance(reference, np.ndarray) and reference.dtype.kind == 'f':
    return reference
  vectors = []
  for number, video in enumerate(reference):
    _check(video, number)
    vectors.append(_encode(clip, video))
  return vectors


def _check(video: Any, number: int) -> None:
  shape = np.shape(video)
  kind = getattr(video, 'dtype', None)
  if kind != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
    raise DataError(f'video {number} is {kind} {shape}; expected uint8 (t h w 3)')


def _encode(clip: Encoder, video: Video) -> Float[np.ndarray, '_ _']:
  return np.asarray(clip.encode_images(video[evenly(len(video), FRAMES)]), np.float64)


def _moving(video: Video) -> tuple[float, Motion]:
  """Returns mean warping error and motion of evenly spaced pairs of neighbouring frames."""
  errors = []
  forward = []
  for first in evenly(len(video) - 1, FRAMES):
    pair = video[first : first + 2]
    ((back, forth),) = flows(pair)
    errors.append(float(warping_error(pair, [(back, forth)])[0]))
    forward.append(forth)
  finite = np.array(errors)[np.isfinite(errors)]
  return float(finite.mean()) if len(finite) else float('nan'), motion_of(forward)
