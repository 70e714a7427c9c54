"""Trackers: where metrics of a run go beside `metrics.jsonl`, by three calls: start, log, finish.

`config.train.trackers` names those of `TRACKERS`. Your own is a subclass of `Tracker` in
`mgjax.train(..., trackers=[mine])`. `RunLog` writes `metrics.jsonl` first, and a tracker that
starts says what it already holds of a run. What it lost at a kill, or never saw, is sent again from
there; what it holds is not sent twice. By default nothing leaves the machine.
"""

import functools
import importlib.util
import io
import logging
import os
import pathlib
import queue
import re
import struct
import threading
import time
import uuid
import wave
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import PIL.Image

from mgjax.core.configuration.keys import Fields, flatten
from mgjax.core.errors import ConfigError, first_line
from mgjax.core.files import create, read_json
from mgjax.data.media.video import stream_frames
from mgjax.training.monitoring.metrics import JsonLines, read_metrics

MediaFiles = Mapping[str, pathlib.Path]  # name -> .png, .mp4 or .wav
Held = set[tuple[int, str]]  # step and name of a metric or a file
PROJECT = 'mgjax'
IDENTITY = 'trackers.json'
_SHOWN = ('.png', '.mp4', '.wav')
_PATIENCE = 60.0  # seconds for a tracker to end in
_LONGEST, _NAME = 6000, 250  # characters of a value and of a name, by MLflow's limits

_log = logging.getLogger(__name__)


class Run(NamedTuple):
  """What a tracker receives of a run, in every process the same except for `step`."""

  workdir: pathlib.Path
  name: str
  id: str
  config: Fields
  step: int  # from which this process goes on; 0 at the beginning


class Tracker:
  """Receives what a run measures and makes, in a thread of its own, behind the training.

  Whatever it raises ends itself and not the run.
  """

  extra = ''  # of mgjax, also the name of its package

  def start(self, run: Run) -> Held | None:
    """Begins or goes on; returns what it holds of the run, or None to hear of new steps alone."""

  def log(self, step: int, metrics: Mapping[str, float], files: MediaFiles) -> None:
    """Takes metrics, and files of pictures, videos and audio, of one step."""

  def finish(self) -> None:
    """Writes out what is held back, and ends."""

  def named(self, name: str) -> str:
    """Returns the name by which it holds a metric or a file."""
    return name


class TensorBoard(Tracker):
  """Writes event files of TensorBoard, which need no other process, by tensorboardX.

  Its own writer has a thread, which a full disk ends: then the next event waits for ever.
  """

  def start(self, run: Run) -> Held | None:
    """Begins another file beside those of earlier processes."""
    from tensorboardX import event_file_writer, summary  # slow to import
    from tensorboardX.proto import event_pb2, summary_pb2

    self._scalar = summary.scalar
    # protobuf makes these classes at import.
    self._event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
    self._kinds = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
    folder = run.workdir / 'tensorboard'
    held = set()
    for path in sorted(folder.glob('events*')):
      for event in map(self._event.FromString, _event_records(path.read_bytes())):
        if event.HasField('session_log'):  # what is of later steps does not count
          held = {(step, tag) for step, tag in held if step < event.step}
        held |= {(event.step, value.tag) for value in event.summary.value}
    folder.mkdir(parents=True, exist_ok=True)
    self._file = event_file_writer.EventsWriter(os.fspath(folder / 'events'))
    return held

  def log(self, step: int, metrics: Mapping[str, float], files: MediaFiles) -> None:
    """Writes scalars, pictures as they are, videos as animations, audio as it is."""
    for name, value in metrics.items():
      self._write(step, summary=self._scalar(name, value))
    for name, path in files.items():
      self._write(step, summary=self._kinds(value=[_shown(self._kinds, name, path)]))
    self._file.flush()

  def finish(self) -> None:
    """Closes the file."""
    self._file.close()

  def _write(self, step: int, **what: object) -> None:
    self._file.write_event(self._event(wall_time=time.time(), step=step, **what))


