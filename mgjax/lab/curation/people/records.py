"""Makes records of clips with references of the person in them (Movie Gen §4).

A row is that of `data/ingest/clip_check.py` and the fields of `single_person_references.py`;
`cross` is a column. A file of one shot is kept as it is. Of a file of several, each shot that can
be used becomes a clip of its own, encoded anew without sound: one row with references of its own
and, where another shot has the same face, one with references of that. What is left out is listed
with its reason.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError
from mgjax.data.ingest.clip_check import COLUMNS, make_row
from mgjax.data.ingest.convert import REJECTED, write_rejected
from mgjax.data.ingest.entries import Rejected, commonest
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
  rejected: list[Rejected]  # clips and shots that were left out
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

  def rows(self, each: Input | Rejected) -> tuple[list[JSON], list[Rejected]]:
    """Returns the rows of a clip, and the clips or shots that are left out."""
    self.sheet.begin()
    found = or_reason(lambda: self._rows(each), each, 'used')
    rows, reasons = ([], [found]) if isinstance(found, str) else found
    self.sheet.end(each.name, rows, reasons)
    return rows, [Rejected(each.name, reason) for reason in reasons]

  def _rows(self, each: Input) -> tuple[list[JSON], list[str]]:
    settings = self.settings
    if not names_person(each.caption, settings.words):
      raise DataError('its caption names no person')
    data = each.load()
    blob = Blob(each.name, data)
    whole = make_row(data, each.caption, each.name, start=each.start, limits=self.limits)
    if whole['seconds'] < settings.seconds:
      raise DataError(f'lasts {whole["seconds"]:.2f} s, less than {settings.seconds:g}')
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
      counts = each.start is None or shot.start <= each.start < shot.end
      if track.reason or not counts:
        continue
      row = whole if len(shots) == 1 else self._cut(blob, whole, each, shot)
      rows.append(row | paired_fields(track, settings))
      if more := cross_fields(track, tracks, self.faces.threshold, settings):
        rows.append(row | more)
    if (left := len(shots) - settings.shots) > 0:
      reasons.append(f'its last {left} shots: no more than {settings.shots} are looked at')
    return rows, reasons

  def _follow(self, blob: Blob, shots: list[Shot]) -> list[Track]:
    """Follows the face of each shot, in one pass over the file."""
    settings = self.settings
    tracks = [Track(shot) for shot in shots]
    for track in tracks:
      seconds = track.shot.end - track.shot.start
      if seconds < settings.seconds:
        track.reason = f'lasts {seconds:.2f} s, less than {settings.seconds:g}'
    number, taken = 0, 0
    frames = stream_frames(blob, SIDE, self.limits)
    for index, (start, end, frame) in enumerate(itertools.islice(frames, shots[-1].last)):
      if index == shots[number].last:
        number = number + 1
        taken = 0
      while (time := shots[number].start + (taken + 0.5) / settings.rate) < end:
        if start <= time < shots[number].end:
          tracks[number].look(time, frame, self.faces, settings, self.sheet.see)
        taken += 1
    for track in tracks:
      track.end()
    return tracks

  def _cut(self, blob: Blob, whole: JSON, each: Input, shot: Shot) -> JSON:
    frames = itertools.islice(stream_frames(blob, 0, self.limits), shot.first, shot.last)
    timed = ((start - shot.start, end - shot.start, frame) for start, end, frame in frames)
    data = encode_frames(timed, fps=whole['fps'], clock=_CLOCK, crf=_CRF, gop=_GOP)
    start = None if each.start is None else each.start - shot.start
    name = f'{each.name}, {_span(shot)}'
    return make_row(data, each.caption, name, start=start, limits=self.limits)


def write_references(
  inputs: Inputs,
  directory: str | os.PathLike[str],
  finder: ReferenceFinder,
  *,
  clips_per_shard: int = 64,
  share: Share = ALONE,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReferenceResult:
  """Writes records of clips with references; the same call again goes on where it stopped.

  A shard is of `clips_per_shard` clips. Of several processes that work at once the one that comes
  last finishes the records; progress is that of this one.

  Raises:
    ConfigError: the directory was begun with other values.
    StorageError: what the clips lie on does not answer.
    DataError: there is no clip, or none that can be used.
  """
  if not len(inputs):
    raise DataError('there is nothing to take references of: no clip was found')
  faces = finder.faces
  most = ROWS_OF_A_SHOT * finder.settings.shots
  known = {'name': faces.name, 'threshold': faces.threshold, 'smallest': faces.smallest}
  writer = RecordWriter(
    directory,
    rows=most * len(inputs),
    rows_per_shard=most * clips_per_shard,
    meta={
      'inputs': inputs.identity,
      'faces': known,
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
      for each in inputs.between(span.start, span.stop):
        found, rejected = finder.rows(each)
        notes['rejected'] += [[one.name, one.reason] for one in rejected]
        for row in found:
          notes['cross' if row['cross'] else 'paired'] += 1
          yield row
        done += 1
        progress(done, total)

    writer.write_shard(shard, rows(), lambda notes=notes: notes)
  return _finish(writer, directory, len(inputs))


def _finish(writer: RecordWriter, directory: str | os.PathLike[str], count: int) -> ReferenceResult:
  finished = not writer.missing_shards()
  notes = [shard['notes'] for shard in writer.shards()]
  rejected = [Rejected(*each) for note in notes for each in note['rejected']]
  paired, cross = (sum(note[kind] for note in notes) for kind in ('paired', 'cross'))
  outcome = ReferenceResult(count, paired, cross, rejected, finished)
  if finished:
    write_rejected(directory, rejected)
    if not paired:
      raise DataError(f'no usable clip: {outcome}; all reasons are in {directory}/{REJECTED}')
    writer.finish({'inputs': count, 'paired': paired, 'cross': cross, 'rejected': len(rejected)})
  return outcome


def _span(shot: Shot) -> str:
  return f'{shot.start:.2f} to {shot.end:.2f} s'
