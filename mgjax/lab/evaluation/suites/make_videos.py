"""Makes all videos of a prompt suite (Movie Gen §3.5), and goes on where it was stopped."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mgjax.core.configuration.keys import JSON, Fields
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
_SHEET_FRAMES, _SHEET_SIDE = 16, 128  # of a video on the sheet, at most
_CONDITIONED = ('video',)  # kinds of suites whose fields are conditions of the model


@dataclasses.dataclass(frozen=True)
class SuiteSettings:
  """How a suite is made.

  Attributes:
    seed: of the noise of the first sample; sample k of each prompt has that of seed + k.
    samples: of each prompt.
    batch_size: videos, or windows of one, at a time.
    videos: of a sound suite, the folder of the videos that get sound.
    process: of those that work at once, this one, which makes each row of which the place is
      `process` modulo `processes`.
    processes: how many they are.
    request: more fields of the request of each row (`registry.Section.request`), such as `scale`.
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
class Made:
  """What a call has done.

  Attributes:
    directory: where the videos are.
    made: how many it made.
    kept: how many were there already, of the same prompts, seed, settings and weights.
    paths: what it wrote beside them: the suite, and once all are there sheets of some.
  """

  directory: pathlib.Path
  made: int
  kept: int
  paths: list[pathlib.Path]

  def __str__(self) -> str:
    """Says it in one line, for people."""
    return f'{self.directory}: {self.made} made, {self.kept} were there'


def run_suite(
  workdir: str | os.PathLike[str],
  suite: Suite,
  out: str | os.PathLike[str],
  settings: SuiteSettings = SuiteSettings(),
  *,
  component: str = '',
  **options: object,
) -> Made:
  """Makes a video, a soundtrack or an edit of each row of a suite, whatever the model is for.

  Files are called by the index of their row and a hash of its prompt, edits by that of their video.
  Beside each there is a json with everything needed to make it again, written last: what has one is
  not made again. The first sample of each prompt is in `out` itself and sample k in the folder
  sample_<k>, so that each folder has one video a prompt.

  Args:
    workdir: of the model. A video model makes the videos of a sound suite's video prompts.
    out: a folder.
    component: whose requests are made, such as 'editing' for SDEdit; by default the model's own.
    **options: of the model's pipeline: `mesh`, `steps`, `guidance`.

  Raises:
    ConfigError: the model does not make such, or what is in `out` was made otherwise; before
      anything is made.
    DataError: a file that is read is not there.
  """
  component = component or read_config(workdir).component
  row = find_component(component)
  if suite.kind not in row.suites:
    able = ' or '.join(name for name, each in COMPONENTS.items() if suite.kind in each.suites)
    raise ConfigError(
      f'{os.fspath(workdir)!r} is {row.noun}, and {suite.name} a suite of kind {suite.kind!r}; '
      f'name a run of the component {able}'
    )
  request = feature(component, 'request', 'can be sampled').get()
  of_row = getattr(request, 'of_row', None)  # makes the request of one row
  sounds = suite.kind == 'sound' and of_row is not None
  if sounds and not settings.videos:
    raise ConfigError('--videos is missing: the folder of the videos that get sound')
  if settings.videos and not sounds:
    raise ConfigError(f'--videos={settings.videos} is for models of sound; leave it out')
  pipeline = feature(component, 'load', 'can be loaded')(workdir, **options)
  directory = pathlib.Path(out)
  record = directory / FILE
  create(record, (json.dumps(suite.as_dict(), indent=2) + '\n').encode())
  there = read_json(record, mend='take another --out')
  if [there.get(key) for key in ('kind', 'rows')] != [suite.kind, suite.as_dict()['rows']]:
    raise ConfigError(f'{directory} holds videos of another suite; take another --out')
  about = plain(pipeline.provenance) | {'fingerprint': digest_of(workdir)}
  job = _Job(pipeline, request, about, suite, settings)
  folders = [directory / f'sample_{k}' if k else directory for k in range(settings.samples)]
  make = _in_batches if of_row is None else _one_by_one
  works = [make(job, folder, settings.seed + k) for k, folder in enumerate(folders)]
  made = sum(1 for work in works for _ in work.make())
  kept = sum(work.kept for work in works)
  return Made(directory, made, kept, [record, *_write_sheets(directory, suite.rows, pipeline)])


