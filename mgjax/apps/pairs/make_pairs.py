"""Makes pairs for training by a model, keeps the good ones, and shows all of them on a page.

Samples of a source go in, in their order. A model makes one or more pairs of each, and a filter
says which are kept and why others are not. The kept ones become rows of records. What is made of a
sample is a function of it and of its index alone, and a shard of records is complete or not there.
The same command resumes where it stopped, and after any number of kills its records are those of an
uninterrupted run.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import write_bytes
from mgjax.core.typing import UInt8
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.records.writer import ALONE, RecordWriter, Share
from mgjax.data.source import Source
from mgjax.lab.report.page import render
from mgjax.training.monitoring.progress import Progress

# beside the shards
PAGE = 'pairs.html'
PICTURES = 'pairs'
_FRAMES, _HEIGHT = 8, 128  # of each pair that the page shows: how many, and pixels


@dataclasses.dataclass(frozen=True)
class Pair:
  """The outcome of one sample.

  `row` is None if what is kept went into the row of another pair of the sample. `scores` are those
  by which the filter judged, `rounded`. `reason` says why it is dropped, '' if it is kept. `media`
  are clips or pictures (t h w 3) of one height, side by side on the page.
  """

  title: str
  row: Fields | None
  scores: Mapping[str, float]
  reason: str
  media: Sequence[UInt8[np.ndarray, '_ _ _ 3']]


def rounded(score: float | np.floating) -> float:
  """Returns a score as the manifest has it, with four decimals.

  Filters compare this with their thresholds. A threshold that was read from a manifest then keeps
  the pairs that the manifest says, on every machine.
  """
  return round(float(score), 4)


# (indices, samples) -> for each sample its pairs.
Make = Callable[[Sequence[int], Sequence[Fields]], Iterable[Sequence[Pair]]]


@dataclasses.dataclass(frozen=True)
class PairMaker:
  """What makes pairs of samples.

  Attributes:
    make: makes those of a batch.
    meta: what pairs depend on beside the samples and the size of a batch, as plain JSON values.
    most: rows that a sample has, at most.
    columns: fields of rows that can be read without the rows.
  """

  make: Make
  meta: Fields
  most: int = 1
  columns: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class PairsResult:
  """Counts of generated and kept pairs, of their rows, and of the reasons for dropping others.

  If not `finished`, other processes are still at work.
  """

  total: int
  kept: int
  rows: int
  reasons: Mapping[str, int]
  finished: bool

  def __str__(self) -> str:
    dropped = ''.join(f'; {count} dropped, {reason}' for reason, count in self.reasons.items())
    rows = '' if self.rows == self.kept else f' in {self.rows} rows'
    return f'{self.kept} of {self.total} pairs kept{rows}{dropped}'


def make_pairs(
  source: Source,
  maker: PairMaker,
  directory: str | os.PathLike[str],
  *,
  batch_size: int = 8,
  samples_per_shard: int = 64,
  share: Share = ALONE,
  refuse_none: bool = True,
) -> PairsResult:
  """Writes records of the kept pairs; repeating the call resumes it.

  Args:
    directory: of the records, a local folder.
    share: of the work; of several processes the last one finishes the records.
    refuse_none: whether it is an error if no pair was kept; if not, there are no records then.

  Raises:
    ConfigError: the directory was begun with other values, or is a URL.
    DataError: there is no sample, or no pair was kept.
  """
  if '://' in os.fspath(directory):
    raise ConfigError(
      f'{os.fspath(directory)!r} is an address; pairs are written into a local folder, to look at'
    )
  if not len(source):
    raise DataError('there is nothing to make pairs of: the data have no sample')
  directory = pathlib.Path(directory)
  most = maker.most
  writer = RecordWriter(
    directory,
    rows=most * len(source),
    rows_per_shard=most * samples_per_shard,
    # The size of a batch counts: a program of another size rounds otherwise.
    meta={'source': source.fingerprint, 'batch_size': batch_size, **maker.meta},
    columns=maker.columns,
    exact=False,
  )
  missing = writer.missing_shards(*share)
  spans = [range(r.start // most, r.stop // most) for r in map(writer.shard_rows, missing)]
  done = 0
  total = sum(map(len, spans))
  with contextlib.closing(Progress(total, unit='sample')) as progress:
    for shard, span in zip(missing, spans, strict=True):
      notes: list[JSON] = []
      pictures: list[tuple[str, np.ndarray]] = []

      def rows(span: range = span, notes=notes, pictures=pictures) -> Iterator[Fields]:
        nonlocal done
        for begin in range(0, len(span), batch_size):
          indices = span[begin : begin + batch_size]
          for pairs in maker.make(indices, [source[index] for index in indices]):
            for pair in pairs:
              scores = {name: rounded(score) for name, score in pair.scores.items()}
              notes.append({'title': pair.title, 'scores': scores, 'reason': pair.reason})
              pictures.append((_title(notes[-1]), _side_by_side(pair.media)))
              if not pair.reason and pair.row is not None:
                yield pair.row
          done += len(indices)
          progress.report(done)

      def noted(shard: int = shard, notes=notes, pictures=pictures) -> list[JSON]:
        if pictures:
          titles, videos = zip(*pictures, strict=True)
          path = directory / PICTURES / f'{shard:05d}.png'
          scale = _HEIGHT / videos[0].shape[1]
          contact_sheet(path, videos, titles, columns=_FRAMES, scale=scale)
        return notes

      writer.write_shard(shard, rows(), noted)
  return _finish(writer, directory, refuse_none)


def _finish(writer: RecordWriter, directory: pathlib.Path, refuse_none: bool) -> PairsResult:
  finished = not writer.missing_shards()
  shards = writer.shards()
  notes = [note for shard in shards for note in shard['notes']]
  reasons = collections.Counter(note['reason'] for note in notes if note['reason'])
  num_kept = sum(not note['reason'] for note in notes)
  rows = sum(shard['rows'] for shard in shards)
  result = PairsResult(len(notes), num_kept, rows, dict(reasons.most_common()), finished)
  if finished:
    for leftover in (directory / PICTURES).glob('.*'):  # of processes that were killed
      leftover.unlink(missing_ok=True)
    write_bytes(directory / PAGE, _page(directory, result, notes).encode())
    if not rows and not refuse_none:
      return result
    if not rows:
      raise DataError(
        f'{result}, so nothing is left to train on; {directory / PAGE} shows them all; ask for '
        'more, lower the threshold or take another model, and write into another directory'
      )
    writer.finish({'made': len(notes), 'kept': num_kept, 'reasons': dict(reasons)})
  return result


def _title(note: Mapping[str, Any]) -> str:
  scores = ', '.join(f'{name} {score:.3g}' for name, score in note['scores'].items())
  state = f'dropped, {note["reason"]}' if note['reason'] else 'kept'
  # What was decided comes first: the end of a long title is cut.
  return f'{state} ({scores}): {note["title"]}' if scores else f'{state}: {note["title"]}'


def _side_by_side(media: Sequence[np.ndarray]) -> np.ndarray:
  length = min(_FRAMES, max(map(len, media)))  # a shard's pairs are in memory at once
  return np.concatenate(
    [clip[np.linspace(0, len(clip) - 1, length).round().astype(int)] for clip in media], axis=2
  )


def _page(directory: pathlib.Path, result: PairsResult, notes: Sequence[Mapping[str, Any]]) -> str:
  """Renders a page of all pairs by shard, with the counts of reasons for dropping."""
  rows = [{'': 'kept', 'pairs': f'{result.kept:,}'}]
  rows += [{'': reason, 'pairs': f'{count:,}'} for reason, count in result.reasons.items()]
  for name in dict.fromkeys(name for note in notes for name in note['scores']):
    for row in rows:
      reason = '' if row[''] == 'kept' else row['']
      scores = [n['scores'][name] for n in notes if n['reason'] == reason and name in n['scores']]
      row[name] = f'{np.mean(scores):.3g}' if scores else ''
  sheets = sorted(path.name for path in (directory / PICTURES).glob('*.png'))
  return render('pairs.html', 'Pairs', rows=rows, folder=PICTURES, sheets=sheets)
