"""Reads the conditions that a person gives beside prompts: arrays, words, or files of pictures."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import UInt8
from mgjax.media.video import read_clip

Fields = Mapping[str, tuple[int, ...]]  # what a model reads beside text -> its shape


def spread_conditions(
  conditions: Mapping[str, Any], fields: Fields, count: int
) -> list[dict[str, Any]]:
  """Returns the conditions of each of `count` samples, unread.

  Args:
    conditions: by name, one for all samples, or a list or array with one more axis of one each; a
      None is a condition that is not given.
    fields: from `flow_models.conditions.condition_fields`.
    count: how many samples there are.

  Raises:
    ConfigError: a condition that the model does not read, or not as many as there are samples.
    DataError: a file is not there.
  """
  samples: list[dict[str, Any]] = [{} for _ in range(count)]
  for name, given in conditions.items():
    if given is None:
      continue
    if name not in fields:
      known = ', '.join(sorted(fields)) or 'none beside the prompt'
      raise ConfigError(f'the model reads no condition {name!r}; it reads {known}')
    each = _one_each(given, fields[name], name)
    if each is None:
      each = [given] * count
    if len(each) != count:
      raise ConfigError(
        f'{len(each)} values of the condition {name!r} for {count} samples; give one for all of '
        'them, or a list of one each'
      )
    for sample, value in zip(samples, each, strict=True):
      if _is_file(value, fields[name]) and not os.path.exists(value):
        raise DataError(f'condition {name!r}: there is no file {os.fspath(value)!r}')
      if value is not None:
        sample[name] = value
  return samples


def read_condition(given: Any, shape: tuple[int, ...], name: str, fps: float) -> Any:
  """Returns a condition of one sample as conditionings read it.

  Args:
    given: a file or an array of pictures; an array; or anything else where `shape` is ().
    shape: of the field.
    name: of the field.
    fps: frames a second at which a video is read; 0 for a picture.

  Raises:
    ConfigError: an array is of another shape.
    DataError: the file cannot be read.
  """
  if not shape:
    return given
  if _is_file(given, shape):
    frames, height, width, _ = shape
    return read_clip(given, frames=frames, size=(height, width), fps=fps or 1.0)
  array = np.asarray(given)
  pictures = _are_pictures(shape)
  if pictures and array.shape == shape[1:]:
    array = array[None]
  if array.shape != shape or (pictures and array.dtype != np.uint8):
    wanted = 'uint8 (t h w 3)' if pictures else 'an array'
    raise ConfigError(
      f'the condition {name!r} is {array.dtype} of shape {array.shape}; expected {wanted} of shape '
      f'{shape}' + (', or a file, which is brought to it' if pictures else '')
    )
  return array


def checked_video(video: Any) -> UInt8[np.ndarray, 'b t h w 3']:
  """Returns one video or several as an array with an axis for them.

  Raises:
    DataError: it is something else.
  """
  array = np.asarray(video)
  array = array[None] if array.ndim == 4 else array
  if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] != 3 or not array.size:
    raise DataError(
      f'a video of {array.dtype} {np.shape(video)}; expected uint8 (t h w 3), or (b t h w 3)'
    )
  return array


def describe_conditions(conditions: Mapping[str, Any]) -> dict[str, Any]:
  """Returns conditions as plain JSON values: of arrays their shape and a digest."""

  def describe(given: Any) -> Any:
    if isinstance(given, list | tuple):
      return [describe(each) for each in given]
    if isinstance(given, os.PathLike):
      return os.fspath(given)
    if hasattr(given, 'shape'):
      array = np.ascontiguousarray(given)
      digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
      return {'shape': list(array.shape), 'dtype': str(array.dtype), 'digest': digest}
    return given

  return {name: describe(given) for name, given in conditions.items() if given is not None}


def _are_pictures(shape: tuple[int, ...]) -> bool:
  return len(shape) == 4 and shape[-1] == 3


def _is_file(given: Any, shape: tuple[int, ...]) -> bool:
  return isinstance(given, str | os.PathLike) and _are_pictures(shape)


def _one_each(given: Any, shape: tuple[int, ...], name: str) -> list[Any] | None:
  """Returns the values of the samples; None if there is one for all."""
  if isinstance(given, list | tuple):
    return list(given)
  if not shape or not hasattr(given, 'ndim'):
    return None
  still = _are_pictures(shape) and shape[0] == 1  # a picture may do without its axis of time
  if given.ndim == len(shape) - still or given.shape == shape:
    return None
  if given.ndim in (len(shape), len(shape) + 1):
    return list(given)
  raise ConfigError(
    f'the condition {name!r} has {given.ndim} axes; expected {len(shape)}, or one more for one each'
  )
