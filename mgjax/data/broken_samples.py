"""Replaces, counts and lists broken samples; a lost shard stops the run.

One bad file in a million neither stops a run nor passes unseen. Which sample takes the place of a
broken one depends on its index alone, so the batches are the same on every host, with any number of
threads or workers, and after every restart.
"""

import logging
import operator
import os
import pathlib
import threading
from typing import SupportsIndex

import numpy as np

from mgjax.core.errors import DataError, StorageError
from mgjax.core.files import append_json_line
from mgjax.core.typing import Sample
from mgjax.data.batch_order import REPLACED
from mgjax.data.clips import chance
from mgjax.data.source import Source

_IN_A_ROW = 32  # samples that fail one after another: more look like a lost disk than bad files
_LOCK = threading.Lock()  # of what is known; outside the sources, which are pickled
_told: set[str] = set()  # reasons that this process has logged, whichever stage met them first
_log = logging.getLogger(__name__)


class Replacing:
  """A source whose broken samples are replaced by others of it, by their index alone.

  Every sample gets the field 'replaced', 0 or 1. A reason, which names the file, goes to the list
  once a source, a JSON line {"bucket", "sample", "reason"}, and to the log once a process. A lost
  shard raises StorageError, a long row of broken samples DataError.
  """

  def __init__(
    self, source: Source, name: str = '', quarantine: str | os.PathLike[str] | None = None
  ):
    """Wraps a source, whose DataErrors mean broken samples; these go to `quarantine`."""
    self.source, self._name = source, name
    self._quarantine = quarantine and pathlib.Path(quarantine)
    self._known: set[str] = set()

  @property
  def fingerprint(self) -> object:
    return getattr(self.source, 'fingerprint', None)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: SupportsIndex) -> Sample:
    index = operator.index(index)
    tried = index
    for attempt in range(1, _IN_A_ROW + 1):
      try:
        sample = self.source[tried]
        return {**sample, REPLACED: np.int32(attempt > 1)}
      except StorageError:
        raise
      except DataError as error:
        self._report(tried, error)
        reason = error
      tried = int(chance(index, attempt) * len(self))
    raise DataError(
      f'sample {index}: {_IN_A_ROW} samples in a row could not be read, the last because {reason}; '
      'is their disk still there?'
    )

  def _report(self, index: int, error: DataError) -> None:
    with _LOCK:
      if str(error) in self._known:
        return
      self._known.add(str(error))
      if self._quarantine is not None:
        line = {'bucket': self._name, 'sample': index, 'reason': str(error)}
        append_json_line(self._quarantine, line)
      if str(error) in _told:
        return
      _told.add(str(error))
    _log.warning('replaced a sample, since %s', error)
