"""How fast steps were, and on what: seen where the host waits anyway."""

import contextlib
import io
import time

import numpy as np
import pytest

from mgjax.models.flow_model.build import make_flops, make_flow_model
from mgjax.models.flow_model.conditions import context_lengths, example_batch
from mgjax.models.flow_model.flops import backbone_flops
from mgjax.parallel import chips
from mgjax.parallel.mesh import make_mesh
from mgjax.training import log_window as module
from mgjax.training.log_window import LogWindow
from mgjax.training.monitoring import progress as progress_module
from mgjax.training.monitoring.progress import Progress
from mgjax.training.monitoring.session import run_session, signals_only
from mgjax.training.monitoring.trackers import RunLog
from mgjax.training.monitoring.watchdog import PhaseLimits
from tests import tiny


class Step:
  """What a step returns; its devices need `seconds` for it, one step after the other."""

  ready = 0.0

  def __init__(self, seconds):
    Step.ready = max(Step.ready, time.monotonic()) + seconds
    self.at = Step.ready

  def block_until_ready(self):
    time.sleep(max(self.at - time.monotonic(), 0))
    return self

  def __array__(self, dtype=None, copy=None):
    self.block_until_ready()
    return np.asarray(1.0, dtype)


@contextlib.contextmanager
def made(workdir, **options):
  with (
    run_session(workdir, PhaseLimits()) as session,
    session.phases.during('step'),
    contextlib.closing(RunLog(workdir)) as writer,
  ):
    session.ledger.begin(0)
    yield LogWindow(writer, Progress(100), session, make_mesh(), **options), session.phases


def steps(window, seconds, first=1, waits=0.0, phases=None):
  for done, each in enumerate(seconds, first):
    if waits:
      with phases.during('data'):
        time.sleep(waits)
    window.bound()
    window.count({})
    window.add(done, {'loss': Step(each)})
  window.report(done, {})


def test_step_times_are_those_of_the_devices_and_the_slowest_shows(tmp_path):
  with made(tmp_path) as (window, phases):
    steps(window, [0.02] * 9 + [0.2])
    with phases.during('evaluate'):
      time.sleep(1.5)
    steps(window, [0.02] * 10, first=11)
  first, second = tiny.metrics(tmp_path)
  assert 0.015 < first['seconds_per_step_p50'] < first['seconds_per_step_p99']
  assert first['seconds_per_step_p99'] > 0.09  # a pair of steps that are seen to be done at once
  # What a validation takes is in no step's time.
  assert second['seconds_per_step_p99'] < 1.2 and second['seconds_per_step'] > 0.02
  assert second['spent/evaluate'] > 0 and 0 < second['goodput'] < 1
  assert second['goodput'] == pytest.approx(second['spent/step'])
  assert sum(value for name, value in second.items() if name.startswith('spent/')) == (
    pytest.approx(1)
  )


def test_waiting_for_data_is_in_a_step_and_told_apart(tmp_path):
  with made(tmp_path) as (window, phases):
    steps(window, [0.001] * 10, waits=0.03, phases=phases)
  (row,) = tiny.metrics(tmp_path)
  assert 0.5 < row['data_wait'] <= 1 and row['seconds_per_step_p50'] > 0.025
  assert row['spent/data'] > row['spent/step']


def test_lines_come_by_time_with_a_pace_however_rarely_a_run_reports(tmp_path, monkeypatch):
  monkeypatch.setattr(progress_module, 'FIRST', 0.1)
  stream = io.StringIO()
  with (
    signals_only() as session,
    session.phases.during('step'),
    contextlib.closing(RunLog(tmp_path)) as writer,
  ):
    progress = Progress(1000, stream=stream, clock=session.phases.working)
    progress.report(0)
    window = LogWindow(writer, progress, session, make_mesh())
    with session.phases.during('compile'):
      time.sleep(0.5)
    for done in range(1, 21):
      window.bound()
      window.add(done, {'loss': Step(0.02)})
  (line,) = stream.getvalue().splitlines()
  step, loss, pace, left = line.split(', ')
  assert 3 <= int(step.split()[1].split('/')[0]) <= 8 and loss == 'loss 1'
  assert 0.015 < float(pace.split()[0]) < 0.06  # with what came before them it were 0.1
  assert left.startswith('ETA 0:00:')
  assert not list(tmp_path.iterdir())  # metrics.jsonl has its own times


def test_utilisation_is_of_the_chips_peak_and_left_out_where_that_is_not_known(
  tmp_path, monkeypatch
):
  with made(tmp_path / 'unknown', flops=lambda batch: 8 * 10**9) as (window, _):
    steps(window, [0.02] * 5)
  (row,) = tiny.metrics(tmp_path / 'unknown')
  assert 'mfu' not in row and 0.01 < row['tflops_per_device'] < 0.06  # of 8 devices, 0.05 at best
  chip = chips.Chip('made', 1e12, 1e9, 1e9, 1e9)
  monkeypatch.setattr(module, 'find_chip', lambda kind: chip)
  with made(tmp_path / 'known', flops=lambda batch: 8 * 10**9) as (window, _):
    steps(window, [0.02] * 5)
  (row,) = tiny.metrics(tmp_path / 'known')
  assert row['mfu'] == pytest.approx(row['tflops_per_device']) and row['mfu'] > 0.01
  assert row['host_memory_gib'] > 0.05


def test_operations_of_a_batch_are_those_of_its_rows_tokens_and_words(tiny_runs):
  model = make_flow_model(tiny.video(tiny_runs).model.to_dict())
  batch = example_batch(model, 'a digit', (2, 8, 8, 4), rows=3)
  batch['latents'] = np.zeros((3, 2, 8, 8, 4), np.float32)
  words, gated = context_lengths(model, batch, (2, 8, 8, 4))
  assert words > 0 and gated == ()
  expected = backbone_flops(model.backbone, (3, 2, 8, 8, 4), words).training
  assert make_flops(model)(batch) == expected
