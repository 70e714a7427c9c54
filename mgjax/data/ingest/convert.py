"""Converts clips from any kind of input into clip records; every rejected clip is listed.

Each input becomes a row, or is rejected with its reason. The reasons are kept with the shard that
the input belongs to, so a restart has those of the shards that it does not make again.
`rejected.jsonl` beside the records lists all.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError, StorageError, printable
from mgjax.data.ingest.clip_check import COLUMNS, INTERLACED, make_row
from mgjax.data.ingest.entries import RejectedEntry, commonest
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.ingest.worker_pool import Allowance, Isolated, Lost
from mgjax.data.media.containers import LIMITS, Blob, Limits
from mgjax.data.media.transcode import reencode
from mgjax.data.records.storage import open_storage
from mgjax.data.records.writer import ALONE, RecordWriter, Share

REJECTED_FILE = 'rejected.jsonl'
_REMARKS = 'remarks'  # of a row, until it is written
_HELD = 128 << 20  # bytes of clips that are read but not yet written; one more may be
_MEGABYTE = 1 << 20
_PATIENCE = 10  # times the limit of a file's wall time, until its process is taken for stuck

_Row = Callable[[Input | RejectedEntry], Any]
_Submit = Callable[[Input | RejectedEntry], concurrent.futures.Future]


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
  """How clips are converted."""

  reencode: bool = False  # or keep the bytes as they are
  gop: int = 16  # frames from one key frame to the next, if encoded anew
  crf: float = 20.0  # its quality, lower is better
  side: int = 0  # pixels that its shorter side is shrunk to, 0 for none
  deinterlace: bool = False  # make whole frames of the fields of interlaced clips
  full: bool = False  # decode all of a clip, and not only its first frame and its end
  megabytes: int = 256  # a larger file is rejected


@dataclasses.dataclass(frozen=True)
class Workers:
  """What looks at clips.

  Attributes:
    threads: that look at clips at once; by default four a core, 16 at most.
    isolate: whether to have processes in their place, one a core by default: a clip that kills the
      one that decodes it is rejected, and does not end the run. Inputs must hold what pickles.
    limits: what one file may cost.
  """

  threads: int = 0
  isolate: bool = False
  limits: Limits = LIMITS

  @contextlib.contextmanager
  def calling(self, function: _Row) -> Iterator[tuple[_Submit, int]]:
    """Yields what begins a call of a function, and how many run at once."""
    cores = os.cpu_count() or 1
    count = self.threads or min(16, cores if self.isolate else 4 * cores)
    seconds = _PATIENCE * self.limits.wall_seconds
    processor = math.ceil(seconds * cores)
    allowance = Allowance(processor_seconds=processor, wall_seconds=seconds, tries=2)
    pool = concurrent.futures.ThreadPoolExecutor(count)
    alone = contextlib.nullcontext(function)
    isolated = Isolated(function, count, allowance) if self.isolate else alone
    try:
      with isolated as call:
        yield functools.partial(pool.submit, call), count
    finally:
      pool.shutdown(cancel_futures=True)


@dataclasses.dataclass(frozen=True)
class ConvertResult:
  """Counts of the inputs so far."""

  inputs: int
  rows: int
  rejected: list[RejectedEntry]
  finished: bool  # else other processes are still at work
  # of the rows that this call made, why they may not be what is wanted
  remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    return f'{self.rows} clips, {len(self.rejected)} rejected{commonest(self.rejected)}'


def convert(
  inputs: Inputs,
  directory: str | os.PathLike[str],
  treatment: ConvertOptions = ConvertOptions(),
  *,
  rows_per_shard: int = 256,
  share: Share = ALONE,
  workers: Workers = Workers(),
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> ConvertResult:
  """Writes clip records; repeating the call with the same inputs resumes it.

  Args:
    directory: of the records, a path or a URL.
    share: of the work; of several processes the last one finishes the records.
    workers: what looks at clips.
    progress: called with how many inputs of this process are done, and of how many.

  Raises:
    ConfigError: the directory was begun with other inputs or another treatment.
    StorageError: what the inputs lie on does not answer.
    DataError: there is no input, or none that can be used.
  """
  if not len(inputs):
    raise DataError('there is nothing to convert: no clip was found')
  writer = RecordWriter(
    directory,
    rows=len(inputs),
    rows_per_shard=rows_per_shard,
    meta={'inputs': inputs.identity, 'treatment': _described(treatment)},
    columns=COLUMNS,
    exact=False,
  )
  missing = writer.missing_shards(*share)
  remarks: collections.Counter[str] = collections.Counter()
  done = 0
  total = sum(len(writer.shard_rows(shard)) for shard in missing)
  progress(0, total)
  with workers.calling(functools.partial(_row, treatment, workers.limits)) as begin:
    for shard in missing:
      rejected: list[RejectedEntry] = []
      indices = writer.shard_rows(shard)

      def rows(indices: range = indices, rejected: list[RejectedEntry] = rejected) -> Iterator:
        nonlocal done
        batch = inputs.between(indices.start, indices.stop)
        for row in _converted(batch, *begin):
          done += 1
          if isinstance(row, RejectedEntry):
            rejected.append(row)
          else:
            remarks.update(row.pop(_REMARKS))
            yield row
          progress(done, total)

      writer.write_shard(
        shard,
        rows(),
        lambda rejected=rejected: [[rejection.name, rejection.reason] for rejection in rejected],
      )
  return dataclasses.replace(_finish(writer, directory, len(inputs)), remarks=remarks)


def _finish(writer: RecordWriter, directory: str | os.PathLike[str], count: int) -> ConvertResult:
  finished = not writer.missing_shards()
  shards = writer.shards()
  rejected = [RejectedEntry(*note) for shard in shards for note in shard['notes']]
  outcome = ConvertResult(count, sum(shard['rows'] for shard in shards), rejected, finished)
  if finished:
    write_rejected(directory, rejected)
    if not outcome.rows:
      raise DataError(f'no usable clip: {outcome}; all reasons are in {directory}/{REJECTED_FILE}')
    writer.finish({'inputs': count, 'rejected': len(rejected)})
  return outcome


def write_rejected(directory: str | os.PathLike[str], rejected: Iterable[RejectedEntry]) -> None:
  """Writes `rejected.jsonl` beside records: a line of JSON an entry, with its reason."""
  lines = [
    json.dumps({'entry': rejection.name, 'reason': rejection.reason}) + '\n'
    for rejection in rejected
  ]
  open_storage(directory).replace(REJECTED_FILE, ''.join(lines).encode())


def _described(treatment: ConvertOptions) -> JSON:
  described = dataclasses.asdict(treatment)
  if not treatment.deinterlace:
    del described['deinterlace']  # which records did not have that were begun before
  return described if treatment.reencode else described | {'gop': None, 'crf': None, 'side': None}


def _converted(
  clips: Iterator[Input | RejectedEntry], submit: _Submit, count: int
) -> Iterator[dict[str, Any] | RejectedEntry]:
  """Yields rows in the order of the inputs, made by workers in bounded memory."""
  waiting: collections.deque[tuple[Input | RejectedEntry, concurrent.futures.Future]] = (
    collections.deque()
  )
  held = 0

  def finished() -> dict[str, Any] | RejectedEntry:
    nonlocal held
    first, future = waiting.popleft()
    row = future.result()
    held -= _size(first)
    return RejectedEntry(first.name, row.reason) if isinstance(row, Lost) else row

  try:
    for clip in clips:
      size = _size(clip)
      while waiting and (len(waiting) > 2 * count or held + size > _HELD):
        yield finished()
      waiting.append((clip, submit(clip)))
      held += size
    while waiting:
      yield finished()
  finally:
    for _, future in waiting:
      future.cancel()


def _size(clip: Input | RejectedEntry) -> int:
  return 0 if isinstance(clip, RejectedEntry) else clip.size


def _row(
  treatment: ConvertOptions, limits: Limits, clip: Input | RejectedEntry
) -> dict[str, Any] | RejectedEntry:
  if isinstance(clip, RejectedEntry):
    return clip
  try:
    if clip.size > treatment.megabytes * _MEGABYTE:
      raise DataError(
        f'has {clip.size / _MEGABYTE:.0f} MB, more than {treatment.megabytes}; cut it into clips'
      )
    data, limits = clip.load(), limits.begun()
    remarks: list[str] = []
    named = {'caption': clip.caption, 'source': clip.name, 'start': clip.start, 'limits': limits}
    row = make_row(data, **named, full=treatment.full, remarks=remarks)
    if treatment.reencode:
      data = reencode(
        Blob(clip.name, data),
        gop=treatment.gop,
        crf=treatment.crf,
        side=treatment.side,
        deinterlace=treatment.deinterlace and INTERLACED in remarks,
        limits=limits,
      )
      row = make_row(data, **named) | {'sounding': row['sounding']}
    # What is encoded anew is progressive.
    remaining = [remark for remark in remarks if remark != INTERLACED or not treatment.deinterlace]
    return row | {_REMARKS: remaining}
  except StorageError:
    raise  # the next read would fail as well: stop, and resume later
  except DataError as error:
    return RejectedEntry(clip.name, str(error).removeprefix(printable(f'{clip.name}: ', keep='\n')))
  except Exception as error:  # no untrusted file may end the run
    return RejectedEntry(clip.name, f'cannot be used ({type(error).__name__}: {error!s:.200})')
