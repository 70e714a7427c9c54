"""Videos in a bucket (`gs://`, `s3://` and what else tensorstore opens), read where they lie.

As in a folder: each object whose name ends as a video's does is an entry, its caption the object of
the same name that ends in .txt, .caption or .cap, or its name. An object is read whole when it is
wanted.
"""

import functools
import pathlib
from typing import NamedTuple

from mgjax.core.errors import DataError
from mgjax.data.ingest.entries import (
  NO_CAPTION,
  TEXTS,
  VIDEO,
  RejectedEntry,
  clean_caption,
  decode_text,
  spoken,
)
from mgjax.data.ingest.inputs import Input, ListedInputs
from mgjax.data.records.storage import ObjectStore


class _Object(NamedTuple):
  name: str
  text: str  # the object that holds its caption, '' for none

  @property
  def uncaptioned(self) -> str:
    return '' if self.text else NO_CAPTION


class ObjectInputs(ListedInputs):
  """The videos below a URL, in the order of their names."""

  def __init__(self, url: str):
    """Lists the objects without reading them.

    Raises:
      ConfigError: no such place can be.
      StorageError: it cannot be reached.
      DataError: no video is there.
    """
    self._store = ObjectStore(url)
    names = self._store.names(below=True)
    visible = sorted(
      name for name in names if not any(part.startswith('.') for part in name.split('/'))
    )
    videos = [name for name in visible if _suffix(name) in VIDEO.suffixes]
    if not videos:
      raise DataError(
        f'{url} has no video among {len(visible)} objects; expected names that end in '
        f'{", ".join(VIDEO.suffixes)}. Tars and parquet files are read from a folder: mount it'
      )
    stems = {_stem(name) for name in videos}
    texts = {_stem(name): name for name in reversed(visible) if _suffix(name) in TEXTS}
    entries: list[_Object | RejectedEntry] = []
    for name in visible:
      if _suffix(name) in VIDEO.suffixes:
        entries.append(_Object(name, texts.get(_stem(name), '')))
      elif _suffix(name) not in TEXTS:
        entries.append(RejectedEntry(name, 'is not a video', False))
      elif _stem(name) not in stems:
        entries.append(RejectedEntry(name, 'is a caption without a video of the same name', False))
    super().__init__(entries, 'bucket')

  def look(self, entry: _Object) -> Input:
    if entry.text:
      caption = self._caption(entry.text)
    else:
      caption = clean_caption(spoken(pathlib.PurePosixPath(entry.name).stem))
    return Input(entry.name, caption, 0, functools.partial(_load, self._store, entry.name))

  def _caption(self, name: str) -> str:
    return clean_caption(decode_text(_load(self._store, name), 'its caption'))


def _load(store: ObjectStore, name: str) -> bytes:
  data = store.read(name)
  if data is None:
    raise DataError('there is no such object any more')
  return data


def _suffix(name: str) -> str:
  return pathlib.PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
  return str(pathlib.PurePosixPath(name).with_suffix(''))
