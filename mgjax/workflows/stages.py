"""Stages of a command, one after another: which one it is, what each took, what is left in all."""

import logging
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mgjax.core.files import write_json
from mgjax.runtime.progress import Stage, about, in_stage
from mgjax.runtime.report.write import SECONDS, read_seconds

ENCODE = 'encode'
# Seconds that the small models took on two cores for a pixel of a clip, or a second of sound. How
# they compare says how long a stage that is to come may take, from how long earlier ones took.
_PIXEL = {'autoencoder': 26e-7, ENCODE: 2.2e-7, 'video': 5e-7}
_SOUND = {'codec': 0.08, ENCODE: 0.006, 'audio': 0.003}

_log = logging.getLogger(__name__)


class Stages:
  """Runs named stages in order and remembers what each one took, over restarts too."""

  def __init__(self, workdir: pathlib.Path, usual: Mapping[str, float | None]):
    """Begins before the first one.

    Args:
      workdir: remembers in seconds.json.
      usual: the stages in order, with what `usual_seconds` says of each.
    """
    self._path, self._usual = workdir / SECONDS, dict(usual)
    self.seconds = read_seconds(workdir)

  def title(self, name: str) -> str:
    """Returns 'stage 2 of 4: latents'."""
    return f'stage {self._number(name)} of {len(self._usual)}: {name}'

  def run(self, name: str, work: Callable[[], Any], note: str = '') -> Any:
    """Runs one stage, named with a note; what it took is added to earlier sessions of it."""
    began = time.monotonic()

    def left(seconds: float | None) -> float | None:
      return self._left(name, time.monotonic() - began, seconds)

    overall = left(None)
    ahead = '' if overall is None else f', all in {about(overall)}'
    _log.info('%s', f'{self.title(name)}{note}{ahead}')
    try:
      with in_stage(Stage(self._number(name), len(self._usual), left)):
        return work()
    finally:
      spent = time.monotonic() - began
      self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 1)
      if jax.process_index() == 0:
        write_json(self._path, self.seconds)

  def _number(self, name: str) -> int:
    return list(self._usual).index(name) + 1

  def _left(self, name: str, spent: float, seconds: float | None) -> float | None:
    """Returns what is left in all; None where nothing tells.

    Args:
      name: of the stage that runs.
      spent: what it took in this session.
      seconds: that it will still take, if that is known.
    """
    names, number = list(self._usual), self._number(name)
    spent += self.seconds.get(name, 0.0)
    took = {earlier: self.seconds.get(earlier) for earlier in names[: number - 1]}
    took[name] = None if seconds is None else spent + seconds
    known = [(took[each], self._usual[each]) for each in took if took[each] and self._usual[each]]
    later = [self._usual[each] for each in names[number:]]
    if seconds is None:
      later.append(self._usual[name])
    if None in later:
      return None
    if not any(later):
      return seconds
    if not known:
      return None
    pace = sum(each for each, _ in known) / sum(usual for _, usual in known)
    left = sum(later) * pace
    return left + seconds if seconds is not None else max(left - spent, 0.0)


def usual_seconds(config: ConfigDict, what: str) -> float | None:
  """Returns what a training or an encoding takes on two cores, to compare with others.

  Args:
    config: with `buckets`.
    what: its component, or ENCODE.

  Returns:
    Seconds; None where nothing like it was measured.
  """
  buckets = [bucket.to_dict() for bucket in config.buckets.values()]
  costs = _SOUND if any('seconds' in bucket for bucket in buckets) else _PIXEL
  if what not in costs:
    return None
  sizes = [_size(bucket) for bucket in buckets]
  if what == ENCODE:
    return costs[what] * sum(sizes) * (config.encode.train + config.encode.validation)
  weights = [bucket.get('weight', 1) for bucket in buckets]
  batches = [
    weight * bucket['batch_size'] * size
    for weight, bucket, size in zip(weights, buckets, sizes, strict=True)
  ]
  return costs[what] * config.train.steps * sum(batches) / sum(weights)


def _size(bucket: Mapping[str, Any]) -> float:
  if 'seconds' in bucket:
    return bucket['seconds']
  return bucket.get('frames', 1) * bucket.get('height', 1) * bucket.get('width', 1)
