"""Cuts the clips that are kept out of their videos, into records that training reads.

A shard of records is one job of an engine: see `shards.py`.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.ingest.clip_check import COLUMNS, make_row
from mgjax.data.ingest.convert import REJECTED_FILE, write_rejected
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.ingest.worker_pool import Allowance, Guarded, Lost
from mgjax.data.media.transcode import cut_video
from mgjax.data.records.writer import RecordWriter
from mgjax.lab.curation.measure import open_video, or_reason
from mgjax.lab.curation.rows import digest
from mgjax.lab.curation.settings import CUT, CutSettings
from mgjax.lab.curation.shards import Executor, Seen, finish_jobs

_FIELDS = ('clip', 'place', 'start', 'end', 'caption')
_Clip = tuple[Input | RejectedEntry, Fields]  # and its row
_Job = tuple[int, list[_Clip]]  # the index of a shard of records, and its clips
MORE = 'more'  # of a row: what its record has beside that


@dataclasses.dataclass(frozen=True)
class CutResult:
  """What became of the clips."""

  rows: int  # how many are records
  copied: int  # of how many the pictures were copied
  rejected: list[RejectedEntry]  # those that could not be cut, and why


def write_records(
  clips: Sequence[Fields],
  inputs: Inputs,
  directory: str | os.PathLike[str],
  executor: Executor,
  settings: CutSettings = CUT,
) -> CutResult:
  """Writes records of clips; the same call again resumes where it stopped.

  Reads clip, place, start, end, caption and, if present, MORE of each row.

  Raises:
    DataError: there is no clip, or none that can be cut.
    ConfigError: the records there are of other clips, or cut in another way.
  """
  if not clips:
    raise DataError('no clip is left to be cut: the funnel says which filter dropped how many')
  fields = [list(_fields_of(row).values()) for row in clips]
  try:
    writer = RecordWriter(
      directory,
      rows=len(clips),
      rows_per_shard=settings.clips_per_shard,
      meta={'clips': digest(fields), 'cut': dataclasses.asdict(settings)},
      columns=COLUMNS,
      exact=False,
    )
  except ConfigError as error:
    raise ConfigError(
      f'{directory} holds records of another selection ({error!s:.200}); move or delete it, and '
      'the same command, which measures nothing again, cuts these clips'
    ) from None
  finish_jobs(
    writer.missing_shards,
    lambda missing: _jobs(clips, inputs, writer, missing),
    lambda shard: len(writer.shard_rows(shard)),
    functools.partial(_Cutter, writer, settings, executor.allowance),
    executor,
    len(clips),
  )
  return _finish(writer, directory, len(clips))


def _jobs(
  clips: Sequence[Fields], inputs: Inputs, writer: RecordWriter, missing: Sequence[int]
) -> Iterator[_Job]:
  for index in missing:
    rows = [clips[number] for number in writer.shard_rows(index)]
    yield index, [(inputs[int(row['place'])], _fields_of(row)) for row in rows]


def _fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
  extra = {MORE: row[MORE]} if row.get(MORE) else {}
  return {name: row[name] for name in _FIELDS} | extra


class _Cutter:
  """Writes shards of records, each clip cut in a process under limits."""

  def __init__(self, writer: RecordWriter, settings: CutSettings, allowance: Allowance, seen: Seen):
    self._writer, self._seen = writer, seen
    self._cut = Guarded(functools.partial(_cut, settings), allowance)

  def __call__(self, job: _Job) -> None:
    notes: list[list[Any]] = []  # [clip, whether it was copied, why it is no record]

    def rows() -> Iterator[JSON]:
      for clip in job[1]:
        name = clip[1]['clip']
        result = self._cut(clip)
        self._seen(1)
        if isinstance(result, Lost):
          notes.append([name, False, result.reason])
        elif isinstance(result, str):
          notes.append([name, False, result])
        else:
          row, copied = result
          notes.append([name, copied, ''])
          yield row

    self._writer.write_shard(job[0], rows(), lambda: notes)

  def close(self) -> None:
    self._cut.close(for_good=True)


def _cut(settings: CutSettings, clip: _Clip) -> tuple[dict[str, Any], bool] | str:
  """Returns the row of a clip and whether its frames were copied, or why there is none."""
  video, row = clip

  def cut() -> tuple[JSON, bool]:
    how = {'gop': settings.gop, 'crf': settings.crf, 'anew': settings.anew}
    data, copied = cut_video(open_video(video), row['start'], row['end'], **how)
    return {**row.get(MORE, {}), **make_row(data, row['caption'], row['clip'])}, copied

  return or_reason(cut, video, 'cut', MemoryError)


def _finish(writer: RecordWriter, directory: str | os.PathLike[str], count: int) -> CutResult:
  notes = [note for shard in writer.shards() for note in shard['notes']]
  rejected = [RejectedEntry(name, reason) for name, _, reason in notes if reason]
  write_rejected(directory, rejected)
  result = CutResult(count - len(rejected), sum(copied for _, copied, _ in notes), rejected)
  if not result.rows:
    raise DataError(
      f'none of {count} clips can be cut; all reasons are in {directory}/{REJECTED_FILE}'
    )
  writer.finish({'inputs': count, 'rejected': len(rejected)})
  return result
