"""Buckets of several sources of data: each is filled from the one that it names."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from mgjax.data.buckets import Shape
from mgjax.data.settings import AudioShape, DataSettings
from mgjax.data.source import Source

Report = str | os.PathLike[str] | None
_Shape = TypeVar('_Shape', Shape, AudioShape)
_Made = TypeVar('_Made', bound=Source)


def from_each_source(
  data: DataSettings,
  shapes: Mapping[str, _Shape],
  make: Callable[[DataSettings, dict[str, _Shape], Report], Mapping[str, _Made]],
  report: Report = None,
) -> dict[str, _Made]:
  """Returns the samples of all buckets, in their order.

  Args:
    make: (data of one source, shapes of its buckets, report) -> bucket -> samples; buckets without
      any are left out. Clips are assigned to buckets of their own source alone.
    report: where rejected clips are listed: of the source 'edits' in `rejected_edits.jsonl` beside
      `rejected.jsonl`.

  Raises:
    ConfigError: a bucket names a source that there is not.
  """
  of = {name: data.of(name) for name in dict.fromkeys(shape.source for shape in shapes.values())}
  made = {}
  for name, settings in of.items():
    mine = {
      bucket: dataclasses.replace(shape, source='')
      for bucket, shape in shapes.items()
      if shape.source == name
    }
    made |= make(settings, mine, _report_of(report, name))
  return {bucket: made[bucket] for bucket in shapes if bucket in made}


def _report_of(report: Report, source: str) -> Report:
  if report is None or not source:
    return report
  path = pathlib.Path(report)
  return path.with_name(f'{path.stem}_{source}{path.suffix}')
