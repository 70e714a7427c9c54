"""A family of hostile inputs: whole files, how they are damaged, and the reader that must cope."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What became of an input; the last five must never happen.
OUTCOMES = ('read', 'refused', 'traceback', 'crash', 'hang', 'memory', 'silent')
FORBIDDEN = OUTCOMES[2:]


class Silent(AssertionError):
  """A reader gave an answer that cannot be right, and said nothing."""


class Family(NamedTuple):
  """A kind of file and its reader.

  Attributes:
    name: short, for the table.
    seeds: writes whole files or folders into a new folder and returns them; each is readable.
    mutate: `(source, rng, target)`, writes a damaged copy of a seed; the same for the same `rng`.
    read: reads through a public function, and checks the answer: `Silent` if it is nonsense.
    seconds: the longest that `read` may take.
    memory: bytes that `read` may need beside three times the size of the input.
  """

  name: str
  seeds: Callable[[Path], list[Path]]
  mutate: Callable[[Path, np.random.Generator, Path], None]
  read: Callable[[Path], Any]
  seconds: float = 20.0
  memory: int = 400 << 20
