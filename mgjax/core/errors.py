"""Errors that a user can act on, each with its exit code."""

from collections.abc import Collection
from typing import Any


def printable(text: object, keep: str = '') -> str:
  """Returns text with escapes for what controls a terminal or cannot be seen, but for `keep`."""
  return ''.join(
    each if each.isprintable() or each in keep else repr(each)[1:-1] for each in str(text)
  )


class MgjaxError(Exception):
  """An error that a user can fix: the message says what was given, expected and what to do.

  A message may speak of strangers' files, so its lines are printable whatever those are called.
  """

  exit_code = 1

  def __str__(self) -> str:
    return printable(super().__str__(), keep='\n')


class ConfigError(MgjaxError):
  """A flag, a configuration value or a combination of them is wrong."""

  exit_code = 2


class DataError(MgjaxError):
  """The data cannot be used: missing, empty, damaged or not what the configuration says."""

  exit_code = 3


class StorageError(DataError):
  """A whole shard, or what it lies on, is gone: reading another sample instead would not help."""


class NonFiniteError(MgjaxError):
  """The loss or the gradients stopped being finite, or their norms are far above what they were.

  `step` is the number of steps done with the bad one, or None where no step is known.
  """

  exit_code = 4

  def __init__(self, message: str, step: int | None = None):
    super().__init__(message)
    self.step = step


class CheckpointError(MgjaxError):
  """No checkpoint in the work directory can be trusted or used."""

  exit_code = 5


def check_one_of(told: str, value: Any, known: Collection[str]) -> None:
  """Raises ConfigError, `told` first, as in 'choice = 3', where a value is none of the known."""
  if value not in list(known):
    raise ConfigError(f'{told}; expected one of {", ".join(known)}')


def first_line(error: Exception) -> str:
  """Returns the first line of an error's message, or the error's name if it has none; escaped."""
  line = (str(error).splitlines() or [type(error).__name__])[0][:200]
  return line if line.isprintable() else ascii(line)


def is_out_of_memory(error: BaseException) -> bool:
  """Says whether an error, of JAX or of another library, is about too little memory."""
  message = str(error)
  return isinstance(error, MemoryError) or (
    isinstance(error, RuntimeError)
    and ('RESOURCE_EXHAUSTED' in message or 'out of memory' in message.lower())
  )
