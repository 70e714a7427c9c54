"""Resumable on-disk cache of text embeddings, keyed by the text.

A store is a directory or URL of parts, each of them records of embeddings of texts that no earlier
part had. A part is named by its texts: a process that was killed resumes it when the same texts are
asked for again, and incomplete parts are never read. A store belongs to one encoder.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.records.reader import Records
from mgjax.data.records.rows import text_key
from mgjax.data.records.storage import inside, open_storage
from mgjax.data.records.writer import RecordWriter

# texts -> arrays of each by name, such as {'states': (m e)}
Embed = Callable[[Sequence[str]], Sequence[Mapping[str, np.ndarray]]]

_ENCODER = 'encoder.json'
_KEY, _TEXT = 'key', 'text'


class Embeddings:
  """The embeddings in a store, by text; parts that are finished later need a new instance.

  Looking up costs a search among 8 bytes a text and one row that is read.
  """

  def __init__(self, directory: str):
    """Opens a store, which may be empty."""
    self._directory = directory
    self._parts = [Records(inside(directory, name)) for name in _finished(directory)]
    keys = [part.column(_KEY) for part in self._parts] or [np.zeros(0, np.int64)]
    places = [
      np.stack([np.full(len(part), number), np.arange(len(part))])
      for number, part in enumerate(self._parts)
    ] or [np.zeros((2, 0), np.int64)]
    self._keys, self._places = np.concatenate(keys), np.concatenate(places, axis=1)
    order = np.argsort(self._keys, kind='stable')
    self._keys, self._places = self._keys[order], self._places[:, order]

  def __len__(self) -> int:
    return len(self._keys)

  def find(self, text: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a text, or None.

    Raises:
      StorageError: a shard is gone.
      DataError: the row is damaged.
    """
    key = _key(text)
    for place in range(*np.searchsorted(self._keys, [key, key + 1]).tolist()):
      part, row = self._places[:, place].tolist()
      found = self._parts[part][row]
      if found.pop(_TEXT) == text:
        del found[_KEY]
        return found
    return None

  def missing(self, texts: Iterable[str]) -> list[str]:
    """Returns those that are not there, each once, in order.

    Texts are told apart by 63 bits: among a hundred million, two have the same in fewer than one of
    a thousand stores.
    """
    texts = list(dict.fromkeys(texts))
    keys = np.array([_key(text) for text in texts], np.int64)
    known = np.isin(keys, self._keys)
    return list(itertools.compress(texts, ~known))


def encoder_of(directory: str) -> str | None:
  """Returns the name of the encoder of a store's embeddings; None if nobody began to fill it."""
  found = open_storage(directory).read(_ENCODER)
  return None if found is None else found.decode()


def embed(
  directory: str,
  texts: Iterable[str],
  embed: Embed,
  *,
  encoder: str,
  batch_size: int = 64,
  rows_per_shard: int = 4096,
  process: int = 0,
  processes: int = 1,
  progress: Callable[[int, int], None] | None = None,
) -> bool:
  """Adds the texts that a store lacks; resumes after being killed.

  Args:
    directory: of the store, a path or URL.
    texts: of any number, repeated or not; every process is given the same.
    embed: computes the arrays of a batch of texts.
    encoder: names the encoder, such as a hash of its weights.
    batch_size: texts at once.
    rows_per_shard: at most; what is killed loses no more than a shard of each process.
    process: of the processes that share the work, this one.
    processes: how many they are.
    progress: called with texts done and texts to do by this process.

  Returns:
    Whether the store now has all; otherwise other processes are still at work.

  Raises:
    ConfigError: the store has embeddings of another encoder.
    DataError: `embed` gave another number of results.
  """
  storage = open_storage(directory)
  storage.create(_ENCODER, encoder.encode())
  if (known := encoder_of(directory)) != encoder:
    raise ConfigError(
      f'{directory} has embeddings of the encoder {known}, not of {encoder}; name another directory'
    )
  lacking = sorted(Embeddings(directory).missing(texts))
  if not lacking:
    return True
  rows_per_shard = min(rows_per_shard, -(-len(lacking) // processes))
  name = _part_name(lacking, rows_per_shard)
  writer = RecordWriter(
    inside(directory, name),
    rows=len(lacking),
    rows_per_shard=rows_per_shard,
    meta={'encoder': encoder},
    columns=[_KEY],
  )
  mine = writer.missing_shards(process, processes)
  total, done = sum(len(writer.shard_rows(shard)) for shard in mine), 0

  def rows(indices: range):
    nonlocal done
    for first in range(indices.start, indices.stop, batch_size):
      batch = lacking[first : min(first + batch_size, indices.stop)]
      found = embed(batch)
      if len(found) != len(batch):
        raise DataError(f'{len(found)} embeddings were made of {len(batch)} texts')
      for text, arrays in zip(batch, found, strict=True):
        yield {_TEXT: text, _KEY: _key(text), **arrays}
      done += len(batch)
      if progress is not None:
        progress(done, total)

  for shard in mine:
    writer.write_shard(shard, rows(writer.shard_rows(shard)))
  if writer.missing_shards():
    return False
  writer.finish()
  storage.create(f'{name}.done', b'')
  return True


def _finished(directory: str) -> list[str]:
  names = open_storage(directory).names()
  return sorted(name.removesuffix('.done') for name in names if name.endswith('.done'))


def _part_name(texts: Sequence[str], rows_per_shard: int) -> str:
  digest = hashlib.sha256()
  for text in texts:
    digest.update(text.encode('utf-8', 'surrogatepass') + b'\0')
  return f'{digest.hexdigest()[:16]}_{rows_per_shard}'


def _key(text: str) -> int:
  return int(text_key(text)[:16], 16) >> 1
