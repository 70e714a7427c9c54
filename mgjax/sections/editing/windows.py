"""Videos of any length, edited in windows by MultiDiffusion (Movie Gen §3.1.5)."""

import collections
from collections.abc import Iterable, Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Batch, Float, UInt8
from mgjax.flow.path import SIGMA_MIN
from mgjax.flow.streaming import FrameNoise, WindowVelocity, stream_windows
from mgjax.models.conditioning.clips.source_video import KEY as SOURCE
from mgjax.models.flow_model.conditions import LATENTS
from mgjax.models.tae.latents import LatentCodec
from mgjax.sections.editing.sdedit import noised


def edit_windows(
  codec: LatentCodec,
  velocity: WindowVelocity,
  frames: Iterable[UInt8[np.ndarray, 'h w 3']],
  *,
  constant: Mapping[str, np.ndarray],
  window: int,
  times: Float[np.ndarray, ' points'],
  noise: FrameNoise,
  solver: str = 'euler',
  rows: int = 8,
  reads: bool = True,
  strength: float = 1.0,
  sigma_min: float = SIGMA_MIN,
) -> Iterator[UInt8[np.ndarray, 't h w 3']]:
  """Yields the next edited frames, in memory that does not grow with their number.

  Neighbouring windows share half of their latents, so that all but the ends are made twice: how
  many the report shares is not in public sources.

  Args:
    velocity: of windows, see `stream_windows`.
    window: latents of a window along time.
    times: of the solver; those that `strength` leaves.
    noise: of latents, by where they begin and stop.
    solver: 'euler' or 'midpoint'.
    rows: windows in a call of `velocity`.
    reads: whether the model sees the video, which with SDEdit it does not.
    strength: how much of the video is noised to begin with; 1 begins from noise alone.
  """
  kept = collections.deque[np.ndarray]()  # latents that are yet to be noised
  seen = made = 0

  def counted() -> Iterator[UInt8[np.ndarray, '1 1 h w 3']]:
    nonlocal seen
    for frame in frames:
      seen += 1
      yield frame[None, None]

  def conditions() -> Iterator[dict[str, np.ndarray]]:
    for latents in codec.encode_stream(counted()):
      array = np.asarray(latents, np.float32)[0]
      kept.extend(array)
      yield {SOURCE if reads else LATENTS: array}

  def start(begin: int, stop: int) -> np.ndarray | Array:
    latents = jnp.asarray([kept.popleft() for _ in range(begin, stop)])
    return noised(latents, jnp.asarray(noise(begin, stop)), strength, sigma_min)

  def unaware(batch: Batch, x: np.ndarray, time: np.ndarray) -> Array | np.ndarray:
    # What SDEdit starts from comes with the frames, but it is no condition.
    return velocity({name: v for name, v in batch.items() if name != LATENTS}, x, time)

  latents = stream_windows(
    unaware,
    conditions(),
    constant=constant,
    size=window,
    overlap=window // 2,
    times=times,
    noise=start,
    solver=solver,
    rows=rows,
  )
  for video in codec.decode_stream(part[None] for part in latents):
    # The last latents may stand for more frames than there are; by then all are read.
    part = np.asarray(video)[0, : seen - made]
    made += len(part)
    yield part
