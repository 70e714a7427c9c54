"""Generates all videos of a prompt suite (Movie Gen §3.5), and resumes an interrupted run."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import create, read_json, read_optional_json, write_bytes, write_json
from mgjax.core.settings import Count, Positive, check
from mgjax.data.clips import evenly
from mgjax.data.media.provenance import release
from mgjax.data.media.video import cover_size, probe, read_clip
from mgjax.data.media.viewing import viewing_scale, write_clip, write_sheets
from mgjax.lab.evaluation.suites.score import find_videos
from mgjax.lab.evaluation.suites.suite import FILE, Row, Suite, read_suite
from mgjax.lab.evaluation.suites.vbench import read_results, results_table, video_names
from mgjax.registry import COMPONENTS, feature, find_component
from mgjax.sections.flow.requests import Request, describe_conditions
from mgjax.training.checkpoints.load_params import digest_of
from mgjax.training.checkpoints.workdir import read_config
from mgjax.training.monitoring.progress import track

SHEET_ROWS = 32
_SHEET_FRAMES = 16  # of a video on the sheet, at most
_SHEET_SIDE = 128  # pixels of its shorter side, at most
_CONDITIONED = ('video',)  # kinds of suites whose fields are the model's conditions


@dataclasses.dataclass(frozen=True)
class SuiteSettings:
  """How to generate the videos of a suite.

  Attributes:
    seed: of the noise of the first sample; sample k of each prompt uses seed + k.
    samples: number of samples of each prompt.
    batch_size: videos, or windows of one, at a time.
    videos: for a sound suite, the folder of the videos that get sound.
    process: index of this process, which makes the rows at positions `process` modulo `processes`.
    processes: number of processes that share the suite.
    request: more fields of the request of each row (`registry.Component.request`), such as `scale`.
  """

  seed: Count = 0
  samples: Positive = 1
  batch_size: Positive = 16
  videos: str = ''
  process: Count = 0
  processes: Positive = 1
  request: Fields = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check(self)
    if self.process >= self.processes:
      raise ConfigError(
        f'process = {self.process}: {self.processes} processes are called 0 to {self.processes - 1}'
      )


@dataclasses.dataclass(frozen=True)
class SuiteResult:
  """The result of a call of `run_suite`.

  Attributes:
    directory: folder of the videos.
    created: number of new videos.
    existing: number of earlier videos with the same prompts, seed, settings and weights.
    paths: other written files: the suite, and sheets of some videos once all rows have one.
  """

  directory: pathlib.Path
  created: int
  existing: int
  paths: list[pathlib.Path]

  def __str__(self) -> str:
    """Formats the result in one line."""
    return f'{self.directory}: {self.created} made, {self.existing} were there'


def run_suite(
  workdir: str | os.PathLike[str],
  suite: Suite,
  out: str | os.PathLike[str],
  settings: SuiteSettings = SuiteSettings(),
  *,
  component: str = '',
  **options: Any,
) -> SuiteResult:
  """Generates a video, a soundtrack or an edit for each row of a suite, depending on the model.

  File names have the index of the row and a hash of its prompt; those of edits the index of their
  video. Beside each file a .json holds everything needed to reproduce it. It is written last, and
  files that have one are skipped. The first sample of each prompt is in `out` itself and sample k
  in the folder sample_<k>, so that each folder has one video a prompt.

  Args:
    workdir: of the model. For a sound suite a video model generates videos of the video prompts.
    out: a folder.
    component: the component of the requests, such as 'editing' for SDEdit; by default the model's.
    **options: of the model's pipeline: `mesh`, `steps`, `guidance`.

  Raises:
    ConfigError: the model cannot make such a suite, or `out` has results of other settings. Raised
      before anything is generated.
    DataError: an input file is missing.
  """
  component = component or read_config(workdir).component
  row = find_component(component)
  if suite.kind not in row.suites:
    able = ' or '.join(name for name, entry in COMPONENTS.items() if suite.kind in entry.suites)
    raise ConfigError(
      f'{os.fspath(workdir)!r} is {row.noun}, and {suite.name} a suite of kind {suite.kind!r}; '
      f'name a run of the component {able}'
    )
  request = feature(component, 'request', 'can be sampled').get()
  of_row = getattr(request, 'of_row', None)  # builds the request of one row
  sounds = suite.kind == 'sound' and of_row is not None
  if sounds and not settings.videos:
    raise ConfigError('--videos is missing: the folder of the videos that get sound')
  if settings.videos and not sounds:
    raise ConfigError(f'--videos={settings.videos} is for models of sound; leave it out')
  pipeline = feature(component, 'load', 'can be loaded')(workdir, **options)
  directory = pathlib.Path(out)
  record = directory / FILE
  create(record, (json.dumps(suite.as_dict(), indent=2) + '\n').encode())
  recorded = read_json(record, mend='take another --out')
  if [recorded.get(key) for key in ('kind', 'rows')] != [suite.kind, suite.as_dict()['rows']]:
    raise ConfigError(f'{directory} holds videos of another suite; take another --out')
  about = plain(pipeline.provenance) | {'fingerprint': digest_of(workdir)}
  job = _Job(pipeline, request, about, suite, settings)
  folders = [directory / f'sample_{k}' if k else directory for k in range(settings.samples)]
  make = _in_batches if of_row is None else _one_by_one
  works = [make(job, folder, settings.seed + k) for k, folder in enumerate(folders)]
  created = sum(1 for work in works for _ in work.make())
  existing = sum(work.existing for work in works)
  return SuiteResult(
    directory, created, existing, [record, *_write_sheets(directory, suite.rows, pipeline)]
  )


def export_vbench(
  directory: str | os.PathLike[str], out: str | os.PathLike[str], suite: Suite | None = None
) -> tuple[int, list[str]]:
  """Exports the videos of a suite in VBench's layout: videos/<prompt>-<sample>.mp4.

  The folder videos/ holds nothing else. prompts.json beside it maps each video to its prompt; pass
  it to VBench as --prompt_file.

  Args:
    directory: of `run_suite`, or a folder of videos of `suite` by index.
    out: a folder; its files are hard links if the file system supports them.
    suite: of the videos, if `directory` has no suite.json.

  Returns:
    The number of videos, and the prompts that are shortened or changed in file names.

  Raises:
    DataError: a video is missing.
    ConfigError: `out` holds other videos.
  """
  suite = suite or read_suite(directory)
  directory = pathlib.Path(directory)
  samples = sorted(directory.glob('sample_*'), key=lambda path: (len(path.name), path.name))
  videos_by_sample = [find_videos(folder, suite) for folder in (directory, *samples)]
  positions = range(len(suite.rows))
  if missing := [
    position for videos in videos_by_sample for position in positions if position not in videos
  ]:
    raise DataError(
      f'{directory} lacks {len(missing)} videos of {suite.name}, first of prompt '
      f'{suite.rows[missing[0]].index}; run launch.sample suite to its end'
    )
  files = [videos[position] for position in positions for videos in videos_by_sample]
  prompts = [suite.rows[position].prompt for position in positions for _ in videos_by_sample]
  names = video_names(prompts, [file.suffix for file in files])
  target = pathlib.Path(out) / 'videos'
  target.mkdir(parents=True, exist_ok=True)
  if others := sorted({path.name for path in target.iterdir()} - {*names}):
    raise ConfigError(f'{target} holds {others[0]!r} and would be mixed up; take another --out')
  for file, name in track(zip(files, names, strict=True), len(files), 'video'):
    _link(file, target / name)
  write_json(target.with_name('prompts.json'), dict(zip(names, prompts, strict=True)))
  named = zip(names, prompts, strict=True)
  return len(names), list(dict.fromkeys(p for name, p in named if not name.startswith(f'{p}-')))


def import_vbench(
  results: str | os.PathLike[str], out: str | os.PathLike[str]
) -> tuple[str, list[pathlib.Path]]:
  """Imports VBench's results and writes them as a table (vbench.md) and as vbench.json.

  Args:
    results: a file of results, or a folder with files of several dimensions.
    out: a folder.

  Returns:
    The table, and the written files.

  Raises:
    DataError: the results cannot be read.
  """
  dimensions = read_results(results)
  table = results_table(dimensions)
  paths = [pathlib.Path(out) / f'vbench.{kind}' for kind in ('md', 'json')]
  write_bytes(paths[0], f'{table}\n'.encode())
  scores = {name: {'score': score, 'mean': mean.as_dict()} for name, score, mean in dimensions}
  write_json(paths[1], {'results': os.fspath(results), 'dimensions': scores})
  return table, paths


def plain(value: Any) -> Any:
  """Returns a value after a round trip through JSON."""
  return json.loads(json.dumps(value))


@dataclasses.dataclass(frozen=True)
class _Job:
  pipeline: Any
  request: type[Request]
  about: dict[str, Any]  # provenance of all videos
  suite: Suite
  settings: SuiteSettings

  def positions(self) -> range:
    """Returns the positions of the rows of this process."""
    return range(len(self.suite.rows))[self.settings.process :: self.settings.processes]


@dataclasses.dataclass(frozen=True)
class _Work:
  """One folder's work: the number of existing files, and a function that makes the others."""

  existing: int
  make: Callable[[], Iterator[pathlib.Path]]


