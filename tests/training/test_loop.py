"""What the loop reports, when it saves, and what it does about signals and broken losses."""

import dataclasses
import os
import signal

import numpy as np
import pytest

from mgjax.core.errors import NonFiniteError
from mgjax.data.loader import StepIterator
from mgjax.parallel.mesh import make_mesh
from mgjax.training import log_window
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.optimizers.plateau import Plateau
from mgjax.training.run import Hooks, RunContext, run_loop
from mgjax.training.settings import RunSettings
from mgjax.training.state import State
from tests import tiny

TASKS = Hooks(lambda batch: batch, lambda params: {}, lambda state: {})


class Rows(StepIterator):
  """Eight rows of nothing, again and again."""

  def __init__(self):
    self.replaced = 0

  def __next__(self):
    self.replaced += 3
    return {'x': np.zeros((8, 1))}


class Saves(Checkpoints):
  """Remembers the steps that were saved, and writes nothing."""

  def __init__(self):
    self.saved, self.losses = [], []

  def save(self, state, meta, loss=None):
    self.saved.append(int(state.step))
    self.losses.append(loss)
    return True

  def wait(self):
    pass


class Loss:
  """A loss that is still on its way until the host asks for it."""

  waiting = 0

  def __init__(self, value):
    self.value = value
    Loss.waiting += 1

  def __array__(self, dtype=None, copy=None):
    Loss.waiting -= 1
    return np.asarray(self.value, dtype)


def run(workdir, step, *, begin=0, rows=None, tasks=TASKS, checkpoints=None, **schedule):
  """The state after a loop, and the steps that it saved."""
  checkpoints = checkpoints or Saves()
  state = run_loop(
    State(np.int32(begin), {}, {}, {}),
    step,
    rows or Rows(),
    tasks,
    RunSettings(**schedule),
    RunContext(make_mesh(), workdir, checkpoints),
  )
  return state, checkpoints.saved


def counting(losses):
  """A step whose losses are `losses(step)`."""

  def step(state, batch):
    del batch
    done = int(state.step) + 1
    return State(np.int32(done), {}, {}, {}), {'loss': losses(done)}

  return step


def test_a_run_that_never_reports_keeps_few_metrics_and_says_their_mean_at_the_end(tmp_path):
  most = 0

  def losses(done):
    nonlocal most
    most = max(most, Loss.waiting)
    return Loss(float(done))

  _, saved = run(tmp_path, counting(losses), steps=3 * log_window.PENDING + 7)
  assert most < log_window.PENDING
  (row,) = tiny.metrics(tmp_path)
  last = 3 * log_window.PENDING + 7
  assert row['step'] == last and row['loss'] == (last + 1) / 2
  assert saved == [last]


def test_a_line_of_metrics_is_the_mean_since_the_last_one(tmp_path):
  _, saved = run(tmp_path, counting(float), steps=7, log_every=3, save_every=2)
  rows = {row['step']: row['loss'] for row in tiny.metrics(tmp_path)}
  assert rows == {3: 2.0, 6: 5.0, 7: 7.0}  # what was fetched for a checkpoint counts once
  assert saved == [2, 4, 6, 7]


def test_a_loss_that_is_not_finite_is_noticed_without_a_line_of_metrics(tmp_path):
  with pytest.raises(NonFiniteError, match='the loss of step 5 is nan'):
    run(tmp_path, counting(lambda done: np.nan if done == 5 else 1.0), steps=10**9)


def test_parameters_that_are_not_finite_are_never_saved_though_no_loss_reads_them(tmp_path):
  def norms(state):
    return {'parameter_norm/table': np.float32(np.inf if int(state.step) >= 4 else 1)}

  tasks = dataclasses.replace(TASKS, norms=norms)
  with pytest.raises(NonFiniteError, match=r'the parameters of step 4 are not all .*table'):
    run(tmp_path, counting(float), tasks=tasks, steps=10, save_every=2)
  with pytest.raises(NonFiniteError, match='the parameters of step 5 are not all finite'):
    run(tmp_path, counting(float), tasks=tasks, steps=5)
  run(tmp_path / 'fine', counting(float), tasks=tasks, steps=3, log_every=2)
  assert [row['parameter_norm/table'] for row in tiny.metrics(tmp_path / 'fine')] == [1, 1]


