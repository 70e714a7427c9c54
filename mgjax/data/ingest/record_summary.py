"""Summarises records: durations, sizes, rates and captions of clips, statistics of arrays.

Durations and sizes are those of all clips, from the columns; captions, bytes and numbers are those
of some rows, evenly spaced. Damaged ones among those are told apart from the rest.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError, StorageError, printable
from mgjax.data.clips import evenly
from mgjax.data.ingest.clip_check import COLUMNS, open_row
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.video import read_clip
from mgjax.data.records.reader import Records

DamagedRows = dict[int, RejectedEntry]  # by the index of the row

_TALL = 160  # pixels of a frame on the contact sheet
_FRAMES = 8  # of a clip on it
_ASPECTS = {
  'tall, 9:16': 9 / 16,
  '2:3': 2 / 3,
  '3:4': 3 / 4,
  '1:1': 1.0,
  '4:3': 4 / 3,
  '3:2': 3 / 2,
  '16:9': 16 / 9,
  'wide, 21:9': 21 / 9,
}


def describe_records(
  records: Records, rows: int = 64, captions: int = 8
) -> tuple[list[str], DamagedRows]:
  """Reads `rows` rows; returns lines to print, with `captions` captions, and unreadable rows."""
  if not len(records):
    return ['no rows'], {}
  taken, damaged = _read(records, rows)
  lines = [f'{len(records)} rows, {len(taken) + len(damaged)} of them looked into']
  if taken:
    lines += _clips(records, taken) if holds_clips(records) else _arrays(taken)
  excerpts = [printable(row['caption']) for row in taken if 'caption' in row][:captions]
  lines += ['', 'captions:', *(f'  {caption:.96}' for caption in excerpts)] if excerpts else []
  for name, value in (('meta', records.meta), ('summary', records.summary)):
    lines += [f'{name}: {value!s:.400}'] if value else []
  return lines, damaged


def draw_clips(
  records: Records, path: str | os.PathLike[str], clips: int = 8
) -> tuple[int, DamagedRows]:
  """Writes a PNG of some clips, evenly spaced, a row of frames each.

  Returns how many are on it (with none it is not written), and which could not be decoded.
  """
  videos = []
  titles = []
  damaged = {}
  for index in evenly(len(records), clips):
    source = ''
    try:
      row = records[index]
      source = row['source']
      size = (_TALL, max(1, round(_TALL * row['width'] / row['height'])))
      frames = min(_FRAMES, max(1, int(row['seconds'] * row['fps'])))
      clip = read_clip(open_row(row), frames=frames, size=size, fps=frames / row['seconds'])
    except DataError as error:
      damaged[index] = _damaged(index, error, source)
      continue
    videos.append(clip)
    titles.append(f'{index}: {row["caption"]}')
  if videos:
    contact_sheet(path, videos, titles)
  return len(videos), damaged


def holds_clips(records: Records) -> bool:
  """Whether records are of clips."""
  try:
    return all(len(records.column(name)) for name in COLUMNS)
  except StorageError:
    raise
  except DataError:
    return False


def _read(records: Records, count: int) -> tuple[list[dict[str, Any]], DamagedRows]:
  taken = []
  damaged = {}
  for index in evenly(len(records), count):
    try:
      taken.append(records[index])
    except DataError as error:
      damaged[index] = _damaged(index, error)
  return taken, damaged


def _damaged(index: int, error: DataError, source: str = '') -> RejectedEntry:
  reason = str(error).removeprefix(f'{printable(source)}: ')
  return RejectedEntry(f'row {index}' + (f', {source}' if source else ''), reason)


def _clips(records: Records, taken: list[JSON]) -> Iterator[str]:
  seconds, fps, height, width, sounding = (records.column(name) for name in COLUMNS[:5])
  size = np.mean([row['media'].size for row in taken])
  yield (
    f'{seconds.sum() / 3600:.2f} hours, {seconds.mean():.2f} s a clip; '
    f'{size / 1e6:.2f} MB a clip, about {size * len(records) / 1e9:.2f} GB in all'
  )
  yield f'{np.mean(sounding):.1%} with sound from beginning to end'
  yield _spread('seconds', seconds)
  yield _spread('frames a second', fps)
  yield _spread('shorter side, pixels', np.minimum(height, width))
  names = list(_ASPECTS)
  ratios = np.log(list(_ASPECTS.values()))
  nearest = np.abs(np.log(width / height)[:, None] - ratios).argmin(axis=1)
  shares = np.bincount(nearest, minlength=len(names)) / len(nearest)
  parts = (f'{name} {share:.1%}' for name, share in zip(names, shares, strict=True) if share)
  yield f'shape, the nearest of: {", ".join(parts)}'


def _arrays(taken: list[JSON]) -> Iterator[str]:
  first = taken[0]
  for name in first:
    values = [row[name] for row in taken if name in row]
    if isinstance(first[name], str):
      yield f'{name}: text, {np.mean([len(value) for value in values]):.0f} characters'
      continue
    arrays = [np.asarray(value, np.float64) for value in values]
    shapes = sorted({str(array.shape).replace(',)', ')') for array in arrays})
    kind = first[name].dtype if isinstance(first[name], np.ndarray) else type(first[name]).__name__
    numbers = np.concatenate([array.ravel() for array in arrays])
    odd = '' if np.isfinite(numbers).all() else ', NOT ALL ARE NUMBERS'
    yield (
      f'{name}: {kind} {" or ".join(shapes[:4])}{" ..." if shapes[4:] else ""}, '
      f'mean {numbers.mean():.4g}, deviation {numbers.std():.4g}, '
      f'from {numbers.min(initial=np.inf):.4g} to {numbers.max(initial=-np.inf):.4g}{odd}'
    )


def _spread(title: str, values: np.ndarray) -> str:
  """Formats the minimum, maximum, median and the 10% and 90% quantiles of numbers."""
  quantiles = ', '.join(f'{value:.4g}' for value in np.quantile(values, (0, 0.1, 0.5, 0.9, 1)))
  return f'{title}: {quantiles} (0, 10, 50, 90 and 100% of the clips)'
