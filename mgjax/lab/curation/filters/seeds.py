"""Clips near those that people picked for each concept (Movie Gen §3.2.1: fine-tuning).

For the balance of fine-tuning the paper has people pick seed videos for each concept, and takes the
nearest neighbours of these. Seeds are clips that were measured too, in a table with the columns
concept and clip, where a video stands for all its clips. Each brings its nearest clips, itself
among them, by the cosine of the vectors of a plug-in or of fingerprints. Fingerprints are similar
if colours are arranged similarly.
"""

import csv
import logging
import os

import numpy as np

from mgjax.core.errors import DataError, printable
from mgjax.lab.curation.filters.duplicates import faiss_library
from mgjax.lab.curation.filters.table import Columns, known
from mgjax.lab.curation.settings import KeepSettings

_log = logging.getLogger(__name__)


def read_seeds(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
  """Reads pairs (concept, clip or video).
  Raises DataError if the file cannot be read, lacks a column, or a line lacks a value.
  """
  where = printable(os.fspath(path))
  try:
    with open(path, newline='', encoding='utf-8-sig') as file:
      rows = list(csv.DictReader(file))
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise DataError(f'keep.seeds = {where!r} cannot be read: {error}') from error
  pairs = [(row.get('concept') or '', row.get('clip') or '') for row in rows]
  if not pairs or not all(concept and clip for concept, clip in pairs):
    raise DataError(f'{where}: expected the columns concept and clip, and both in each line')
  return pairs


def far_from_seeds(columns: Columns, settings: KeepSettings) -> np.ndarray:
  """Says which clips are not among the nearest of any seed, as 'none of the 9 nearest ...', or ''.

  Reads 'concepts_vector' or 'fingerprint_vector'; 'clip', 'video'.
  Raises DataError if none of the seeds is among the clips.
  """
  concepts, cosines = nearest_concepts(columns, settings)
  reasons = np.full(len(concepts), '', object)
  for row in np.flatnonzero(concepts == ''):
    far = 'no vector' if np.isnan(cosines[row]) else f'cosine {cosines[row]:.3g} with the nearest'
    reasons[row] = f'none of the {settings.neighbours} nearest clips of a seed, {far}'
  return reasons


def nearest_concepts(columns: Columns, settings: KeepSettings) -> tuple[np.ndarray, np.ndarray]:
  """Returns the concept whose seed selects each clip, or '', and the nearest seed's cosine.

  The cosine is nan for a clip without a vector.
  """
  names = ('concepts_vector', 'fingerprint_vector')
  vectors = next(columns[name] for name in names if name in columns and known(columns[name]).any())
  rows = np.flatnonzero(known(vectors))
  vectors = np.ascontiguousarray(vectors[rows], np.float32)
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
  seeds, seed_concepts = _places(columns, rows, settings)
  index = faiss_library().IndexFlatIP(vectors.shape[1])
  index.add(vectors)
  count = min(settings.neighbours, len(rows))
  similarities, neighbours = index.search(vectors[seeds], count)
  concepts = np.full(len(columns['clip']), '', object)
  cosines = np.full(len(columns['clip']), np.nan)
  close = faiss_library().IndexFlatIP(vectors.shape[1])
  close.add(vectors[seeds])
  cosines[rows] = close.search(vectors, 1)[0][:, 0]
  best = np.full(len(concepts), -np.inf)
  for concept, nearest, likeness in zip(seed_concepts, neighbours, similarities, strict=True):
    for row, cosine in zip(rows[nearest], likeness, strict=True):
      if cosine >= settings.alike and cosine > best[row]:
        concepts[row] = concept
        best[row] = cosine
  return concepts, cosines


def _places(
  columns: Columns, rows: np.ndarray, settings: KeepSettings
) -> tuple[list[int], list[str]]:
  """Returns the index of each seed among the rows, and its concept."""
  pairs = read_seeds(settings.seeds)
  by_name = {}
  for index, row in enumerate(rows):
    for name in {str(columns['clip'][row]), str(columns['video'][row])}:
      by_name.setdefault(name, []).append(index)
  missing = [clip for _, clip in pairs if clip not in by_name]
  if len(missing) == len(pairs):
    raise DataError(
      f'none of the {len(pairs)} seeds of {printable(settings.seeds)!r} is a clip that the filters '
      f'before left, such as {printable(columns["clip"][rows[0]])!r}'
    )
  if missing:
    _log.warning(
      '%d of %d seeds are no clips that the filters before left, as %s',
      len(missing),
      len(pairs),
      printable(missing[0]),
    )
  seeds = [(index, concept) for concept, clip in pairs for index in by_name.get(clip, ())]
  return [index for index, _ in seeds], [concept for _, concept in seeds]
