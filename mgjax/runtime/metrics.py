"""Metrics of a run: metrics.jsonl and TensorBoard."""

import contextlib
import logging
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np
import PIL.Image

from mgjax.core.errors import first_line
from mgjax.core.files import append_json_line, read_json_lines, write_bytes

FILE = 'metrics.jsonl'
_OFTEN = 10  # seconds between two flushes of TensorBoard's file

_log = logging.getLogger(__name__)


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
    self._path = pathlib.Path(workdir) / FILE
    self._writes = jax.process_index() == 0
    self._board = None
    if self._writes and resume_step is not None:
      _drop_after(self._path, resume_step)
    if self._writes and tensorboard:
      with self._spared():
        self._board = _Board(self._path.parent / 'tensorboard', resume_step)

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes the metrics of one step: name -> number or scalar array."""
    if not self._writes:
      return
    values = {name: float(value) for name, value in metrics.items()}
    append_json_line(self._path, {'step': int(step)} | {n: _strict(v) for n, v in values.items()})
    with self._spared():
      if self._board is not None:
        self._board.scalars(step, values)

  def image(self, step: int, name: str, image: str | os.PathLike[str] | np.ndarray) -> None:
    """Shows an image file, or a uint8 or [0, 1] float array (h w c), in TensorBoard."""
    if self._board is None:
      return
    if isinstance(image, str | os.PathLike):
      with PIL.Image.open(image) as file:
        image = np.asarray(file.convert('RGB'))
    with self._spared():
      self._board.image(step, name, np.asarray(image))

  def flush(self) -> None:
    """Makes TensorBoard see what was written."""
    with self._spared():
      if self._board is not None:
        self._board.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    with self._spared():
      if self._board is not None:
        self._board.close()

  @contextlib.contextmanager
  def _spared(self) -> Iterator[None]:
    """Goes on without TensorBoard where its file cannot be written: all is in metrics.jsonl."""
    try:
      yield
    except OSError as error:
      board, self._board = self._board, None
      if board is not None:
        with contextlib.suppress(OSError):
          board.close()
      place = os.fspath(self._path.parent)
      _log.warning('TensorBoard gets nothing more in %r: %s', place, first_line(error))

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


class _Board:
  """A file of TensorBoard, written by whoever has something to say.

  tensorboardX's own writer has a thread, which a full disk ends: then whoever gives it an event
  waits for ever, and so does the end of the process.
  """

  def __init__(self, folder: pathlib.Path, resume_step: int | None):
    from tensorboardX import event_file_writer, summary  # slow to import
    from tensorboardX.proto import event_pb2

    self._summary, self._protocol = summary, event_pb2
    folder.mkdir(parents=True, exist_ok=True)
    self._file = event_file_writer.EventsWriter(os.fspath(folder / 'events'))
    self._flushed = time.monotonic()
    if resume_step is not None:  # what is there of later steps will be written again
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(resume_step + 1, session_log=start)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._write(step, summary=self._summary.scalar(name, value))

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._write(step, summary=self._summary.image(name, image, dataformats='HWC'))

  def flush(self) -> None:
    self._file.flush()
    self._flushed = time.monotonic()

  def close(self) -> None:
    self._file.close()

  def _write(self, step: int, **what: Any) -> None:
    self._file.write_event(self._protocol.Event(wall_time=time.time(), step=int(step), **what))
    if time.monotonic() - self._flushed > _OFTEN:
      self.flush()


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


def _strict(value: float) -> float | str:
  return value if math.isfinite(value) else str(value)


def reached_step(workdir: str | os.PathLike[str]) -> int:
  """Returns the step of the last line of `metrics.jsonl`, whose steps ascend; 0 without one."""
  return next(reversed([step for step, _ in _lines(pathlib.Path(workdir) / FILE)]), 0)


def read_metrics(workdir: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, float]]]:
  """Yields step and metrics of every line; lines that are damaged are left out, aloud."""

  def parse(row: Any) -> tuple[int, dict[str, float]]:
    values = {name: float(value) for name, value in row.items() if name != 'step'}
    return _step_of(row), values

  return (found for found, _ in read_json_lines(pathlib.Path(workdir) / FILE, parse))


def _step_of(row: Any) -> int:
  if type(row['step']) is not int or not 0 <= row['step'] < 2**53:
    raise ValueError('the step is no number of steps')
  return row['step']


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the whole lines up to `step`."""
  if path.exists():
    write_bytes(path, b''.join(line for at, line in _lines(path) if at <= step))


def _lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
  """Yields whole lines with their steps; what a crash cut short is not one."""
  return ((step, line) for step, line in read_json_lines(path, _step_of) if line[-1:] == b'\n')


def validation_loss(found: Mapping[str, Any], of: str = 'validation') -> float | None:
  """Returns the mean of the buckets' losses among validation metrics; None if there is none.

  Args:
    found: metrics of one step.
    of: 'validation', by averaged parameters, or 'validation_raw', by those themselves.
  """
  losses = [
    float(value)
    for name, value in found.items()
    if name.startswith(f'{of}/') and name.endswith('/loss')
  ]
  return sum(losses) / len(losses) if losses else None