def _event_records(data: bytes) -> Iterator[bytes]:
  """Yields the records of an event file, between checksums; a kill may cut the last."""
  at = 0
  while at + 12 <= len(data):
    (size,) = struct.unpack_from('<Q', data, at)
    if (end := at + 12 + size) + 4 <= len(data):
      yield data[at + 12 : end]
    at = end + 4


def _shown(kinds: Any, name: str, path: pathlib.Path) -> object:
  """Makes a value of TensorBoard's summary of a file."""
  if path.suffix == '.wav':
    with wave.open(os.fspath(path)) as sound:
      about = {'sample_rate': sound.getframerate(), 'num_channels': sound.getnchannels()}
      about |= {'length_frames': sound.getnframes(), 'content_type': 'audio/wav'}
    return kinds.Value(tag=name, audio=kinds.Audio(encoded_audio_string=path.read_bytes(), **about))
  data = path.read_bytes()
  if path.suffix == '.mp4':
    first, *others = (PIL.Image.fromarray(frame) for _, _, frame in stream_frames(path))
    data = io.BytesIO()
    first.save(data, 'gif', save_all=True, append_images=others, duration=125, loop=0)
    data = data.getvalue()
  with PIL.Image.open(io.BytesIO(data)) as picture:
    size = {'width': picture.width, 'height': picture.height, 'colorspace': 3}
  return kinds.Value(tag=name, image=kinds.Image(encoded_image_string=data, **size))


class Trackio(Tracker):
  """Hugging Face's tracker: SQLite where `trackio show` looks, or in $TRACKIO_DIR."""

  extra = 'trackio'

  def start(self, run: Run) -> Held | None:
    """Goes on with the run of this name, if there is one."""
    import trackio  # pyright: ignore[reportMissingImports]
    from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

    self._kinds = {'.png': trackio.Image, '.mp4': trackio.Video, '.wav': trackio.Audio}
    rows = SQLiteStorage.get_logs(PROJECT, f'{run.name}-{run.id}')
    self._run = trackio.init(
      project=PROJECT,
      name=f'{run.name}-{run.id}',
      resume='allow',
      embed=False,
      config=flatten(run.config),
    )
    return {(row['step'], name) for row in rows for name in row}

  def log(self, step: int, metrics: Mapping[str, float], files: MediaFiles) -> None:
    """Logs both."""
    media = {name: self._kinds[path.suffix](path) for name, path in files.items()}
    self._run.log({**metrics, **media}, step=step)

  def finish(self) -> None:
    """Waits for what is under way."""
    self._run.finish()


class WeightsAndBiases(Tracker):
  """wandb: files in the work directory that `wandb sync` sends; WANDB_MODE=online sends at once.

  A row of its history has our step as 'step', which is the axis of all charts.
  """

  extra = 'wandb'

  def start(self, run: Run) -> Held | None:
    """Goes on with the run of this id; what it holds is in the files of earlier processes."""
    import wandb  # pyright: ignore[reportMissingImports]

    self._kinds = {'.png': wandb.Image, '.wav': wandb.Audio}
    self._kinds['.mp4'] = functools.partial(wandb.Video, format='mp4')
    held = set(_wandb_rows(run))
    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT', PROJECT),
      id=run.id,
      name=run.name,
      resume='allow',
      dir=run.workdir,
      config=dict(run.config),
      mode=os.environ.get('WANDB_MODE', 'offline'),
      settings=wandb.Settings(console='off', silent=True),
    )
    self._run.define_metric('*', step_metric='step')
    return held

  def log(self, step: int, metrics: Mapping[str, float], files: MediaFiles) -> None:
    """Logs both in one row."""
    media = {name: self._kinds[path.suffix](os.fspath(path)) for name, path in files.items()}
    self._run.log({'step': step, **metrics, **media})

  def finish(self) -> None:
    """Waits for what is under way."""
    self._run.finish()


def _wandb_rows(run: Run) -> Iterator[tuple[int, str]]:
  """Yields steps and metric names in the files that wandb wrote for a run."""
  from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

  for path in sorted(run.workdir.glob(f'wandb/*-{run.id}/run-{run.id}.wandb')):
    for data in _level_records(path.read_bytes()):
      items = Record.FromString(data).history.item
      names = {item.key or item.nested_key[0]: item.value_json for item in items}
      if 'step' in names:
        yield from ((int(float(names['step'])), name) for name in names)


