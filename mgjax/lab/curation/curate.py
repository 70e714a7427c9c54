"""Curation from raw videos to records, in one command that goes on wherever it was stopped.

scores/<digest>/    rows of scores, one a clip; the digest is of the videos and what is measured
captions/           what captioners wrote, a line a clip
review/             the clips that filters left, for people, and what these decided about them
kept.parquet        rows that are kept, with their captions, as people trimmed them
decisions.parquet   which filter dropped which clip, and why
funnel.json         how many each filter kept, and for which reasons it dropped the others
report.html         the same for people
records/            the clips that are kept, as launch.train reads them
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError, check_one_of, printable
from mgjax.core.files import write_bytes, write_json
from mgjax.data.ingest.entries import alike
from mgjax.data.ingest.inputs import Inputs
from mgjax.lab.curation import shards
from mgjax.lab.curation.captioning import CARRIED, caption_clips, carried, compose
from mgjax.lab.curation.costs import costs_of, describe_costs
from mgjax.lab.curation.cut import MORE, write_records
from mgjax.lab.curation.engines import plain
from mgjax.lab.curation.gate import gate_of
from mgjax.lab.curation.pages.page import write_page
from mgjax.lab.curation.review import candidates, decisions
from mgjax.lab.curation.rows import Scores, pyarrow, to_parquet
from mgjax.lab.curation.select import UNMEASURED, Selection, select
from mgjax.lab.curation.settings import CurationSettings
from mgjax.training.monitoring.progress import Counted
from mgjax.training.monitoring.workdir_lock import hold

SCORES = 'scores'
KEPT = 'kept.parquet'
DECISIONS = 'decisions.parquet'
FUNNEL = 'funnel.json'
REPORT = 'report.html'
RECORDS = 'records'
CAPTIONS = 'captions'
REVIEW = 'review'


def _ray(workers: int, address: str) -> contextlib.AbstractContextManager[shards.Engine]:
  from mgjax.lab.curation.engines import ray

  return ray.started(workers, address)


ENGINES = {'plain': lambda workers, address: contextlib.nullcontext(plain.run), 'ray': _ray}


@dataclasses.dataclass(frozen=True)
class Options:
  """How a curation runs; what comes of it does not depend on it, but for `limit`.

  Attributes:
    engine: one of ENGINES.
    address: of a Ray cluster; by default Ray is embedded.
    workers: processes that measure and cut; by default one a core.
    limit: about how many videos to measure, a fair sample, of which nothing is cut; 0 for all.
  """

  engine: str = 'plain'
  address: str = ''
  workers: int = 0
  limit: int = 0

  def __post_init__(self):
    check_one_of(f'engine = {self.engine!r}', self.engine, ENGINES)
    if self.address and self.engine != 'ray':
      raise ConfigError(f'address = {self.address!r} is of a Ray cluster; choose the engine ray')


def curate(
  settings: CurationSettings,
  inputs: Inputs,
  output: str | os.PathLike[str],
  options: Options = Options(),
) -> list[str]:
  """Measures, selects and cuts clips; the same call again resumes where it stopped.

  Args:
    output: a folder of this machine, or a folder that all machines of a cluster share.

  Returns:
    Lines that describe the result.

  Raises:
    ConfigError: another process is at work there, or something is not installed.
    DataError: nothing can be used.
  """
  if not len(inputs):
    raise DataError('there is nothing to curate: no video was found')
  workers = options.workers or os.cpu_count() or 1
  with hold(output), ENGINES[options.engine](workers, options.address) as engine:
    scores = open_scores(inputs, output, settings)
    with contextlib.closing(Counted('video')) as progress:
      shards.measure_all(
        inputs,
        scores,
        settings.measure,
        shards.Executor(engine, workers, settings.limits, progress),
        gate=gate_of(settings),
        limit=options.limit,
      )
    complete = not options.limit or len(scores.shards()) == len(scores)
    if complete:
      scores.finish()
    table, vectors = scores.table()
    selection = select(table, settings, vectors)
    looked = _look(selection, inputs, settings, pathlib.Path(output)) if complete else None
    selection = looked.selection if looked else selection
    _write(selection, looked, pathlib.Path(output))
    page = _report(selection, scores, settings, pathlib.Path(output))
    lines = [*describe(selection), *(looked.lines if looked else ()), printable(page)]
    if looked is None:
      costs = describe_costs(costs_of(table))
      return [*lines, *costs, _extrapolated(scores, workers)]
    if not looked.rows:
      return [*lines, 'no clip is left, so there is nothing to cut']
    if looked.unanswered:
      problem = f'nothing is cut while {looked.unanswered} clips have no answer of the endpoint'
      return [
        *lines,
        f'{problem}; {CAPTIONS}/answers/failed.jsonl says why, the same command asks again',
      ]
    if looked.waiting and settings.review.undecided == 'wait':
      return [*lines, f'nothing is cut while {looked.waiting} clips wait for launch.serve review']
    with contextlib.closing(Counted('clip')) as progress:
      cut = write_records(
        looked.rows,
        inputs,
        os.path.join(output, RECORDS),
        shards.Executor(engine, workers, settings.limits, progress),
        settings.cut,
      )
    outcome = f'{cut.rows} clips in {os.path.join(output, RECORDS)}, {cut.copied} without encoding'
    lines.append(printable(outcome))
    if cut.rejected:
      lines.append(f'{len(cut.rejected)} clips cannot be cut:')
      why = alike(clip.reason for clip in cut.rejected)
      lines += [f'  {count} x {printable(reason)}' for reason, count in why.items()]
    return lines


@dataclasses.dataclass(frozen=True)
class _Looked:
  """What captioners and people make of a selection.

  Attributes:
    selection: of what people leave.
    rows: of the clips that are kept, as they are cut.
    waiting: how many clips nobody has looked at.
    unanswered: how many have no caption since an endpoint has yet to answer.
    counts: for the funnel.
    lines: that say so.
  """

  selection: Selection
  rows: list[JSON]
  waiting: int
  unanswered: int
  counts: JSON
  lines: list[str]


def _look(
  selection: Selection, inputs: Inputs, settings: CurationSettings, output: pathlib.Path
) -> _Looked:
  """Writes captions, queues the clips for review, and applies the decisions of reviewers."""
  rows = selection.kept_rows((*candidates.COLUMNS, *CARRIED))
  with contextlib.closing(Counted('caption')) as progress:
    written = caption_clips(
      rows,
      inputs,
      output / CAPTIONS,
      settings.captions,
      allowance=settings.limits,
      progress=progress,
    )
  rows = [row | {'caption': caption or ''} for row, caption in zip(rows, written, strict=True)]
  candidates.write_candidates(output / REVIEW, rows, inputs, settings.keep.clip_seconds)
  decided = decisions.read_decisions(output / REVIEW / decisions.FILE)
  reviewed = decisions.review(rows, decided, settings.review.undecided)
  decided_count = len(rows) - reviewed.waiting
  if decided_count or any(reviewed.reasons):
    selection = selection.then(decisions.PEOPLE, reviewed.reasons)
  kept_clips = [
    row for row, reason in zip(reviewed.rows, reviewed.reasons, strict=True) if not reason
  ]
  limits = settings.keep.sound
  cut = [
    row | {'caption': compose(row, settings.captions, limits), MORE: carried(row, limits)}
    for row in kept_clips
  ]
  bare = sum(not row['caption'] for row in kept_clips)
  counts = {
    'captions': {'by': settings.captions.kind, 'kept': len(kept_clips), 'without': bare},
    'people': {
      'seen': decided_count,
      'waiting': reviewed.waiting,
      'trimmed': reviewed.trimmed,
      'corrected': reviewed.corrected,
    },
  }
  lines = [
    f'{len(kept_clips) - bare} of {len(kept_clips)} clips have a caption ({settings.captions.kind})'
  ]
  if decided_count:
    lines.append(
      f'people have seen {decided_count} of {len(rows)} clips: {reviewed.trimmed} are trimmed, '
      f'{reviewed.corrected} have another caption'
    )
  unanswered = written.count(None) if settings.captions.endpoint.get('model') else 0
  return _Looked(selection, cut, reviewed.waiting, unanswered, counts, lines)


def open_scores(
  inputs: Inputs, output: str | os.PathLike[str], settings: CurationSettings
) -> Scores:
  """Opens the scores of these videos by these settings, of which there may be some already."""
  identity = {'inputs': inputs.identity, 'measure': dataclasses.asdict(settings.measure)}
  return Scores(os.path.join(output, SCORES), identity, len(inputs), shards.VIDEOS_PER_SHARD)


def plan(settings: CurationSettings, inputs: Inputs, output: str | os.PathLike[str]) -> list[str]:
  """Says what `curate` would do, and does nothing."""
  shards.check_installed(settings.measure)
  if not os.path.isdir(output):
    return [f'{len(inputs)} videos to measure, none of them is measured yet']
  scores = open_scores(inputs, output, settings)
  done = sum(len(scores.places(index)) for index in scores.shards())
  if (table := scores.gated()) is not None:  # those that are let through now
    done -= int(gate_of(settings).opened(table).sum())
  return [f'{len(inputs)} videos, of which {done} are measured with these settings']


def describe(selection: Selection) -> list[str]:
  """Returns the funnel in lines of text."""
  clips = selection.clips
  lines = [f'{clips} clips measured']
  if unmeasured := selection.funnel()[UNMEASURED]:
    lines.append(f'{sum(unmeasured.values())} videos cannot be measured:')
    lines += [f'  {count} x {printable(why)}' for why, count in unmeasured.items()]
  width = max((len(step.name) for step in selection.steps), default=0)
  for step in selection.steps:
    if step.off:
      lines.append(f'{step.name:<{width}}  {step.off}')
      continue
    why = next(iter(step.reasons), '')
    share = step.kept / max(clips, 1)
    dropped = f', drops {step.before - step.kept}, as {printable(why)}' if why else ''
    lines.append(f'{step.name:<{width}}  {step.kept} left ({share:.2%}){dropped}')
  return lines


def _extrapolated(scores: Scores, workers: int) -> str:
  measured = sum(len(scores.places(index)) for index in scores.shards())
  hours = shards.estimate_hours(scores, workers)
  processes = f'{workers} worker' + 's' * (workers > 1)
  return (
    f'{measured} of {scores.videos} videos are measured; all take {hours:.2g} hours of '
    f'{processes}, and clips are cut when there is no --limit'
  )


def _write(selection: Selection, looked: _Looked | None, output: pathlib.Path) -> None:
  clips = selection.kept
  arrow = pyarrow()
  if looked is not None:
    for name in ('start', 'end', 'caption'):
      column = arrow.array([row[name] for row in looked.rows], clips.schema.field(name).type)
      clips = clips.set_column(clips.column_names.index(name), name, column)
    labels = arrow.array([row.get('labels') for row in looked.rows], arrow.list_(arrow.string()))
    clips = clips.append_column('labels', labels)
  write_bytes(output / KEPT, to_parquet(clips))
  write_bytes(output / DECISIONS, to_parquet(selection.decisions))
  write_json(output / FUNNEL, selection.funnel() | (looked.counts if looked else {}))


def _report(
  selection: Selection, scores: Scores, settings: CurationSettings, output: pathlib.Path
) -> pathlib.Path:
  def pictures(rows: Sequence[int], column: str) -> list[bytes | None]:
    some = selection.table.take(pyarrow().array(rows, pyarrow().int64()))
    return scores.pictures(some['place'].to_pylist(), some['clip'].to_pylist(), column)

  return write_page(selection, settings, output / REPORT, pictures)
