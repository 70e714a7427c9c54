"""Shape buckets, and the assignment of clips to them (Movie Gen App. J.1, Table 2).

All samples of a bucket have one shape, so all their latents have: the shapes that a program is
compiled for are as many as the buckets. A clip goes to the bucket that cuts the least off it, of
its pixels times its seconds, once among the buckets of videos and once among those of images.

A bucket of videos has a number of frames and a range of frame rates. A clip of D seconds is taken
at the lowest whole rate f of the range with `frames` / f <= D, so that as much of it as possible is
seen. The model learns the rate from the prompt's prefix 'FPS-f'.
"""

import logging
import os
from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.core.errors import DataError, printable
from mgjax.data.clip_index import ClipIndex, announce, tell_once
from mgjax.data.ingest.entries import VIDEO, RejectedEntry
from mgjax.data.media.video import TOLERANCE, cover_size
from mgjax.data.shape import Shape

_log = logging.getLogger(__name__)
_LISTED = 10_000  # of a hundred million clips the rest is counted
_EVEN = 1e-6  # shares of a clip that differ by less are equal


def usable_clips(clips: ClipIndex, shape: Shape, repeats: float = 1.0) -> np.ndarray:
  """Returns the share of each clip's pixels times seconds that one sample keeps; 0 if unusable.

  A clip is unusable too if more than the share `repeats` of its frames repeat the previous one.
  """
  seconds = clips.columns['seconds']
  begin = clips.begin
  remaining = np.maximum(seconds - begin, 0)
  rates = shape.rates(remaining)
  fits = begin + (shape.frames - 1) / rates + 2 * TOLERANCE < seconds
  height, width = np.maximum(clips.columns['height'], 1), np.maximum(clips.columns['width'], 1)
  ratio = width / height * shape.height / shape.width
  share = np.minimum(ratio, 1 / ratio)
  if shape.frames > 1:
    share = share * np.minimum(1, shape.windows(remaining) / np.maximum(remaining, 1e-9))
  fits &= shape.repeats(remaining, clips.columns['fps']) <= repeats
  return np.where(fits, share, 0.0)


def assign_buckets(
  clips: ClipIndex,
  shapes: Mapping[str, Shape],
  every_length: bool = False,
  repeats: float = 1.0,
) -> dict[str, np.ndarray]:
  """Returns the indices of the clips that each bucket takes, in order.

  Among buckets that keep as much of a clip, the one with more frames wins, then the one with fewer
  frame rates. With `every_length` a clip has a bucket of each number of frames that it is long
  enough for, else one of videos and one of images. `repeats` is that of `usable_clips`.
  """
  kinds = {
    name: shape.frames if every_length else shape.frames == 1 for name, shape in shapes.items()
  }
  taken = {}
  for kind in dict.fromkeys(kinds.values()):
    names = [name for name in shapes if kinds[name] == kind]
    names.sort(key=lambda name: (-shapes[name].frames, np.ptp(shapes[name].fps)))
    best = np.zeros(len(clips))
    whose = np.full(len(clips), -1)
    for number, name in enumerate(names):
      share = usable_clips(clips, shapes[name], repeats)
      better = share > best + _EVEN
      best, whose = np.where(better, share, best), np.where(better, number, whose)
    taken |= {name: np.flatnonzero(whose == number) for number, name in enumerate(names)}
  return {name: taken[name] for name in shapes}


