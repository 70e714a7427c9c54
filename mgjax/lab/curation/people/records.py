"""Makes records of clips with references of the person in them (Movie Gen §4).

A row is that of `data/ingest/clip_check.py` and the fields of `single_person_references.py`;
`cross` is a column. A file of one shot is kept as it is. Of a file of several, each shot that can
be used becomes a clip of its own, encoded anew without sound. It gives one row with its own
references and, if another shot has the same face, one with references of that shot. What is left
out is listed with its reason.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError
from mgjax.data.ingest.clip_check import COLUMNS, make_row
from mgjax.data.ingest.convert import REJECTED_FILE, write_rejected
from mgjax.data.ingest.entries import RejectedEntry, commonest
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.media.containers import LIMITS, Blob, Limits
from mgjax.data.media.faces.pictures import SIDE
from mgjax.data.media.faces.recognition import Faces
from mgjax.data.media.video import encode_frames, stream_frames
from mgjax.data.records.writer import ALONE, RecordWriter, Share
from mgjax.lab.curation.filters.scenes import SceneSettings, Shot, shots_of_file
from mgjax.lab.curation.measure import or_reason
from mgjax.lab.curation.people.sheet import ReferenceSheet
from mgjax.lab.curation.people.single_person_references import (
  ReferenceSettings,
  Track,
  cross_fields,
  names_person,
  paired_fields,
)

ROWS_OF_A_SHOT = 2  # paired and cross
# of a shot that is cut out
_CRF = 16.0
_GOP = 16
_CLOCK = 90_000


@dataclasses.dataclass(frozen=True)
class ReferenceResult:
  """Counts so far."""

  inputs: int  # how many clips there are
  paired: int  # rows with references of their own
  cross: int  # rows with references of another shot
  rejected: list[RejectedEntry]  # clips and shots that were left out
  finished: bool  # else other processes are still at work

  def __str__(self) -> str:
    return (
      f'{self.inputs} clips: {self.paired} rows paired, {self.cross} cross-paired; '
      f'{len(self.rejected)} clips or shots left out{commonest(self.rejected)}'
    )


@dataclasses.dataclass(frozen=True)
class ReferenceFinder:
  """Makes the rows of one clip after another.

  Attributes:
    limits: what one file may cost.
    sheet: collects examples.
  """

  faces: Faces
  settings: ReferenceSettings
  scenes: SceneSettings
  limits: Limits = LIMITS
  sheet: ReferenceSheet = dataclasses.field(default_factory=lambda: ReferenceSheet(0))

  def rows(self, clip: Input | RejectedEntry) -> tuple[list[dict[str, Any]], list[RejectedEntry]]:
    """Returns the rows of a clip, and the rejected clips or shots."""
    self.sheet.begin()
    result = or_reason(lambda: self._rows(clip), clip, 'used')
    rows, reasons = ([], [result]) if isinstance(result, str) else result
    self.sheet.end(clip.name, rows, reasons)
    return rows, [RejectedEntry(clip.name, reason) for reason in reasons]

  def _rows(self, clip: Input) -> tuple[list[dict[str, Any]], list[str]]:
    settings = self.settings
    if not names_person(clip.caption, settings.words):
      raise DataError('its caption names no person')
    data = clip.load()
    blob = Blob(clip.name, data)
    clip_row = make_row(data, clip.caption, clip.name, start=clip.start, limits=self.limits)
    if clip_row['seconds'] < settings.seconds:
      raise DataError(f'lasts {clip_row["seconds"]:.2f} s, less than {settings.seconds:g}')
    shots = shots_of_file(blob, self.scenes, self.limits)
    tracks = self._follow(blob, shots[: settings.shots])
    reasons = [
      track.reason if len(shots) == 1 else f'its shot from {_span(track.shot)}: {track.reason}'
      for track in tracks
      if track.reason
    ]
    rows = []
    for track in tracks:
      shot = track.shot
      counts = clip.start is None or shot.start <= clip.start < shot.end
      if track.reason or not counts:
        continue
      row = clip_row if len(shots) == 1 else self._cut(blob, clip_row, clip, shot)
      rows.append(row | paired_fields(track, settings))
      if cross := cross_fields(track, tracks, self.faces.threshold, settings):
        rows.append(row | cross)
    if (skipped := len(shots) - settings.shots) > 0:
      reasons.append(f'its last {skipped} shots: no more than {settings.shots} are looked at')
    return rows, reasons

  def _follow(self, blob: Blob, shots: list[Shot]) -> list[Track]:
    """Follows the face of each shot, in one pass over the file."""
    settings = self.settings
    tracks = [Track(shot) for shot in shots]
    for track in tracks:
      seconds = track.shot.end - track.shot.start
      if seconds < settings.seconds:
        track.reason = f'lasts {seconds:.2f} s, less than {settings.seconds:g}'
    number = 0
    looks = 0
    frames = stream_frames(blob, SIDE, self.limits)
    for index, (start, end, frame) in enumerate(itertools.islice(frames, shots[-1].last)):
      if index == shots[number].last:
        number = number + 1
        looks = 0
      while (time := shots[number].start + (looks + 0.5) / settings.rate) < end:
        if start <= time < shots[number].end:
          tracks[number].look(time, frame, self.faces, settings, self.sheet.see)
        looks += 1
    for track in tracks:
      track.end()
    return tracks

  def _cut(self, blob: Blob, clip_row: dict[str, Any], clip: Input, shot: Shot) -> dict[str, Any]:
    frames = itertools.islice(stream_frames(blob, 0, self.limits), shot.first, shot.last)
    timed = ((start - shot.start, end - shot.start, frame) for start, end, frame in frames)
    data = encode_frames(timed, fps=clip_row['fps'], clock=_CLOCK, crf=_CRF, gop=_GOP)
    start = None if clip.start is None else clip.start - shot.start
    name = f'{clip.name}, {_span(shot)}'
    return make_row(data, clip.caption, name, start=start, limits=self.limits)


def write_references(
  inputs: Inputs,
  directory: str | os.PathLike[str],
  finder: ReferenceFinder,
  *,
  clips_per_shard: int = 64,
  share: Share = ALONE,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReferenceResult:
  """Writes records of clips with references; the same call again resumes where it stopped.

  A shard holds `clips_per_shard` clips. The last of several processes finishes the records;
  progress is of this process.

  Raises:
    ConfigError: the directory was started with other values.
    StorageError: the storage of the clips does not answer.
    DataError: there is no clip, or none that can be used.
  """
  if not len(inputs):
    raise DataError('there is nothing to take references of: no clip was found')
  faces = finder.faces
  most = ROWS_OF_A_SHOT * finder.settings.shots
  detector = {'name': faces.name, 'threshold': faces.threshold, 'smallest': faces.smallest}
  writer = RecordWriter(
    directory,
    rows=most * len(inputs),
    rows_per_shard=most * clips_per_shard,
    meta={
      'inputs': inputs.identity,
      'faces': detector,
      'references': dataclasses.asdict(finder.settings),
      'scenes': dataclasses.asdict(finder.scenes),
    },
    columns=(*COLUMNS, 'cross'),
    exact=False,
  )
  missing = writer.missing_shards(*share)
  rows_of = {shard: writer.shard_rows(shard) for shard in missing}
  spans = {shard: range(r.start // most, r.stop // most) for shard, r in rows_of.items()}
  done = 0
  total = sum(map(len, spans.values()))
  progress(0, total)
  for shard, span in spans.items():
    notes: JSON = {'paired': 0, 'cross': 0, 'rejected': []}

    def rows(span: range = span, notes: JSON = notes) -> Iterator[JSON]:
      nonlocal done
      for clip in inputs.between(span.start, span.stop):
        clip_rows, rejected = finder.rows(clip)
        notes['rejected'] += [[rejection.name, rejection.reason] for rejection in rejected]
        for row in clip_rows:
          notes['cross' if row['cross'] else 'paired'] += 1
          yield row
        done += 1
        progress(done, total)

    writer.write_shard(shard, rows(), lambda notes=notes: notes)
  return _finish(writer, directory, len(inputs))


def _finish(writer: RecordWriter, directory: str | os.PathLike[str], count: int) -> ReferenceResult:
  finished = not writer.missing_shards()
  notes = [shard['notes'] for shard in writer.shards()]
  rejected = [RejectedEntry(*fields) for note in notes for fields in note['rejected']]
  paired, cross = (sum(note[kind] for note in notes) for kind in ('paired', 'cross'))
  outcome = ReferenceResult(count, paired, cross, rejected, finished)
  if finished:
    write_rejected(directory, rejected)
    if not paired:
      raise DataError(f'no usable clip: {outcome}; all reasons are in {directory}/{REJECTED_FILE}')
    writer.finish({'inputs': count, 'paired': paired, 'cross': cross, 'rejected': len(rejected)})
  return outcome


def _span(shot: Shot) -> str:
  return f'{shot.start:.2f} to {shot.end:.2f} s'
