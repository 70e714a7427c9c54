"""MultiDiffusion over time as a stream: a clip of any length at constant memory (Movie Gen §3.1.5).

A window may take step k as soon as its frames have taken step k - 1, which they have once every
window that shows them has said its velocity. So early windows are steps ahead of late ones: they
run down the clip as a wave front, and the frames behind it are done while those before it have not
been read. Every frame takes the steps of `sample` with `multi_diffusion` over the whole clip, and
sums the same velocities in the same order; nothing is approximated.
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
from mgjax.flow.multidiffusion import check_rows, check_shape, fill_devices, weights_at
from mgjax.flow.windows import windows

# batch, x (b t ...), time (b,) -> like x; a `Velocity` whose conditions are given with every call.
WindowVelocity = Callable[[Batch, np.ndarray, np.ndarray], Array | np.ndarray]
FrameNoise = Callable[[int, int], Array | np.ndarray]  # start, stop of frames -> (t ...)
SOLVERS = ('euler', 'midpoint')


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
  """Samples a clip frame by frame, equal to `sample` of `multi_diffusion` over the whole of it.

  Nobody has to know how long the clip is: conditions are pulled as they are needed, about a window
  ahead, and frames are yielded as soon as their last step is done. With S evaluations of a frame
  (the steps, twice as many with midpoint) the frames in between, on the host, are at most
  `(m S + rows) (size - overlap) + 2 size` and a chunk, where a window shares frames with the m that
  follow (1 where overlap is at most half of size).

  Windows are rows of a batch, each at a time of its own. The number of rows is one for the whole
  clip, so that the velocity is compiled once: `rows`, or as many as a short clip has windows,
  then filled up to divide over the devices of the mesh that is set (`jax.set_mesh`). Windows have
  `size` frames, or all of a clip that is shorter.

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
    an iterator of the next frames that are done, float32. It raises DataError where there is no
    frame at all or a chunk does not fit, and passes on whatever `frames` raises.

  Raises:
    ConfigError: windows would not go on, no window has this shape, no solver of one velocity a
      stage has this name, or `rows` is not positive.
  """
  windows(1, along_time.size, along_time.overlap)  # refuses what would not go on
  check_shape(along_time.shape)
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
        f'a stream of windows cannot be solved with {solver!r}; choose one of {", ".join(SOLVERS)}'
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
    # The oldest first: a frame hears its windows in order, and no more than needed are begun.
    # Ready is a window whose frames are all past what it has said already.
    ready = [each for each in active if all(f.stage == each.stage for f in each.frames)]
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
  """Returns the conditions of windows, their frames and times, each a row."""
  batch = {
    name: np.stack([[frame.conditions[name] for frame in window.frames] for window in picked])
    for name in picked[0].frames[0].conditions
  }
  x = np.stack([[frame.x for frame in window.frames] for window in picked])
  return batch, x, np.array([stages[window.stage].time for window in picked])


class _Frame:
  """A frame on its way, `stage` stages past; `x` is where its velocity is asked for."""

  def __init__(self, conditions: Mapping[str, np.ndarray], noise: np.ndarray, shown: int):
    self.conditions = conditions
    self.x = noise
    self.stage = 0
    self._base = noise  # where the step began
    # windows that show it, and that have said their velocity
    self._shown = shown
    self._heard = 0
    self._velocity: np.ndarray | None = None

  def hear(self, part: np.ndarray, stage: _Stage) -> None:
    """Adds the weighted velocity of a window; with that of the last one the frame goes on."""
    self._velocity = part if self._velocity is None else self._velocity + part
    self._heard += 1
    if self._heard == self._shown:
      self.x = self._base + stage.length * self._velocity
      self._base = self.x if stage.ends else self._base
      self._velocity = None
      self._heard = 0
      self.stage = self.stage + 1


@dataclasses.dataclass
class _Window:
  frames: list[_Frame]
  weights: Float[np.ndarray, ' t']
  stage: int = 0

  def advance(self, velocity: np.ndarray, stage: _Stage) -> None:
    """Tells the frames what this window says of them."""
    self.stage += 1
    for frame, weight, part in zip(self.frames, self.weights, velocity, strict=True):
      frame.hear(weight * part, stage)


class _Clip:
  """The frames that are under way, and the conditions of those that follow."""

  def __init__(
    self, chunks: Iterable[Mapping[str, np.ndarray]], noise: FrameNoise, along_time: TimeWindows
  ):
    self._frames = _each(chunks)
    self._noise, self._shape = noise, along_time.shape
    self._size = along_time.size
    self._step = along_time.size - along_time.overlap
    self._ahead: collections.deque[Mapping[str, np.ndarray]] = collections.deque()
    self._held: list[_Frame] = []  # that windows show and that are not released
    self._stop = 0  # behind the last of them
    self._begun: list[int] = []  # where the last windows begin
    self._last: float = math.inf  # where the last window of all begins, once the end is seen

  def begin(self) -> _Window | None:
    """Begins the next window; returns None where there are no more."""
    start = self._begun[-1] + self._step if self._begun else 0
    # Windows that share frames with this one are certain when two windows are read, or the end.
    self._read(start + 2 * self._size)
    start = int(min(start, self._last))
    if self._begun and start == self._begun[-1]:
      return None
    near = [begun for begun in self._begun if begun > start - self._size] + [start]
    place = len(near) - 1
    while (follows := int(min(near[-1] + self._step, self._last))) < start + self._size:
      if follows == near[-1]:
        break
      near.append(follows)
    self._show(start + self._size, near)
    self._begun = near[: place + 1]
    weights = weights_at(near, self._size, self._shape)[place].astype(np.float32)
    return _Window(self._held[-self._size :], weights)

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
    """Gives the frames before `stop` their noise; `near` are the windows that may show them."""
    if stop == self._stop:
      return
    noise = np.asarray(self._noise(self._stop, stop), np.float32)
    for frame, x in zip(range(self._stop, stop), noise, strict=True):
      shown = sum(start <= frame < start + self._size for start in near)
      self._held.append(_Frame(self._ahead.popleft(), x, shown))
    self._stop = stop

  def release(self, stages: int) -> list[np.ndarray]:
    """Gives away the frames that are past all stages; they are the first ones."""
    done = list(itertools.takewhile(lambda frame: frame.stage == stages, self._held))
    del self._held[: len(done)]
    return [frame.x for frame in done]


def _each(chunks: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Mapping[str, np.ndarray]]:
  for chunk in chunks:
    lengths = {name: len(value) for name, value in chunk.items()}
    if len(set(lengths.values())) != 1:
      raise DataError(f'conditions of a chunk have {lengths} frames; expected as many of each')
    for place in range(next(iter(lengths.values()))):
      yield {name: value[place] for name, value in chunk.items()}
