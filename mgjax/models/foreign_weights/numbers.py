"""Numbers that other programs and people write: finite in float32, and in ASCII digits."""

import re
from typing import Any

import numpy as np

_LARGEST = float(np.finfo(np.float32).max)
_TEXT = re.compile(r'[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?', re.ASCII | re.IGNORECASE)


def is_number(value: Any) -> bool:
  """Says whether JSON holds a number that float32 can have."""
  is_real = isinstance(value, int | float) and not isinstance(value, bool)
  return is_real and abs(value) <= _LARGEST


def number_in(text: str, kind: type = float) -> int | float:
  """Returns the number of a text, as JSON and other languages write it.

  Raises ValueError for all else: Python alone also reads 1_000, digits of other scripts, blanks,
  inf and nan.
  """
  if not _TEXT.fullmatch(text):
    raise ValueError(f'{text!r:.60} is no number; expected ASCII digits, as in 0.8')
  return kind(text)
