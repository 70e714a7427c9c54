"""Metric writers (metrics.jsonl, TensorBoard, your own), and reading metrics back."""

import contextlib
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import PIL.Image

from mgjax.core.errors import first_line
from mgjax.core.files import append_json_line, read_json_lines, write_bytes

FILE = 'metrics.jsonl'
_OFTEN = 10  # seconds between two flushes of TensorBoard's file

_log = logging.getLogger(__name__)


class Writer:
  """Receives the metrics of a run, as a file or a tracker; see `MetricWriters`.

  `optional` says whether the run goes on without it once it raises OSError.
  """

  optional = True

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Takes the metrics of one step."""

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Takes a picture, uint8 (h w 3)."""

  def close(self) -> None:
    """Writes out what is held back, and ends."""


def default_writers(
  workdir: str | os.PathLike[str], resume_step: int | None = None
) -> list[Writer]:
  """Opens `metrics.jsonl` and the TensorBoard files of a run.

  What an earlier process wrote about steps after `resume_step` (0 at the start of a run) is
  dropped: it will be written again. None keeps all.
  """
  folder = pathlib.Path(workdir)
  try:
    return [JsonLines(folder, resume_step), TensorBoard(folder / 'tensorboard', resume_step)]
  except OSError as error:
    _log.warning('TensorBoard gets nothing in %r: %s', os.fspath(folder), first_line(error))
    return [JsonLines(folder)]


class MetricWriters:
  """Gives metrics and pictures to every writer of a list, on the first of several hosts alone."""

  def __init__(self, writers: Sequence[Writer]):
    self._writers = list(writers) if jax.process_index() == 0 else []

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes the metrics of one step: name -> number or scalar array."""
    values = {name: float(value) for name, value in metrics.items()}
    self._each(lambda writer: writer.write(int(step), values))

  def image(self, step: int, name: str, path: str | os.PathLike[str]) -> None:
    """Shows the picture of a file."""
    if self._writers:
      with PIL.Image.open(path) as file:
        picture = np.asarray(file.convert('RGB'))
      self._each(lambda writer: writer.image(int(step), name, picture))

  def close(self) -> None:
    """Closes all writers."""
    self._each(lambda writer: writer.close())

  def _each(self, call: Callable[[Writer], None]) -> None:
    for writer in [*self._writers]:
      try:
        call(writer)
      except OSError as error:
        if not writer.optional:
          raise
        self._writers.remove(writer)  # all is in metrics.jsonl
        with contextlib.suppress(OSError):
          writer.close()
        _log.warning('%s gets nothing more: %s', type(writer).__name__, first_line(error))


class JsonLines(Writer):
  """Writes `metrics.jsonl`, a line a step: `{"step": 10, "loss": 0.5, ...}`.

  It is strict JSON: what is not finite becomes the string 'nan', 'inf' or '-inf'.
  """

  optional = False

  def __init__(self, workdir: str | os.PathLike[str], resume_step: int | None = None):
    self._path = pathlib.Path(workdir) / FILE
    if resume_step is not None:
      _drop_after(self._path, resume_step)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Appends a line."""
    append_json_line(self._path, {'step': step} | {n: _strict(v) for n, v in metrics.items()})


class TensorBoard(Writer):
  """Writes an event file of TensorBoard, in the thread of its caller.

  tensorboardX's own writer has a thread, which a full disk ends: then the next event waits for
  ever, and so does the end of the process.
  """

  def __init__(self, folder: pathlib.Path, resume_step: int | None = None):
    from tensorboardX import event_file_writer, summary  # slow to import
    from tensorboardX.proto import event_pb2

    self._summary, self._protocol = summary, event_pb2
    folder.mkdir(parents=True, exist_ok=True)
    self._file = event_file_writer.EventsWriter(os.fspath(folder / 'events'))
    self._flushed = time.monotonic()
    if resume_step is not None:  # what is there of later steps will be written again
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._event(resume_step + 1, session_log=start)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes scalars."""
    for name, value in metrics.items():
      self._event(step, summary=self._summary.scalar(name, value))

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a picture."""
    self._event(step, summary=self._summary.image(name, image, dataformats='HWC'))

  def close(self) -> None:
    """Writes out what is held back."""
    self._file.close()

  def _event(self, step: int, **what: Any) -> None:
    self._file.write_event(self._protocol.Event(wall_time=time.time(), step=step, **what))
    if time.monotonic() - self._flushed > _OFTEN:
      self._file.flush()
      self._flushed = time.monotonic()


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
  """Yields step and metrics of every line; damaged lines are left out, with a warning."""

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

  `of` is 'validation', by averaged parameters, or 'validation_raw', by those themselves.
  """
  losses = [
    float(value)
    for name, value in found.items()
    if name.startswith(f'{of}/') and name.endswith('/loss')
  ]
  return sum(losses) / len(losses) if losses else None