def _level_records(data: bytes, block: int = 2**15, head: int = 7) -> Iterator[bytes]:
  """Yields the records of a log of LevelDB, in which wandb keeps a run; a kill may cut the last."""
  # the file has a head as long as that of a record: crc, size, kind
  at = head
  parts = b''
  while at + head <= len(data):
    if block - at % block < head:
      at += block - at % block
      continue
    size, kind = struct.unpack_from('<HB', data, at + 4)
    piece = data[at + head : at + head + size]
    at = at + head + size
    if len(piece) < size:
      return
    parts = piece if kind in (1, 2) else parts + piece
    if kind in (1, 4):  # whole, or the last of its pieces
      yield parts


class MLflow(Tracker):
  """MLflow: SQLite in the work directory, or what MLFLOW_TRACKING_URI names."""

  extra = 'mlflow'

  def start(self, run: Run) -> Held | None:
    """Goes on with the run of this id, if there is one."""
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
    from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

    folder = (run.workdir / 'mlflow').absolute()
    folder.mkdir(parents=True, exist_ok=True)
    uri = os.environ.get('MLFLOW_TRACKING_URI', f'sqlite:///{folder / "runs.db"}')
    self._client = MlflowClient(uri)
    self._metric = Metric
    name = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
    if experiment := self._client.get_experiment_by_name(name):
      where = experiment.experiment_id
    else:
      location = None if 'MLFLOW_TRACKING_URI' in os.environ else (folder / 'files').as_uri()
      where = self._client.create_experiment(name, artifact_location=location)
    runs = self._client.search_runs([where], f"tags.mgjax = '{run.id}'")
    if not runs:
      runs = [self._client.create_run(where, run_name=run.name, tags={'mgjax': run.id})]
      # Transactions of a hundred, and not one each; longer values are not taken everywhere.
      fields = flatten(run.config).items()
      rows = [Param(self.named(key), str(value)[:_LONGEST]) for key, value in fields]
      self._client.log_batch(runs[0].info.run_id, params=rows)
    self._id = runs[0].info.run_id
    self._client.update_run(self._id, status='RUNNING')
    return {
      (metric.step, name)
      for name in runs[0].data.metrics
      for metric in self._client.get_metric_history(self._id, name)
    }

  def log(self, step: int, metrics: Mapping[str, float], files: MediaFiles) -> None:
    """Logs metrics in one transaction, and files as artifacts, which replace those of a name."""
    now = int(time.time() * 1000)
    rows = [self._metric(name, value, now, step) for name, value in metrics.items()]
    self._client.log_batch(self._id, metrics=rows)
    for path in files.values():
      self._client.log_artifact(self._id, os.fspath(path), f'samples/step_{step:06d}')

  def finish(self) -> None:
    """Ends the run, which a later process may begin again."""
    self._client.set_terminated(self._id)

  def named(self, name: str) -> str:
    """Returns a name that MLflow takes: others end its whole batch."""
    plain = re.sub(r'[^\w\-. :/]', lambda odd: f'_{ord(odd[0]):x}_', name, flags=re.ASCII)
    plain = re.sub(
      r'(^|/)(\.*)(?=/|$)', lambda part: f'{part[1]}{part[2].replace(".", "_") or "_"}', plain
    )
    return (
      plain if len(plain) <= _NAME else f'{plain[: _NAME - 9]}_{zlib.crc32(plain.encode()):08x}'
    )


TRACKERS: dict[str, type[Tracker]] = {
  'tensorboard': TensorBoard,
  'trackio': Trackio,
  'wandb': WeightsAndBiases,
  'mlflow': MLflow,
}


def make_trackers(names: Sequence[str]) -> list[Tracker]:
  """Makes trackers of their names. Raises ConfigError for one that is not there."""
  for name in names:
    if name not in TRACKERS:
      raise ConfigError(
        f'train.trackers has {name!r}; expected some of {", ".join(TRACKERS)}, or () for none'
      )
    if (extra := TRACKERS[name].extra) and importlib.util.find_spec(extra) is None:
      raise ConfigError(
        f"train.trackers has {name!r}, which is not installed; pip install 'mgjax[{extra}]'"
      )
  return [TRACKERS[name]() for name in names]