def test_what_is_saved_already_is_not_saved_again(tmp_path):
  assert run(tmp_path, counting(float), steps=4, save_every=2)[1] == [2, 4]
  assert run(tmp_path, counting(float), begin=4, steps=4)[1] == []
  assert run(tmp_path, counting(float), steps=0)[1] == [0]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('when', ['compile', 'data', 'evaluate', 'save'])
def test_a_signal_at_any_moment_stops_after_the_step_and_saves_it(
  tmp_path, when, number, signals_as_in_a_new_process
):
  """The handler runs when the main thread is back in Python, whatever it did in between."""
  sent, before = [], signal.getsignal(number)

  def send(step):
    if not sent and step >= (0 if when == 'compile' else 4):
      sent.append(step)
      os.kill(os.getpid(), number)

  def step(state, batch):
    if when == 'compile':
      send(int(state.step))
    return State(state.step + 1, {}, {}, {}), {'loss': 1.0}

  class Data(Rows):
    def __next__(self):
      if when == 'data':
        send(self.replaced)
      return super().__next__()

  def evaluate(params):
    if when == 'evaluate':
      send(4)
    return {}

  def meta(state):
    if when == 'save':
      send(int(state.step))
    return {}

  tasks = dataclasses.replace(TASKS, evaluate=evaluate, meta=meta)
  state, saved = run(
    tmp_path, step, rows=Data(), tasks=tasks, steps=100, save_every=4, evaluate_every=4
  )
  # The step after the one whose batch it interrupted is still taken.
  assert int(state.step) == saved[-1] == {'compile': 1, 'data': 3, 'evaluate': 4, 'save': 4}[when]
  assert len(set(saved)) == len(saved) and signal.getsignal(number) is before


def test_a_second_signal_quits_at_once(tmp_path, signals_as_in_a_new_process):
  def losses(done):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    return 1.0

  with pytest.raises(KeyboardInterrupt):
    run(tmp_path, counting(losses), steps=100)


def test_few_steps_are_under_way_at_once_however_far_the_host_could_run(tmp_path):
  class Pending(Loss):
    """A loss of a step that is not done before somebody waits for it."""

    running = 0

    def __init__(self):
      super().__init__(1.0)
      self.done = False
      Pending.running += 1

    def block_until_ready(self):
      Pending.running -= not self.done
      self.done = True
      return self

  seen = []

  def step(state, batch):
    seen.append(Pending.running)
    return state.replace(step=state.step + 1), {'loss': Pending()}

  run(tmp_path, step, steps=50)
  assert max(seen) == log_window.AHEAD - 1


def test_replaced_samples_are_counted_since_the_last_line(tmp_path):
  run(tmp_path, counting(float), steps=10, log_every=4)
  assert [line['replaced_samples'] for line in tiny.metrics(tmp_path)] == [12, 12, 6]


def test_a_checkpoint_has_the_validation_loss_of_its_own_step(tmp_path):
  def evaluate(params):
    return {'validation/a/loss': 1.0, 'validation/b/loss': 2.0, 'validation/b/other': 9.0}

  checkpoints, tasks = Saves(), dataclasses.replace(TASKS, evaluate=evaluate)
  schedule = {'steps': 7, 'save_every': 2, 'evaluate_every': 4}
  run(tmp_path, counting(float), tasks=tasks, checkpoints=checkpoints, **schedule)
  assert checkpoints.saved == [2, 4, 6, 7]
  assert checkpoints.losses == [None, 1.5, None, 1.5]


@pytest.mark.parametrize('where', ['average', 'moments', "the discriminator's moments"])
@pytest.mark.parametrize(('every', 'saved'), [(2, [2, 4]), (4, [4])])
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_averages_and_moments_that_are_not_finite_are_not_saved(tmp_path, where, every, saved, bad):
  """Whether they would be saved on the way or at the end."""

  def step(state, batch):
    done = int(state.step) + 1
    x = np.asarray([1.0, bad if done > 4 else 1.0], np.float32)
    moments = {'mu': x, 'plateau': Plateau(np.float32(1), np.float32(np.inf), np.int32(0))}
    other = {'params': {}, 'opt_state': moments if 'discriminator' in where else {}}
    state = State(
      np.int32(done),
      {},
      moments if where == 'moments' else {},
      {'x': x} if where == 'average' else {},
      other,
    )
    return state, {'loss': 0.0}

  checkpoints = Saves()
  with pytest.raises(NonFiniteError, match=r'of step . is not finite') as found:
    run(tmp_path, step, checkpoints=checkpoints, steps=7, save_every=every)
  assert found.value.exit_code == 4
  assert checkpoints.saved == saved