def _in_batches(job: _Job, folder: pathlib.Path, seed: int) -> _Work:
  """Returns the work of a video model, which generates several rows in one call."""
  pipeline = job.pipeline
  rows = [job.suite.rows[at] for at in job.positions()]
  like = job.request([row.prompt for row in rows], folder, **job.settings.request)
  prompts = like.prompts
  shape = (like.frames or pipeline.default_shape[0],)
  shape += tuple(like.size or pipeline.default_shape[1:])
  kind = '.mp4' if shape[0] > 1 else '.png'
  scale = like.scale or viewing_scale(*shape[1:])
  conditions = [dict(row.fields) if job.suite.kind in _CONDITIONED else {} for row in rows]
  records = [
    {
      'index': row.index,
      'prompt': prompt,
      'seed': seed,
      'fps': rate,
      'frames': shape[0],
      'height': shape[1],
      'width': shape[2],
      'scale': scale,
      'conditions': describe_conditions({**like.conditions, **extra}),
      **({'negative': like.negative} if like.negative else {}),
    }
    for row, prompt, rate, extra in zip(
      rows, prompts, pipeline.frame_rates(prompts, like.fps), conditions, strict=True
    )
  ]
  pending = _pending(job, [folder / f'{row.file}{kind}' for row in rows], records)

  def make() -> Iterator[pathlib.Path]:
    positions = list(pending)
    words = pipeline.tell(
      [prompts[at] for at in positions], [records[at]['fps'] for at in positions]
    )
    names = sorted({name for at in positions for name in conditions[at]})
    videos = pipeline.stream(
      [prompts[at] for at in positions],
      seed=seed,
      first=[rows[at].index for at in positions],
      shape=shape,
      fps=like.fps,
      batch_size=job.settings.batch_size,
      negative=like.negative,
      **{
        **like.conditions,
        **{name: [conditions[at].get(name) for at in positions] for name in names},
      },
    )
    for at, unknown, video in zip(positions, words, videos, strict=True):
      path, fields = pending[at]
      digest = hashlib.sha256(video.tobytes()).hexdigest()[:16]
      frames, repeats = release.postprocess_enlarged(video, scale)
      write_clip(path, frames, records[at]['fps'], repeats)
      release.sign([path])
      write_json(path.with_suffix('.json'), fields | {'unknown_words': unknown, 'pixels': digest})
      yield path

  return _Work(len(rows) - len(pending), make if pending else lambda: iter(()))


