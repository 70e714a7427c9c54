"""Videos of any length, edited in windows by MultiDiffusion (Movie Gen §3.1.5)."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Batch, UInt8
from mgjax.flow.streaming import TimeWindows, WindowVelocity, stream_windows
from mgjax.models.conditioning.clips.source_video import SOURCE_VIDEO_KEY as SOURCE
from mgjax.models.flow_model.conditions import LATENTS
from mgjax.models.tae.latents import LatentCodec

# latents (t ...), where they begin and stop -> like the latents
Start = Callable[[Array, int, int], Array]


def edit_windows(
  codec: LatentCodec,
  velocity: WindowVelocity,
  frames: Iterable[UInt8[np.ndarray, 'h w 3']],
  along_time: TimeWindows,
  *,
  start: Start,
  reads: bool = True,
  **options: Any,
) -> Iterator[UInt8[np.ndarray, 't h w 3']]:
  """Yields the next edited frames, in memory that does not grow with their number.

  Args:
    velocity: of windows, see `stream_windows`.
    along_time: windows of latents.
    start: of latents of the video and where they begin and stop, what sampling begins from.
    reads: whether the model sees the video, which with SDEdit it does not.
    **options: `times`, `constant` and `solver` of `stream_windows`.
  """
  pending = collections.deque[np.ndarray]()  # latents that are yet to be noised
  seen = yielded = 0

  def counted() -> Iterator[UInt8[np.ndarray, '1 1 h w 3']]:
    nonlocal seen
    for frame in frames:
      seen += 1
      yield frame[None, None]

  def conditions() -> Iterator[dict[str, np.ndarray]]:
    for latents in codec.encode_stream(counted()):
      array = np.asarray(latents, np.float32)[0]
      pending.extend(array)
      yield {SOURCE if reads else LATENTS: array}

  def noise(begin: int, stop: int) -> Array:
    return start(jnp.asarray([pending.popleft() for _ in range(begin, stop)]), begin, stop)

  def unaware(batch: Batch, x: np.ndarray, time: np.ndarray) -> Array | np.ndarray:
    # What SDEdit starts from comes with the frames, but it is no condition.
    return velocity({name: v for name, v in batch.items() if name != LATENTS}, x, time)

  latents = stream_windows(unaware, conditions(), along_time, noise=noise, **options)
  for video in codec.decode_stream(part[None] for part in latents):
    # The last latents may stand for more frames than there are; by then all are read.
    part = np.asarray(video)[0, : seen - yielded]
    yielded += len(part)
    yield part
