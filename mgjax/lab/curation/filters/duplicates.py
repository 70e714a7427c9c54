"""Of clips that are copies of each other the best one is kept (Movie Gen §3.2.1, Table 44, row 10).

Two clips are copies if the cosine of their vectors is at least a threshold (0.99 of SSCD's
embeddings as published). The vectors that are made here without weights say less, so perceptual
hashes have to agree with them.
"""

import logging
from types import ModuleType

import numpy as np

from mgjax.core.plug_ins import load_package
from mgjax.lab.curation.filters.table import Columns, known
from mgjax.lab.curation.settings import KeepSettings

_FEW = 5_000  # vectors that are compared with all others
_PROBED = 16  # of the cells into which more of them fall
_BYTES = 8  # of a hash


def copies(columns: Columns, settings: KeepSettings) -> np.ndarray:
  """Says of each clip but the best of its copies whose copy it is: 'copy of NAME', or ''.

  The best has the most pixels, then lasts longest, then comes first by its name. Reads 'clip',
  'copies_vector', or 'fingerprint_vector' and '..._hash', 'width', 'height', 'start', 'end'.
  """
  own = 'copies_vector' in columns and known(columns['copies_vector']).any()
  vectors = columns['copies_vector' if own else 'fingerprint_vector']
  rows = np.flatnonzero(known(vectors))
  a, b = close_pairs(vectors[rows], settings.copies)
  a, b = rows[a], rows[b]
  if not own:
    agree = _bits(columns['fingerprint_hash'], a, b) <= settings.hashes
    a, b = a[agree], b[agree]
  names = columns['clip']
  pixels = columns['width'] * columns['height']
  order = np.lexsort((names.astype(str), columns['start'] - columns['end'], -pixels))
  rank = np.empty(len(order), np.int64)
  rank[order] = np.arange(len(order))
  return _drop_worse(a, b, rank, names)


def close_pairs(vectors: np.ndarray, cosine: float) -> tuple[np.ndarray, np.ndarray]:
  """Numbers of the first and of the second of each pair of vectors (n d) with at least that cosine.

  Above some thousands the vectors fall into cells and are compared with those of near cells: a few
  pairs may be missed.
  """
  faiss = faiss_library()
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  vectors = np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), np.float32)
  if len(vectors) < 2:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
  index = faiss.IndexFlatIP(vectors.shape[1])
  if len(vectors) > _FEW:
    cells = int(np.sqrt(len(vectors)))
    index = faiss.IndexIVFFlat(index, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:: max(1, len(vectors) // (64 * cells))])
    index.nprobe = _PROBED
  index.add(vectors)
  starts, _, neighbours = index.range_search(vectors, float(np.nextafter(np.float32(cosine), -1)))
  own = np.repeat(np.arange(len(vectors)), np.diff(starts.astype(np.int64)))
  neighbours = neighbours.astype(np.int64)
  once = own < neighbours
  return own[once], neighbours[once]


def faiss_library() -> ModuleType:
  """faiss; a ConfigError where it is not installed."""
  logging.getLogger('faiss').setLevel(logging.WARNING)  # it tells which processor it is for
  return load_package('faiss', 'copies and concepts need faiss', 'curation')


def _bits(hashes: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the bits by which the hashes of pairs differ, the median over their pictures."""
  if not len(a):
    return np.zeros(0)
  used, places = np.unique(np.concatenate([a, b]), return_inverse=True)
  table = np.stack([np.frombuffer(code, np.uint8) for code in hashes[used]])
  first = table[places[: len(a)]]
  second = table[places[len(a) :]]
  counts = np.bitwise_count(first ^ second).reshape(len(a), -1, _BYTES).sum(2)
  return np.median(counts, axis=1)


def _drop_worse(a: np.ndarray, b: np.ndarray, rank: np.ndarray, names: np.ndarray) -> np.ndarray:
  """Drops each clip that is a copy of a better one that is kept."""
  reasons = np.full(len(rank), '', object)
  better, worse = np.where(rank[a] < rank[b], a, b), np.where(rank[a] < rank[b], b, a)
  for pair in np.lexsort((rank[worse], rank[better])):
    if not reasons[better[pair]] and not reasons[worse[pair]]:
      reasons[worse[pair]] = f'copy of {names[better[pair]]}'
  return reasons