def export_vbench(
  directory: str | os.PathLike[str], out: str | os.PathLike[str], suite: Suite | None = None
) -> tuple[int, list[str]]:
  """Writes the videos of a suite as VBench wants them: videos/<prompt>-<sample>.mp4.

  Beside that folder, which holds nothing else, prompts.json says which prompt each video is of; it
  is VBench's --prompt_file.

  Args:
    directory: that `run_suite` wrote, or of videos of `suite` by index.
    out: a folder; files of it are links where the disk allows.
    suite: of the videos, if `directory` does not say.

  Returns:
    How many videos there are, and the prompts that the names of files do not say in full.

  Raises:
    DataError: a video is missing.
    ConfigError: there are other videos in `out`.
  """
  suite = suite or read_suite(directory)
  directory = pathlib.Path(directory)
  samples = sorted(directory.glob('sample_*'), key=lambda path: (len(path.name), path.name))
  found = [find_videos(folder, suite) for folder in (directory, *samples)]
  places = range(len(suite.rows))
  if missing := [place for videos in found for place in places if place not in videos]:
    raise DataError(
      f'{directory} lacks {len(missing)} videos of {suite.name}, first of prompt '
      f'{suite.rows[missing[0]].index}; run launch.sample suite to its end'
    )
  files = [videos[place] for place in places for videos in found]
  prompts = [suite.rows[place].prompt for place in places for _ in found]
  names = video_names(prompts, [file.suffix for file in files])
  target = pathlib.Path(out) / 'videos'
  target.mkdir(parents=True, exist_ok=True)
  if others := sorted({each.name for each in target.iterdir()} - {*names}):
    raise ConfigError(f'{target} holds {others[0]!r} and would be mixed up; take another --out')
  for file, name in track(zip(files, names, strict=True), len(files), 'video'):
    _link(file, target / name)
  write_json(target.with_name('prompts.json'), dict(zip(names, prompts, strict=True)))
  told = zip(names, prompts, strict=True)
  return len(names), list(dict.fromkeys(p for name, p in told if not name.startswith(f'{p}-')))


def import_vbench(
  results: str | os.PathLike[str], out: str | os.PathLike[str]
) -> tuple[str, list[pathlib.Path]]:
  """Reads what VBench wrote, and writes it as a table (vbench.md) and as vbench.json.

  Args:
    results: a file of results, or a folder with files of several dimensions.
    out: a folder.

  Returns:
    The table, and what was written.

  Raises:
    DataError: it cannot be read.
  """
  found = read_results(results)
  table = results_table(found)
  paths = [pathlib.Path(out) / f'vbench.{kind}' for kind in ('md', 'json')]
  write_bytes(paths[0], f'{table}\n'.encode())
  told = {name: {'score': score, 'mean': mean.as_dict()} for name, score, mean in found}
  write_json(paths[1], {'results': os.fspath(results), 'dimensions': told})
  return table, paths


def plain(value: object) -> Any:
  """Returns a value as JSON gives it back."""
  return json.loads(json.dumps(value))


@dataclasses.dataclass(frozen=True)
class _Job:
  pipeline: Any
  request: type[Request]
  about: JSON  # what all that is made was made with
  suite: Suite
  settings: SuiteSettings

  def places(self) -> range:
    """Returns the places of the rows of this process."""
    return range(len(self.suite.rows))[self.settings.process :: self.settings.processes]


@dataclasses.dataclass(frozen=True)
class _Work:
  """One folder's work: how many files are there already, and what makes the others."""

  kept: int
  make: Callable[[], Iterator[pathlib.Path]]


def _in_batches(job: _Job, folder: pathlib.Path, seed: int) -> _Work:
  """Makes videos, of which those of several rows come out of one call of the model."""
  pipeline = job.pipeline
  rows = [job.suite.rows[at] for at in job.places()]
  like = job.request([row.prompt for row in rows], folder, **job.settings.request)
  prompts = like.prompts
  shape = (like.frames or pipeline.default_shape[0],)
  shape += tuple(like.size or pipeline.default_shape[1:])
  kind = '.mp4' if shape[0] > 1 else '.png'
  scale = like.scale or viewing_scale(*shape[1:])
  told = [dict(row.fields) if job.suite.kind in _CONDITIONED else {} for row in rows]
  asked = [
    {
      'index': row.index,
      'prompt': prompt,
      'seed': seed,
      'fps': rate,
      'frames': shape[0],
      'height': shape[1],
      'width': shape[2],
      'scale': scale,
      'conditions': describe_conditions({**like.conditions, **more}),
      **({'negative': like.negative} if like.negative else {}),
    }
    for row, prompt, rate, more in zip(
      rows, prompts, pipeline.frame_rates(prompts, like.fps), told, strict=True
    )
  ]
  left = _left(job, [folder / f'{row.file}{kind}' for row in rows], asked)

  def make() -> Iterator[pathlib.Path]:
    places = list(left)
    words = pipeline.tell([prompts[at] for at in places], [asked[at]['fps'] for at in places])
    names = sorted({name for at in places for name in told[at]})
    made = pipeline.stream(
      [prompts[at] for at in places],
      seed=seed,
      first=[rows[at].index for at in places],
      shape=shape,
      fps=like.fps,
      batch_size=job.settings.batch_size,
      negative=like.negative,
      **{**like.conditions, **{name: [told[at].get(name) for at in places] for name in names}},
    )
    for at, unknown, video in zip(places, words, made, strict=True):
      path, wanted = left[at]
      digest = hashlib.sha256(video.tobytes()).hexdigest()[:16]
      shown, repeats = release.postprocess_enlarged(video, scale)
      write_clip(path, shown, asked[at]['fps'], repeats)
      release.sign([path])
      write_json(path.with_suffix('.json'), wanted | {'unknown_words': unknown, 'pixels': digest})
      yield path

  return _Work(len(rows) - len(left), make if left else lambda: iter(()))