class RunLog:
  """Writes the metrics of a run: `metrics.jsonl`, and behind it the trackers.

  On the first of several hosts alone. What an earlier process wrote about steps after `resume_step`
  (0 at the start of a run) is dropped: it will be written again. None keeps all.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    resume_step: int | None = None,
    trackers: Sequence[Tracker] = (),
    config: Fields | None = None,
  ):
    """Opens the file and starts the trackers."""
    self._first = jax.process_index() == 0
    workdir = pathlib.Path(workdir)
    self._feeds = []
    if not self._first:
      return
    self._lines = JsonLines(workdir, resume_step)
    if trackers:
      path = workdir / IDENTITY
      create(path, f'{{"id": "{uuid.uuid4().hex[:8]}"}}\n'.encode())
      name = workdir.absolute().name
      identity = read_json(path)['id']
      run = Run(workdir, name, identity, config or {}, resume_step or 0)
      self._feeds = [_Feed(tracker, run) for tracker in trackers]

  def write(self, step: int, metrics: Fields) -> None:
    """Writes the metrics of one step: name -> number or scalar array."""
    if self._first:
      values = {name: float(value) for name, value in metrics.items()}
      self._lines.write(int(step), values)
      for feed in self._feeds:
        feed.put(int(step), values, {})

  def show(self, step: int, path: pathlib.Path) -> None:
    """Shows a picture, and the videos and audio in its folder."""
    for feed in self._feeds:
      feed.put(int(step), {}, _files(path.parent))

  def close(self) -> None:
    """Ends the trackers."""
    for feed in self._feeds:
      feed.close()


class _Feed:
  """Calls a tracker in a thread until it ends or raises."""

  def __init__(self, tracker: Tracker, run: Run):
    self._tracker = tracker
    self._run = run
    self._failed = False
    self._held: Held = set()
    self._calls = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._work, daemon=True)
    self._thread.start()

  def put(self, *call: object) -> None:
    """Has the tracker log: step, metrics, files."""
    if not self._failed:
      self._calls.put(call)

  def close(self) -> None:
    """Ends the tracker, for which it is waited a minute."""
    self._calls.put(None)
    self._thread.join(_PATIENCE)
    if self._thread.is_alive() and not self._failed:
      self._give_up(f'it did not end within {_PATIENCE:.0f} s')

  def _work(self) -> None:
    try:
      self._start()
      while (call := self._calls.get()) is not None:
        self._log(*call)
      self._tracker.finish()
    except Exception as error:
      self._give_up(first_line(error))

  def _start(self) -> None:
    """Starts the tracker and tells it what it lacks of steps that are done."""
    if (held := self._tracker.start(self._run)) is None:
      return
    self._held = held
    workdir = self._run.workdir
    before: list[tuple[int, Mapping[str, float], MediaFiles]]
    before = [(step, metrics, {}) for step, metrics in read_metrics(workdir)]
    for folder in sorted(workdir.glob('samples/step_*')):
      before.append((int(folder.name.removeprefix('step_')), {}, _files(folder)))
    for step, metrics, files in before:
      if step <= self._run.step:
        self._log(step, metrics, files)

  def _log(self, step: int, metrics: Mapping[str, float], files: MediaFiles) -> None:
    named = self._tracker.named
    values = {named(name): value for name, value in metrics.items()}
    values = {name: value for name, value in values.items() if (step, name) not in self._held}
    new_files = {name: f for name, f in files.items() if (step, named(name)) not in self._held}
    if values or new_files:
      self._tracker.log(step, values, new_files)

  def _give_up(self, why: str) -> None:
    name = type(self._tracker).__name__
    _log.warning('%s gets nothing more: %s. All is in metrics.jsonl', name, why)
    self._failed = True


def _files(folder: pathlib.Path) -> MediaFiles:
  """Returns the pictures, videos and audio of a step, by name."""
  return {_named(path): path for path in sorted(folder.glob('*')) if path.suffix in _SHOWN}


def _named(path: pathlib.Path) -> str:
  return 'samples' if path.stem == 'samples' else f'samples/{path.stem}'