def sort_out(
  clips: ClipIndex,
  rejected: Sequence[RejectedEntry],
  shapes: Mapping[str, Shape],
  path: str | os.PathLike[str],
  report: str | os.PathLike[str] | None = None,
  every_length: bool = False,
  repeats: float = 1.0,
) -> dict[str, np.ndarray]:
  """Assigns clips as `assign_buckets` does; logs empty buckets and clips that none takes.

  It also logs how many clips repeat frames in the bucket that takes them.

  Args:
    rejected: what was not usable before.
    path: where the clips lie.
    report: where to list what is left over, of what no bucket takes the first 10,000.

  Returns:
    Name -> indices of the clips, for the buckets that have any.

  Raises:
    DataError: no bucket has any.
  """
  assigned = assign_buckets(clips, shapes, every_length, repeats)
  unassigned = np.ones(len(clips), bool)
  for indices in assigned.values():
    unassigned[indices] = False
  over = np.flatnonzero(unassigned)
  lacking = [_lack(clips, index, shapes, repeats) for index in over[:_LISTED].tolist()]
  least = min(shapes.values(), key=lambda shape: shape.frames / shape.fps[1])
  expected = (
    f'videos of at least {least.frames / least.fps[1]:.2f} s ({least.frames} frames at '
    f'{least.fps[1]:g} per second) with {VIDEO.wanted}'
  )
  used = len(clips) - len(over)
  unlisted = len(over) - len(lacking)
  announce(path, used, [*rejected, *lacking], expected, report, unlisted)
  _tell_repeats(clips, shapes, assigned, path)
  if empty := [name for name, indices in assigned.items() if not len(indices)]:
    _log.warning('no clip belongs to the buckets %s: they are left out', ', '.join(empty))
  return {name: indices for name, indices in assigned.items() if len(indices)}


def _tell_repeats(
  clips: ClipIndex,
  shapes: Mapping[str, Shape],
  assigned: Mapping[str, np.ndarray],
  path: str | os.PathLike[str],
) -> None:
  """Logs how many clips have a lower frame rate than their bucket, and the worst one."""
  shares = np.zeros(len(clips))
  for name, indices in assigned.items():
    some = clips.take(indices)
    remaining = np.maximum(some.columns['seconds'] - some.begin, 0)
    shares[indices] = np.maximum(
      shares[indices], shapes[name].repeats(remaining, some.columns['fps'])
    )
  if shares.any():
    worst = int(shares.argmax())
    tell_once(
      path,
      f'{np.count_nonzero(shares)} of {len(clips)} clips have fewer frames a second than their '
      f'bucket takes and repeat some, {printable(clips.name(worst))} {shares[worst]:.0%} of them; '
      'config.data.repeats is the largest share that is taken',
    )


def _lack(
  clips: ClipIndex, index: int, shapes: Mapping[str, Shape], repeats: float
) -> RejectedEntry:
  """Says what a clip lacks for the bucket that asks for the least."""
  clip = clips.take(np.array([index]))
  seconds = float(clip.columns['seconds'][0])
  begin = float(clip.begin[0])
  since = f' from {begin:.2f} s on' if begin else ''
  needs = []
  for shape in shapes.values():
    rate = float(shape.rates(np.array([seconds - begin]))[0])
    if usable_clips(clip, shape)[0]:
      fps = clip.columns['fps'][0]
      return RejectedEntry(
        clip.name(0),
        f'would repeat frames: it has {fps:g} a second, {shape.frames} frames at {rate:g} per '
        f'second{since} are taken, and data.repeats = {repeats:g}',
      )
    needs.append((begin + (shape.frames - 1) / rate, shape.frames, rate))
  last, frames, rate = min(needs)
  need = f'{frames} frames at {rate:g} per second{since} need more than {last:.2f} s'
  return RejectedEntry(clip.name(0), f'is too short: it lasts {seconds:.2f} s, {need}')


def check_covers(height: float, width: float, shapes: Mapping[str, Shape]) -> None:
  """Raises DataError if the aspect ratio of a frame is too extreme for every bucket."""
  refusals = []
  for shape in shapes.values():
    try:
      cover_size(height, width, shape.size)
    except DataError as refusal:
      refusals.append(refusal)
  if len(refusals) == len(shapes):
    raise refusals[0]


def rows_for(shape: Shape, like: Shape, rows: int, multiple: int = 1) -> int:
  """Returns the batch size that gives a bucket about as many latent positions as another.

  A position is 8 frames of 8 x 8 pixels.

  Args:
    rows: batch size of the bucket `like`.
    multiple: of which the result is one, at least once: over so many devices rows are divided.
  """
  exact_rows = rows * _places(like) / _places(shape)
  return max(1, round(exact_rows / multiple)) * multiple


def _places(shape: Shape) -> int:
  return -(-shape.frames // 8) * (shape.height // 8) * (shape.width // 8)
