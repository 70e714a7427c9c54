"""Metrics of a run in `metrics.jsonl`: written, read back, and their means over steps."""

import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.files import append_json_line, read_json_lines, write_bytes

_FILE = 'metrics.jsonl'


class JsonLines:
  """Writes `metrics.jsonl`, a line a step: `{"step": 10, "loss": 0.5, ...}`.

  It is strict JSON: what is not finite becomes the string 'nan', 'inf' or '-inf'.
  """

  def __init__(self, workdir: str | os.PathLike[str], resume_step: int | None = None):
    self._path = pathlib.Path(workdir) / _FILE
    if resume_step is not None and self._path.exists():
      # Complete lines up to this step stay.
      content = b''.join(line for at, line in _lines(self._path) if at <= resume_step)
      write_bytes(self._path, content)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Appends a line."""
    strict = {n: v if math.isfinite(v) else str(v) for n, v in metrics.items()}
    append_json_line(self._path, {'step': step} | strict)


class Means:
  """Means of metrics over steps, of which not every one need have the same.

  A metric of two numbers is a sum and its weight, such as the losses of the rows of some kind and
  their number; its mean is that over all rows of all steps.
  """

  def __init__(self):
    self._sums: dict[str, np.ndarray] = {}

  def add(self, metrics: Fields) -> None:
    """Adds the metrics of one step."""
    for name, value in metrics.items():
      value = np.asarray(value, np.float64)
      pair = value if value.shape == (2,) else np.array([value, 1.0])
      self._sums[name] = self._sums.get(name, 0.0) + pair

  def means(self) -> dict[str, float]:
    """Returns name -> mean, of those that have any weight."""
    return {name: float(total / weight) for name, (total, weight) in self._sums.items() if weight}


def reached_step(workdir: str | os.PathLike[str]) -> int:
  """Returns the step of the last line of `metrics.jsonl`, whose steps ascend; 0 without one."""
  return next(reversed([step for step, _ in _lines(pathlib.Path(workdir) / _FILE)]), 0)


def read_metrics(workdir: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, float]]]:
  """Yields step and metrics of every line; skips damaged lines with a warning."""

  def parse(row: Any) -> tuple[int, dict[str, float]]:
    values = {name: float(value) for name, value in row.items() if name != 'step'}
    return _step_of(row), values

  return (row for row, _ in read_json_lines(pathlib.Path(workdir) / _FILE, parse))


def _step_of(row: Any) -> int:
  if type(row['step']) is not int or not 0 <= row['step'] < 2**53:
    raise ValueError('the step is no number of steps')
  return row['step']


def _lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
  """Yields whole lines with their steps; what a crash cut short is not one."""
  return ((step, line) for step, line in read_json_lines(path, _step_of) if line[-1:] == b'\n')


def validation_loss(metrics: Fields, of: str = 'validation') -> float | None:
  """Returns the mean of the buckets' losses among validation metrics; None if there is none.

  `of` is 'validation', by averaged parameters, or 'validation_raw', by those themselves.
  """
  losses = [
    float(value)
    for name, value in metrics.items()
    if name.startswith(f'{of}/') and name.endswith('/loss')
  ]
  return sum(losses) / len(losses) if losses else None
