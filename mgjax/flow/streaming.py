"""MultiDiffusion over time as a stream: a clip of any length at constant memory (Movie Gen §3.1.5).

A window may take step k as soon as its frames have taken step k - 1, which they have once every
window that contains them has computed its velocity. So early windows are steps ahead of late ones.
They move along the clip as a wavefront: frames behind it are done before those ahead of it are
read. Every frame takes the same steps as in `sample` with `multi_diffusion` over the complete clip,
and sums the same velocities in the same order; nothing is approximated.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Array, Batch, Float
from mgjax.flow.multidiffusion import check_rows, check_window_shape, fill_devices, weights_at
from mgjax.flow.windows import windows

# batch, x (b t ...), time (b,) -> like x; a `Velocity` that gets its conditions with every call.
WindowVelocity = Callable[[Batch, np.ndarray, np.ndarray], Array | np.ndarray]
FrameNoise = Callable[[int, int], Array | np.ndarray]  # start, stop of frames -> (t ...)
STREAMING_SOLVERS = ('euler', 'midpoint')


class TimeWindows(NamedTuple):
  """The windows along time that a clip of any length is made in.

  Attributes:
    size: frames of a window.
    overlap: frames that windows share; the last two may share more.
    shape: of the weights, a name in `multidiffusion.SHAPES`.
    rows: windows in a call of the velocity.
  """

  size: int
  overlap: int
  shape: str = 'bartlett'
  rows: int = 8


def stream_windows(
  velocity: WindowVelocity,
  frames: Iterable[Mapping[str, np.ndarray]],
  along_time: TimeWindows,
  *,
  times: Float[np.ndarray, ' points'],
  noise: FrameNoise,
  constant: Mapping[str, np.ndarray | Array] | None = None,
  solver: str = 'euler',
) -> Iterator[Float[np.ndarray, 't *axes']]:
  """Samples a clip frame by frame; the result is that of `multi_diffusion` over the complete clip.

  The length of the clip need not be known. Conditions are pulled about a window ahead, and frames
  are yielded as soon as their last step is done. With S evaluations of a frame (the steps, twice as
  many with midpoint) at most `(m S + rows) (size - overlap) + 2 size` frames and a chunk are in
  progress, on the host. Here m is the number of following windows that share frames with a window
  (1 if overlap is at most half of size).

  Windows are rows of a batch, each at its own time. The number of rows is constant, so that the
  velocity is compiled once: `rows`, or the number of windows of a short clip, rounded up to divide
  over the devices of the ambient mesh (`jax.set_mesh`). Windows have `size` frames, or all frames
  of a shorter clip.

  Args:
    velocity: for instance `jax.jit(lambda batch, x, time: make_velocity(batch)(x, time))` with
      parameters bound. On a mesh it places its rows by itself (`place_rows`). To go beyond a window
      in space as well, `make_velocity` is `multi_diffusion` over `(windows(t, t), height, width)`.
    frames: chunks of conditions in order, name -> (t ...), each for the next t frames.
    along_time: the windows, of `size`, `overlap` and `rows` above.
    times: increasing, from `make_time_grid`.
    noise: X_0 of frames, for instance from `frame_noise`; asked for each frame once, in order.
    constant: conditions of the whole clip, name -> (1 ...).
    solver: 'euler' or 'midpoint'.

  Returns:
    an iterator of the next finished frames, float32. It raises DataError if there is no frame or a
    chunk does not fit, and passes on the errors of `frames`.

  Raises:
    ConfigError: windows would not advance, no window has this shape, the solver is not one of
      `STREAMING_SOLVERS`, or `rows` is not positive.
  """
  windows(1, along_time.size, along_time.overlap)  # checks size and overlap
  check_window_shape(along_time.shape)
  check_rows(along_time.rows)
  stages = _stages(times, solver)
  return _run(velocity, _Clip(frames, noise, along_time), stages, constant or {}, along_time.rows)


class _Stage(NamedTuple):
  """One evaluation: x = base + length * velocity at `time`, and where a step ends, base = x."""

  time: np.float32
  length: np.float32
  ends: bool


def _stages(times: np.ndarray, solver: str) -> list[_Stage]:
  stages = []
  for time, after in itertools.pairwise(np.asarray(times, np.float32)):
    step = after - time
    if solver == 'euler':
      stages.append(_Stage(time, step, True))
    elif solver == 'midpoint':
      half = step / np.float32(2)
      stages += [_Stage(time, half, False), _Stage(time + half, step, True)]
    else:
      raise ConfigError(
        f'a stream of windows cannot be solved with {solver!r}; choose one of '
        f'{", ".join(STREAMING_SOLVERS)}'
      )
  return stages


def _run(
  velocity: WindowVelocity,
  clip: '_Clip',
  stages: list[_Stage],
  constant: Mapping[str, np.ndarray | Array],
  rows: int,
) -> Iterator[np.ndarray]:
  active: list[_Window] = []
  repeated: Batch = {}
  count = 0
  while True:
    # The oldest windows first: a frame sums its windows in order, and no more than needed are
    # begun. A window is ready if all its frames have finished the stages that it has computed.
    ready = [
      window for window in active if all(frame.stage == window.stage for frame in window.frames)
    ]
    ready = ready[: count or rows]
    while len(ready) < (count or rows) and (window := clip.begin()):
      active.append(window)
      ready.append(window)
    if not ready:
      return
    if not count:
      count = fill_devices(len(ready))
      repeated = {name: np.repeat(value, count, axis=0) for name, value in constant.items()}
    batch, x, time = _rows(ready + ready[-1:] * (count - len(ready)), stages)
    answers = np.asarray(velocity(repeated | batch, x, time)).astype(np.float32)
    for window, answer in zip(ready, answers, strict=False):
      window.advance(answer, stages[window.stage])
    active = [window for window in active if window.stage < len(stages)]
    if done := clip.release(len(stages)):
      yield np.stack(done)


def _rows(picked: list['_Window'], stages: list[_Stage]) -> tuple[Batch, np.ndarray, np.ndarray]:
  """Returns conditions, frames and times of windows, a row for each window."""
  batch = {
    name: np.stack([[frame.conditions[name] for frame in window.frames] for window in picked])
    for name in picked[0].frames[0].conditions
  }
  x = np.stack([[frame.x for frame in window.frames] for window in picked])
  return batch, x, np.array([stages[window.stage].time for window in picked])


class _Frame:
  """A frame in progress after `stage` stages; its next velocity is evaluated at `x`."""

  def __init__(self, conditions: Mapping[str, np.ndarray], noise: np.ndarray, num_windows: int):
    self.conditions = conditions
    self.x = noise
    self.stage = 0
    self._base = noise  # x at the start of the step
    # windows that contain the frame, and those of them whose velocity has been added
    self._num_windows = num_windows
    self._num_added = 0
    self._velocity: np.ndarray | None = None

  def add(self, part: np.ndarray, stage: _Stage) -> None:
    """Adds the weighted velocity of a window; after the last one the frame takes the stage."""
    self._velocity = part if self._velocity is None else self._velocity + part
    self._num_added += 1
    if self._num_added == self._num_windows:
      self.x = self._base + stage.length * self._velocity
      self._base = self.x if stage.ends else self._base
      self._velocity = None
      self._num_added = 0
      self.stage = self.stage + 1


@dataclasses.dataclass
class _Window:
  frames: list[_Frame]
  weights: Float[np.ndarray, ' t']
  stage: int = 0

  def advance(self, velocity: np.ndarray, stage: _Stage) -> None:
    """Adds this window's velocity to its frames."""
    self.stage += 1
    for frame, weight, part in zip(self.frames, self.weights, velocity, strict=True):
      frame.add(weight * part, stage)