def _one_by_one(job: _Job, folder: pathlib.Path, seed: int) -> _Work:
  """Makes soundtracks or edits, each by a request of its own."""
  places = job.places()
  rows = job.suite.rows
  options = {'seed': seed, 'batch_size': job.settings.batch_size, **job.settings.request}
  given: dict[int, dict[str, str]] = {at: {} for at in places}
  if job.settings.videos:
    videos = find_videos(job.settings.videos, job.suite)
    if missing := [at for at in places if at not in videos]:
      raise DataError(f'{job.settings.videos}: has no video of prompt {rows[missing[0]].index}')
    given = {at: {'video': os.fspath(videos[at])} for at in places}
  requests = [
    job.request.of_row(job.pipeline, rows[at], folder, **options, **given[at]) for at in places
  ]
  asked = [
    {'index': rows[at].index, 'request': request.described(job.pipeline)}
    for at, request in zip(places, requests, strict=True)
  ]
  left = _left(job, [pathlib.Path(request.out) for request in requests], asked)

  def make() -> Iterator[pathlib.Path]:
    for at, (path, wanted) in track(left.items(), len(left), 'row'):
      *_, record = requests[at].write(job.pipeline)
      write_json(record, read_json(record) | wanted)
      yield path

  return _Work(len(requests) - len(left), make)


def _left(
  job: _Job, paths: Sequence[pathlib.Path], asked: Sequence[JSON]
) -> dict[int, tuple[pathlib.Path, JSON]]:
  """Returns what is still to be made: place -> file and what its json has to say.
  Raises ConfigError if a file was made otherwise.
  """
  left = {}
  for at, (path, more) in enumerate(zip(paths, asked, strict=True)):
    wanted = job.about | plain(more)
    made = read_optional_json(path.with_suffix('.json'), lambda record: 'fingerprint' in record)
    if made is None or not path.exists():
      left[at] = path, wanted
      continue
    # The fingerprint says which weights they are, wherever they lie.
    same = (key for key in wanted if key != 'weights' and made.get(key) != wanted[key])
    if changed := next(same, None):
      raise ConfigError(f'{path} was made with other {changed}; take another --out, or delete it')
  unfinished = {path.name for path, _ in left.values()}
  for place in {path.parent for path, _ in left.values()}:
    for part in place.glob('.*'):  # that a killed process had begun to write
      if part.name[1:].rpartition('.')[0] in unfinished:
        part.unlink(missing_ok=True)
  return left


def _write_sheets(
  directory: pathlib.Path, rows: Sequence[Row], pipeline: object
) -> list[pathlib.Path]:
  """Draws some videos, once those of all rows are there."""
  there = {path.stem: path for path in directory.glob('[0-9]*') if path.suffix in ('.mp4', '.png')}
  if not all(row.file in there for row in rows):
    return []
  videos = []
  titles = []
  rates = []
  for at in evenly(len(rows), min(SHEET_ROWS, len(rows))):
    path = there[rows[at].file]
    info = probe(path)
    frames = min(info.frames, _SHEET_FRAMES)
    rates.append(info.fps * frames / info.frames)
    least = min(_SHEET_SIDE, info.height, info.width)
    size = cover_size(info.height, info.width, (least, least))
    videos.append(read_clip(path, frames=frames, size=size, fps=rates[-1]))
    titles.append(rows[at].prompt)
  return write_sheets(directory / 'sheet.png', videos, titles, rates)


def _link(file: pathlib.Path, place: pathlib.Path) -> None:
  """Gives a file a second name, or copies it where the disk has no such names."""
  place.unlink(missing_ok=True)
  try:
    os.link(file, place)
  except OSError:
    shutil.copyfile(file, place)