def _one_by_one(job: _Job, folder: pathlib.Path, seed: int) -> _Work:
  """Returns the work of soundtracks or edits, with one request a row."""
  positions = job.positions()
  rows = job.suite.rows
  options = {'seed': seed, 'batch_size': job.settings.batch_size, **job.settings.request}
  inputs: dict[int, dict[str, str]] = {at: {} for at in positions}
  if job.settings.videos:
    videos = find_videos(job.settings.videos, job.suite)
    if missing := [at for at in positions if at not in videos]:
      raise DataError(f'{job.settings.videos}: has no video of prompt {rows[missing[0]].index}')
    inputs = {at: {'video': os.fspath(videos[at])} for at in positions}
  requests = [
    job.request.of_row(job.pipeline, rows[at], folder, **options, **inputs[at]) for at in positions
  ]
  records = [
    {'index': rows[at].index, 'request': request.described(job.pipeline)}
    for at, request in zip(positions, requests, strict=True)
  ]
  pending = _pending(job, [pathlib.Path(request.out) for request in requests], records)

  def make() -> Iterator[pathlib.Path]:
    for at, (path, fields) in track(pending.items(), len(pending), 'row'):
      *_, record = requests[at].write(job.pipeline)
      write_json(record, read_json(record) | fields)
      yield path

  return _Work(len(requests) - len(pending), make)


