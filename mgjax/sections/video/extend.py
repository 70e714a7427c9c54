"""Continues a clip window by window, each from the last frames of the previous one."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import UInt8
from mgjax.models.conditioning.frames import CLIP, KNOWN

_APART = 2**20  # between the indices of the noises of a video's windows
# Arguments: conditions by name, a list of one each, and the index of the first noise.
GenerateVideos = Callable[[dict[str, list[np.ndarray]], int], UInt8[np.ndarray, 'b t h w 3']]


def check_continuation(frames: int, clip_frames: int) -> None:
  """Raises ConfigError unless there are frames to continue and frames to add."""
  if clip_frames < 1 or frames <= clip_frames:
    raise ConfigError(
      f'a clip of {clip_frames} frames cannot be continued to {frames} in all; ask for more than '
      'it has'
    )


def check_reads(reads: Sequence[str], name: str, workdir: str) -> None:
  """Raises ConfigError if a model does not read this condition of known frames."""
  if name not in reads:
    raise ConfigError(
      f'the model of {workdir!r} reads no {name!r}; train it on with a conditioning of the kind '
      "'frames', as configs/digits/frames.py does"
    )


def default_overlap(window: int) -> int:
  """Returns the default number of known frames of a window: half. Not in public sources."""
  return max(window // 2, 1)


def continued(
  generate: GenerateVideos,
  clips: Sequence[UInt8[np.ndarray, 't h w 3']],
  *,
  frames: int,
  window: int,
  overlap: int | None = None,
) -> Iterator[UInt8[np.ndarray, 'b t h w 3']]:
  """Yields the continuation of clips, window by window.

  A window begins with the last `overlap` frames of what there is, which are given, and adds the
  others; what was there stays as it was, bit for bit. Windows lie from the front on, so a longer
  continuation begins as a shorter one. The first window takes the noise of a single video, and
  window n that of the index n 2^20 later.

  Args:
    generate: makes one window of each clip.
    clips: of one length, which may be shorter than the overlap.
    window: frames that the model makes at a time.
    overlap: by default `default_overlap`.

  Raises:
    ConfigError: there is no frame to add, or windows would not advance.
  """
  overlap = default_overlap(window) if overlap is None else overlap
  if not 0 < overlap < window:
    raise ConfigError(
      f'windows of {window} frames that share {overlap}: expected 1 at least, and fewer than all'
    )
  length = len(clips[0])
  check_continuation(frames, length)
  last = np.stack([clip[-overlap:] for clip in clips])
  index = 0
  while length < frames:
    shared = last.shape[1]
    known = (np.arange(window) < shared).astype(np.float32)
    padded = np.pad(last, ((0, 0), (0, window - shared), (0, 0), (0, 0), (0, 0)), mode='edge')
    generated = generate({CLIP: list(padded), KNOWN: [known] * len(clips)}, index * _APART)
    new = generated[:, shared : shared + frames - length]
    yield new
    last = np.concatenate([last, new], axis=1)[:, -overlap:]
    length = length + new.shape[1]
    index = index + 1
