"""Captions of a shard in a file of their own, to be read without what they describe.

It lies beside the shard: a line of JSON a row, compressed, called `<shard>.captions-<start of its
own SHA-256>.jsonl.gz`. The name says whose captions they are and whether they are whole, so that
records of earlier versions, which have none, can get them later.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mgjax.core.errors import DataError
from mgjax.core.files import parse_json
from mgjax.data.records.storage import Storage

FIELDS = ('caption', 'fps')  # what a prompt is made of
PATTERN = r'captions-[0-9a-f]{12}\.jsonl\.gz'  # after the name of the shard


def about(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what is kept of a row; arrays of one number are numbers."""
  kept = {name: row[name] for name in FIELDS if name in row}
  return {
    name: value.tolist() if hasattr(value, 'tolist') else value for name, value in kept.items()
  }


def write(storage: Storage, shard: str, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes the captions of a shard, called `shard`, unless some of its rows have none."""
  if not rows or not all(isinstance(row.get('caption'), str) for row in rows):
    return
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  data = gzip.compress(lines.encode(), mtime=0)  # the same rows give the same bytes
  storage.replace(f'{_stem(shard)}.captions-{_digest(data)}.jsonl.gz', data)


def names(listed: Iterable[str]) -> dict[str, str]:
  """Returns the files of captions among the names, by what their shards are called."""
  return {f'{_stem(name)}.arrayrecord': name for name in listed if '.captions-' in name}


def read(storage: Storage, name: str, rows: int) -> list[dict[str, Any]] | None:
  """Returns what `about` kept of each row, or None if the file is gone or damaged."""
  data = storage.read(name)
  if data is None or f'.captions-{_digest(data)}.' not in name:
    return None
  try:
    lines = gzip.decompress(data).splitlines()
    found = [parse_json(line, name, error=DataError, mend='') for line in lines]
  except (DataError, OSError, EOFError, zlib.error):
    return None
  whole = all(isinstance(row.get('caption'), str) for row in found)
  return found if whole and len(found) == rows else None


def _stem(name: str) -> str:
  return name.partition('.')[0]


def _digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:12]