def _pending(
  job: _Job, paths: Sequence[pathlib.Path], records: Sequence[dict[str, Any]]
) -> dict[int, tuple[pathlib.Path, dict[str, Any]]]:
  """Returns the missing files: position -> path and the fields of its json.

  Raises ConfigError if a file was made with other settings.
  """
  pending = {}
  for at, (path, fields) in enumerate(zip(paths, records, strict=True)):
    expected = job.about | plain(fields)
    existing = read_optional_json(path.with_suffix('.json'), lambda record: 'fingerprint' in record)
    if existing is None or not path.exists():
      pending[at] = path, expected
      continue
    # The fingerprint identifies the weights, whatever their path.
    same = (key for key in expected if key != 'weights' and existing.get(key) != expected[key])
    if changed := next(same, None):
      raise ConfigError(f'{path} was made with other {changed}; take another --out, or delete it')
  unfinished = {path.name for path, _ in pending.values()}
  for folder in {path.parent for path, _ in pending.values()}:
    for part in folder.glob('.*'):  # partial file of a killed process
      if part.name[1:].rpartition('.')[0] in unfinished:
        part.unlink(missing_ok=True)
  return pending


def _write_sheets(
  directory: pathlib.Path, rows: Sequence[Row], pipeline: object
) -> list[pathlib.Path]:
  """Draws some videos, once all rows have one."""
  paths = {path.stem: path for path in directory.glob('[0-9]*') if path.suffix in ('.mp4', '.png')}
  if not all(row.file in paths for row in rows):
    return []
  videos = []
  titles = []
  rates = []
  for at in evenly(len(rows), min(SHEET_ROWS, len(rows))):
    path = paths[rows[at].file]
    info = probe(path)
    frames = min(info.frames, _SHEET_FRAMES)
    rates.append(info.fps * frames / info.frames)
    least = min(_SHEET_SIDE, info.height, info.width)
    size = cover_size(info.height, info.width, (least, least))
    videos.append(read_clip(path, frames=frames, size=size, fps=rates[-1]))
    titles.append(rows[at].prompt)
  return write_sheets(directory / 'sheet.png', videos, titles, rates)


def _link(file: pathlib.Path, target: pathlib.Path) -> None:
  """Creates a hard link, or a copy if the file system has no hard links."""
  target.unlink(missing_ok=True)
  try:
    os.link(file, target)
  except OSError:
    shutil.copyfile(file, target)
