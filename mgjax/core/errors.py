"""Errors that a user can act on, each with its exit code."""

from collections.abc import Collection


def printable(text: object, keep: str = '') -> str:
  """Escapes control and invisible characters of a text, except those in `keep`."""
  return ''.join(
    character if character.isprintable() or character in keep else repr(character)[1:-1]
    for character in str(text)
  )


class MgjaxError(Exception):
  """An error that a user can fix: the message says what was given, expected and what to do.

  A message may quote untrusted file names, so characters that are not printable are escaped.
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
  """A complete shard, or its storage, is not readable: skipping a sample would not help."""


class NonFiniteError(MgjaxError):
  """The loss or the gradients are not finite, or their norms are far above their usual values.

  `step` is the number of steps including the bad one, or None if it is not known.
  """

  exit_code = 4

  def __init__(self, message: str, step: int | None = None):
    super().__init__(message)
    self.step = step


class CheckpointError(MgjaxError):
  """No checkpoint in the work directory can be trusted or used."""

  exit_code = 5


def check_one_of(subject: str, value: object, known: Collection[str]) -> None:
  """Raises ConfigError if `value` is not in `known`; `subject` begins the message: 'choice = 3'."""
  if value not in list(known):
    raise ConfigError(f'{subject}; expected one of {", ".join(known)}')


def first_line(error: Exception) -> str:
  """Returns the first line of an error's message, escaped, or the error's type if it is empty."""
  line = (str(error).splitlines() or [type(error).__name__])[0][:200]
  return line if line.isprintable() else ascii(line)


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether an error, of JAX or of another library, reports a lack of memory."""
  message = str(error)
  return isinstance(error, MemoryError) or (
    isinstance(error, RuntimeError)
    and ('RESOURCE_EXHAUSTED' in message or 'out of memory' in message.lower())
  )
