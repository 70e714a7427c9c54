"""Metrics of a run: metrics.jsonl, TensorBoard, and a progress bar or plain lines."""

import collections
import datetime
import io
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np
import PIL.Image
import tqdm

from mgjax.core.files import append_json_line, write_bytes


class MetricWriter:
  """Writes scalars to `metrics.jsonl` and, with images, to TensorBoard files in `tensorboard/`.

  A line of metrics.jsonl is `{"step": 10, "loss": 0.5, ...}`, strict JSON: what is not finite
  becomes the string 'nan', 'inf' or '-inf'. On several hosts only the first one writes.
  """

  def __init__(
    self, workdir: str | os.PathLike[str], tensorboard: bool = True, resume_step: int | None = None
  ):
    """Opens the files.

    Args:
      workdir: the directory of the run.
      tensorboard: whether to write TensorBoard files as well.
      resume_step: the step the run goes on from, 0 at the start of a run: what an earlier attempt
        wrote about later steps is dropped, it will be written again. None keeps all.
    """
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    self._writes = jax.process_index() == 0
    self._board = None
    if self._writes and resume_step is not None:
      _drop_after(self._path, resume_step)
    if self._writes and tensorboard:
      import tensorboardX  # slow to import, so only where it is used

      purge_step = None if resume_step is None else resume_step + 1
      self._board = tensorboardX.SummaryWriter(
        str(self._path.parent / 'tensorboard'), purge_step=purge_step, flush_secs=10
      )

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes the metrics of one step: name -> number or scalar array."""
    if not self._writes:
      return
    values = {name: float(value) for name, value in metrics.items()}
    append_json_line(self._path, {'step': int(step)} | {n: _strict(v) for n, v in values.items()})
    if self._board is not None:
      for name, value in values.items():
        self._board.add_scalar(name, value, step)

  def image(self, step: int, name: str, image: str | os.PathLike[str] | np.ndarray) -> None:
    """Shows an image file, or a uint8 or [0, 1] float array (h w c), in TensorBoard."""
    if self._board is None:
      return
    if isinstance(image, str | os.PathLike):
      with PIL.Image.open(image) as file:
        image = np.asarray(file.convert('RGB'))
    self._board.add_image(name, np.asarray(image), step, dataformats='HWC')

  def flush(self) -> None:
    """Makes TensorBoard see what its writing thread has taken up; only `close` waits for all."""
    if self._board is not None:
      self._board.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._board is not None:
      self._board.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


class Means:
  """Means of metrics over steps, of which not every one need have the same.

  A metric of two numbers is a sum and its weight, such as the losses of the rows of some kind and
  their number; its mean is that over all rows of all steps.
  """

  def __init__(self):
    self._sums: dict[str, np.ndarray] = {}

  def add(self, metrics: Mapping[str, Any]) -> None:
    """Adds the metrics of one step."""
    for name, value in metrics.items():
      value = np.asarray(value, np.float64)
      pair = value if value.shape == (2,) else np.array([value, 1.0])
      self._sums[name] = self._sums.get(name, 0.0) + pair

  def means(self) -> dict[str, float]:
    """Returns name -> mean, of those that have any weight."""
    return {name: float(total / weight) for name, (total, weight) in self._sums.items() if weight}


class Progress:
  """Shows how far a run is: a bar on a terminal, elsewhere one plain line per report.

  The speed is measured between the first report and now, over at most the last 32 reports, so
  what compiling the first steps took is never in the estimate.
  """

  def __init__(
    self,
    steps: int,
    start: int = 0,
    stream: io.TextIOBase | None = None,
    clock: Callable[[], float] = time.monotonic,
    unit: str = 'step',
  ):
    """Begins at step `start` of `steps`; `stream` is the standard error if not given.

    With another `unit`, such as rows or files, the speed is told in these a second.
    """
    stream = stream or sys.stderr
    self._steps, self._stream, self._clock, self._unit = steps, stream, clock, unit
    self._marks: collections.deque[tuple[int, float]] = collections.deque(maxlen=32)
    self._bar = None
    if jax.process_index() != 0:
      self._stream = None
    elif stream.isatty():
      layout = '{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}'  # tqdm's own estimate counts compiling
      self._bar = tqdm.tqdm(total=steps, initial=start, file=stream, bar_format=layout)

  def report(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Shows that `step` steps are done, with what `metrics` has of loss and gradient_norm."""
    if self._stream is None:
      return
    self._marks.append((step, self._clock()))
    (first, began), (_, now) = self._marks[0], self._marks[-1]
    names = [name for name in ('loss', 'gradient_norm') if name in metrics]
    parts = [f'{name} {float(metrics[name]):.4g}' for name in names]
    if step > first:
      pace = (now - began) / (step - first)
      left = datetime.timedelta(seconds=round(pace * max(self._steps - step, 0)))
      fast = f'{1 / pace:.3g} {self._unit}s/s' if pace else ''
      parts += [f'{pace:.3g} s/step' if self._unit == 'step' else fast, f'ETA {left}']
    if self._bar is None:
      print(
        ', '.join([f'{self._unit} {step}/{self._steps}', *parts]), file=self._stream, flush=True
      )
    else:
      self._bar.set_postfix_str(', '.join(parts), refresh=False)
      self._bar.update(step - self._bar.n)

  def close(self) -> None:
    """Leaves the bar as it stands."""
    if self._bar is not None:
      self._bar.close()


def _strict(value: float) -> float | str:
  return value if math.isfinite(value) else str(value)


def reached_step(workdir: str | os.PathLike[str]) -> int:
  """Returns the last step that `metrics.jsonl` speaks of; 0 without one."""
  return max((step for step, _ in _lines(pathlib.Path(workdir) / 'metrics.jsonl')), default=0)


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the whole lines up to `step`."""
  if path.exists():
    write_bytes(path, b''.join(line for at, line in _lines(path) if at <= step))


def _lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
  """Yields whole lines with their steps; what a crash cut short is not one."""
  for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
    try:
      step = json.loads(line)['step']
    except ValueError:
      continue
    if line.endswith(b'\n'):
      yield step, line


def validation_loss(found: Mapping[str, Any]) -> float | None:
  """Returns the mean of the buckets' losses among validation metrics; None if there is none."""
  losses = [
    float(value)
    for name, value in found.items()
    if name.startswith('validation/') and name.endswith('/loss')
  ]
  return sum(losses) / len(losses) if losses else None