class _Clip:
  """The frames in progress, and the conditions of those that follow."""

  def __init__(
    self, chunks: Iterable[Mapping[str, np.ndarray]], noise: FrameNoise, along_time: TimeWindows
  ):
    self._frames = _split_chunks(chunks)
    self._noise, self._shape = noise, along_time.shape
    self._size = along_time.size
    self._step = along_time.size - along_time.overlap
    self._ahead: collections.deque[Mapping[str, np.ndarray]] = collections.deque()
    self._in_progress: list[_Frame] = []  # frames of windows that are not released yet
    self._stop = 0  # index after the last of them
    self._starts: list[int] = []  # starts of the last windows
    self._last: float = math.inf  # start of the last window of the clip, once its end is read

  def begin(self) -> _Window | None:
    """Begins the next window; returns None if there are no more."""
    start = self._starts[-1] + self._step if self._starts else 0
    # The windows that share frames with this one are known after two windows, or at the end.
    self._read(start + 2 * self._size)
    start = int(min(start, self._last))
    if self._starts and start == self._starts[-1]:
      return None
    near = [earlier for earlier in self._starts if earlier > start - self._size] + [start]
    index = len(near) - 1
    while (follows := int(min(near[-1] + self._step, self._last))) < start + self._size:
      if follows == near[-1]:
        break
      near.append(follows)
    self._show(start + self._size, near)
    self._starts = near[: index + 1]
    weights = weights_at(near, self._size, self._shape)[index].astype(np.float32)
    return _Window(self._in_progress[-self._size :], weights)

  def _read(self, stop: int) -> None:
    """Reads conditions until the frame before `stop`, or the end."""
    while self._last == math.inf and self._stop + len(self._ahead) < stop:
      if (frame := next(self._frames, None)) is not None:
        self._ahead.append(frame)
        continue
      if not (total := self._stop + len(self._ahead)):
        raise DataError('there is no frame to sample; expected the conditions of one at least')
      self._size = min(self._size, total)
      self._last = total - self._size

  def _show(self, stop: int, near: list[int]) -> None:
    """Draws noise for the frames before `stop`; `near` are the starts of windows around them."""
    if stop == self._stop:
      return
    noise = np.asarray(self._noise(self._stop, stop), np.float32)
    for frame, x in zip(range(self._stop, stop), noise, strict=True):
      num_windows = sum(start <= frame < start + self._size for start in near)
      self._in_progress.append(_Frame(self._ahead.popleft(), x, num_windows))
    self._stop = stop

  def release(self, stages: int) -> list[np.ndarray]:
    """Removes and returns the frames that have finished all stages; they are the first ones."""
    done = list(itertools.takewhile(lambda frame: frame.stage == stages, self._in_progress))
    del self._in_progress[: len(done)]
    return [frame.x for frame in done]


def _split_chunks(chunks: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Mapping[str, np.ndarray]]:
  for chunk in chunks:
    lengths = {name: len(value) for name, value in chunk.items()}
    if len(set(lengths.values())) != 1:
      raise DataError(f'conditions of a chunk have {lengths} frames; expected as many of each')
    for index in range(next(iter(lengths.values()))):
      yield {name: value[index] for name, value in chunk.items()}
