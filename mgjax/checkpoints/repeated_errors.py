"""Errors that reach their caller as an exception, and are logged ten times over as well."""

import logging
import traceback

_MARKS = ('orbax', 'OCDBT', 'zarr')  # of paths, and of messages of its futures


def silence() -> None:
  """Drops the log records with tracebacks that orbax makes, or asyncio of what it began.

  What fails there, of a full disk say, we hear of as an exception, and tell in a sentence.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_of_others)


def _is_of_others(record: logging.LogRecord) -> bool:
  if not record.exc_info or not record.exc_info[1]:
    return True
  places = [frame.filename for frame in traceback.extract_tb(record.exc_info[2])]
  places += [record.pathname, str(record.exc_info[1])]
  return not any(mark in place for mark in _MARKS for place in places)
