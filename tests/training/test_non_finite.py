"""Steps that are not finite: skipped, counted, or the end of the run, which names their samples."""

import dataclasses
import json
import operator
import re

import jax
import numpy as np
import pytest

from mgjax import api
from mgjax.api import train
from mgjax.core.errors import NonFiniteError
from mgjax.data.batch_order import ShapeBucket, make_batches, samples_of_batch
from mgjax.registry import make_spec
from mgjax.training.checkpoints import manager
from mgjax.training.non_finite import drop_skipped
from tests import binaries, tiny
from tests.data.test_loader import Numbered


class Spoilt:
  """A source in which the latents of some samples have a number that is none."""

  def __init__(self, source, bad):
    self._source, self._bad = source, bad

  @property
  def fingerprint(self):
    return self._source.fingerprint

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    sample = self._source[index]
    if operator.index(index) in self._bad:
      sample = sample | {'latents': sample['latents'].copy()}
      sample['latents'][0, 1, 2, 3] = np.nan
    return sample


@pytest.fixture
def spoil(monkeypatch):
  """Call spoil(config, folder, step): one sample of the batch of that step is spoilt from then on.

  It returns the bucket's name and the index of the sample.
  """

  def spoil(config, folder, step):
    spec = make_spec(config, folder)
    bucket, indices = samples_of_batch(spec.buckets, step - 1, seed=config.seed)

    def make_spoilt(config, workdir):
      spec = make_spec(config, workdir)
      spoilt = [
        dataclasses.replace(each, source=Spoilt(each.source, {indices[2]}))
        if each.name == bucket.name
        else each
        for each in spec.buckets
      ]
      return dataclasses.replace(spec, buckets=spoilt)

    monkeypatch.setattr(api, 'make_spec', make_spoilt)
    return bucket.name, indices[2]

  return spoil


@pytest.mark.slow
def test_a_batch_that_is_not_finite_ends_the_run_and_names_its_samples(tiny_runs, tmp_path, spoil):
  config = tiny.video(tiny_runs, train__faults__skip=0, train__steps=6, train__log_every=100)
  name, index = spoil(config, tmp_path / 'part', 5)
  with pytest.raises(NonFiniteError) as caught:
    train(config, tmp_path)
  message, step = str(caught.value), caught.value.step
  assert step <= 5 and f'step {step} is nan' in message
  assert re.search(rf'Of the bucket {name!r} that step read .*\b{index}\b', message)
  # No state that knows of it is kept.
  saved = sorted(int(path.name) for path in (tmp_path / 'checkpoints').glob('*'))
  assert all(each < step for each in saved)


@pytest.mark.slow  # of the step alone test_guard.py says the same
def test_bad_batches_are_passed_over_and_counted_and_the_run_resumes_among_them(
  tiny_runs, tmp_path, spoil, caplog
):
  config = tiny.video(tiny_runs, train__faults__skip=3)
  spoil(config, tmp_path / 'part', 4)
  whole = train(config, tmp_path / 'whole')
  skipped = int(whole.counters.skipped)
  assert 1 <= skipped <= 3 and caplog.text.count(': skipped, as') == skipped
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))
  rows = [row for row in tiny.metrics(tmp_path / 'whole') if 'skipped_steps' in row]
  assert rows[-1]['skipped_steps'] == skipped
  train(config, tmp_path / 'stopped', stop_at=5)
  tiny.same_state(train(config, tmp_path / 'stopped'), whole)


@pytest.mark.slow
def test_a_checkpoint_of_before_there_were_counters_goes_on(tiny_runs, tmp_path, monkeypatch):
  config = tiny.video(tiny_runs, images=True)
  with monkeypatch.context() as patch:
    older = tuple(name for name in manager._ITEMS if name != 'counters')
    patch.setattr(manager, '_ITEMS', older)
    train(config, tmp_path, stop_at=3)
  fields = json.loads((tmp_path / 'config.json').read_text())
  del fields['train']['faults']
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  state = train(config, tmp_path)
  whole = tiny.final_state(tiny_runs / 'video')
  tiny.same_state(state.replace(counters=None), whole.replace(counters=None))
  assert int(state.counters.taken) == 5  # of eight


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_command_with_debug_nans_shows_the_operation(tiny_runs, tmp_path, monkeypatch):
  given = [f'--workdir={tmp_path / "run"}', '--config=configs/digits/video.py']
  given += [*tiny.flags(tiny.VIDEO), '--config.optimizer.learning_rate=1e30']
  given += [f'--config.autoencoder={tiny_runs / "autoencoder"}']
  given += [f'--config.data.latents={tiny_runs / "latents"}']
  ended = binaries.run('train', *given)
  assert ended.returncode == NonFiniteError.exit_code == 4, ended.stderr
  assert 'Traceback' not in ended.stderr and 'JAX_DEBUG_NANS=1' in ended.stderr
  monkeypatch.setenv('JAX_DEBUG_NANS', '1')
  shown = binaries.run('train', *given)
  assert 'FloatingPointError: invalid value (nan) encountered in' in shown.stderr
  assert re.search(r'File ".*/mgjax/(nn|flow|backbone|flow_models|training)/', shown.stderr)


def test_the_samples_of_a_batch_are_those_that_every_host_reads():
  buckets = [ShapeBucket(name, Numbered(mark, 11), 4, mark + 1) for mark, name in enumerate('ab')]
  for step in range(20):
    bucket, indices = samples_of_batch(buckets, step, seed=5)
    for hosts in (1, 2):
      read = [make_batches(buckets, seed=5, host=h, hosts=hosts)[step] for h in range(hosts)]
      assert np.concatenate([each['index'] for each in read]).tolist() == indices
      assert {bucket.name} == {'ab'[mark] for each in read for mark in each['mark']}


def test_what_was_skipped_is_no_part_of_the_means_and_spikes_are_told_as_such(caplog):
  fine = {'loss': 1.0, 'gradient_norm': 2.0, 'skipped': 0, 'stopped': 0}
  fine |= {'skipped_in_a_row': 0}
  spike = fine | {'gradient_norm': 200.0, 'skipped': 1, 'skipped_in_a_row': 1}
  assert drop_skipped([fine, spike, fine], 7) == [{'loss': 1.0, 'gradient_norm': 2.0}] * 2
  assert 'step 6 is a spike (gradient_norm 200' in caplog.text
  last = spike | {'stopped': 1, 'skipped_in_a_row': 3, 'loss': np.nan}
  with pytest.raises(NonFiniteError, match='loss of step 8 is nan, the last of 3 bad steps') as end:
    drop_skipped([fine, last, last], 9)
  assert end.value.step == 8
  with pytest.raises(NonFiniteError, match='gradient_norm of step 3 is inf'):  # without a guard
    drop_skipped([{'loss': 1.0, 'gradient_norm': np.inf}], 3)
