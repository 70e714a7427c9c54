"""Scores of clips as columns of numpy arrays, whatever they are read from."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Table = Any  # of pyarrow, an optional package

Columns = Mapping[str, np.ndarray]


def as_columns(table: Table, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Columns of a table, a `pyarrow.Table` or arrays or lists by name: those of `names` that it has.

  Numbers are float64 (n), nan where there is none; vectors float32 (n d), rows of nan where there
  is none; texts and bytes are objects.
  """
  available = table.column_names if hasattr(table, 'column_names') else table
  return {name: _as_array(table[name]) for name in names if name in available}


def known(values: np.ndarray) -> np.ndarray:
  """Returns which rows of a column have a value, bool (n)."""
  if values.dtype == object:
    return np.array([value is not None and value != '' and value != b'' for value in values], bool)
  return np.isfinite(values).all(tuple(range(1, values.ndim)))


def draws(names: np.ndarray, seed: int, what: str) -> np.ndarray:
  """Returns a number in [0, 1) for each name; it depends on the name, `seed` and `what` alone."""
  salt = f'{seed} {what} '
  digests = (hashlib.blake2b(f'{salt}{name}'.encode(), digest_size=7).digest() for name in names)
  return np.array([int.from_bytes(code) / 2**56 for code in digests], np.float64)


def dense(column: Any) -> np.ndarray | None:
  """Returns a pyarrow column of lists of numbers as float32 (n d), with rows of nan for nulls.

  Returns None if the lists have several lengths, or there are none.
  """
  import pyarrow.compute

  lengths = pyarrow.compute.list_value_length(column)
  widths = lengths.drop_null().unique().to_pylist()
  if len(widths) != 1 or not widths[0]:
    return None
  values = pyarrow.compute.list_flatten(column)
  if not _is_plain(values) or values.null_count:
    return None
  vectors = np.full((len(column), widths[0]), np.nan, np.float32)
  have = lengths.is_valid().to_numpy(zero_copy_only=False)
  vectors[have] = values.to_numpy(zero_copy_only=False).reshape(-1, widths[0])
  return vectors


def _as_array(values: Any) -> np.ndarray:
  if hasattr(values, 'to_numpy') and not isinstance(values, np.ndarray):
    if 'list' in str(values.type) and (rows := dense(values)) is not None:
      return rows
    values = values.to_numpy(zero_copy_only=False) if _is_plain(values) else values.to_pylist()
  if isinstance(values, np.ndarray) and values.dtype != object:
    numeric = np.float32 if values.ndim > 1 else np.float64
    return values.astype(numeric if values.dtype.kind in 'biuf' else object)
  first = next((value for value in values if value is not None), None)
  if isinstance(first, list | tuple | np.ndarray):
    empty = np.full(len(first), np.nan, np.float32)
    return np.array([empty if value is None else value for value in values], np.float32)
  if isinstance(first, int | float | np.number):
    return np.array([np.nan if value is None else value for value in values], np.float64)
  objects = np.empty(len(values), object)
  objects[:] = list(values)
  return objects


def _is_plain(column: Any) -> bool:
  kind = str(column.type)
  return kind.startswith(('int', 'uint', 'float', 'double', 'halffloat', 'bool'))
