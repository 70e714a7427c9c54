"""Captions of a shard in a separate file, which can be read without the shard's arrays.

The file lies beside the shard, as compressed JSON lines, one a row. Its name is
`<shard>.captions-<start of its own SHA-256>.jsonl.gz`, which identifies the shard and detects
damage. So records of earlier versions, which have no such file, can get one later.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import DataError
from mgjax.core.files import parse_json
from mgjax.data.records.storage import Storage

FIELDS = ('caption', 'fps')  # the fields from which prompts are made
PATTERN = r'captions-[0-9a-f]{12}\.jsonl\.gz'  # after the name of the shard


def about(row: Fields) -> JSON:
  """Returns the `FIELDS` of a row; arrays of one number are converted to numbers."""
  fields = {name: row[name] for name in FIELDS if name in row}
  return {
    name: value.tolist() if hasattr(value, 'tolist') else value for name, value in fields.items()
  }


def write(storage: Storage, shard: str, rows: Sequence[Fields]) -> None:
  """Writes the captions of the shard named `shard`, unless some of its rows have none."""
  if not rows or not all(isinstance(row.get('caption'), str) for row in rows):
    return
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  data = gzip.compress(lines.encode(), mtime=0)  # the same rows give the same bytes
  storage.replace(f'{_stem(shard)}.captions-{_digest(data)}.jsonl.gz', data)


def names(listed: Iterable[str]) -> dict[str, str]:
  """Maps the names of shards to their caption files among the names `listed`."""
  return {f'{_stem(name)}.arrayrecord': name for name in listed if '.captions-' in name}


def read(storage: Storage, name: str, rows: int) -> list[JSON] | None:
  """Returns the fields of each row as `about` does, or None if the file is missing or damaged."""
  data = storage.read(name)
  if data is None or f'.captions-{_digest(data)}.' not in name:
    return None
  try:
    lines = gzip.decompress(data).splitlines()
    captions = [parse_json(line, name, error=DataError, mend='') for line in lines]
  except (DataError, OSError, EOFError, zlib.error):
    return None
  is_complete = all(isinstance(row.get('caption'), str) for row in captions)
  return captions if is_complete and len(captions) == rows else None


def _stem(name: str) -> str:
  return name.partition('.')[0]


def _digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:12]
