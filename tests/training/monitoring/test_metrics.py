"""Metrics: strict JSON, no doubled lines after a resume."""

import json

import numpy as np
import pytest

from mgjax.training.monitoring.metrics import reached_step, read_metrics
from mgjax.training.monitoring.trackers import RunLog


def read_lines(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_lines_are_appended_as_strict_json(tmp_path):
  writer = RunLog(tmp_path)
  writer.write(1, {'loss': np.float32(0.5), 'gradient_norm': float('nan')})
  writer.write(2, {'loss': float('inf'), 'gradient_norm': float('-inf')})
  assert read_lines(tmp_path) == [
    {'step': 1, 'loss': 0.5, 'gradient_norm': 'nan'},
    {'step': 2, 'loss': 'inf', 'gradient_norm': '-inf'},
  ]


def test_resume_drops_later_and_broken_lines(tmp_path):
  writer = RunLog(tmp_path)
  for step in (10, 20, 30):
    writer.write(step, {'loss': step})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 20, "lo')  # a crash in the middle of a line
  writer = RunLog(tmp_path, 20)
  writer.write(30, {'loss': 31.0})
  assert read_lines(tmp_path) == [
    {'step': 10, 'loss': 10.0},
    {'step': 20, 'loss': 20.0},
    {'step': 30, 'loss': 31.0},
  ]


def test_without_resume_step_all_lines_are_kept(tmp_path):
  for step in (1, 2):
    writer = RunLog(tmp_path)
    writer.write(step, {'loss': 0.0})
  assert [line['step'] for line in read_lines(tmp_path)] == [1, 2]


DAMAGED = (
  b'',
  b'{',
  b'{"step": 3, "lo',
  b'\xff\xfe\x00',
  b'[' * 100_000,
  b'null',
  b'[]',
  b'3',
  b'"step"',
  b'{}',
  b'{"step": null}',
  b'{"step": "3"}',
  b'{"step": 3.5}',
  b'{"step": -1}',
  b'{"step": true}',
  b'{"step": 1' + b'0' * 30 + b'}',
  b'{"step": ' + b'9' * 5000 + b'}',
  b'{"step": NaN}',
)


@pytest.mark.parametrize('damage', DAMAGED)
def test_a_damaged_line_costs_itself_alone_and_is_heard_of_once(tmp_path, damage, caplog):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1, "loss": 4}\n' + damage + b'\n{"step": 2, "loss": 3}\n')
  for _ in range(2):
    assert [(step, values['loss']) for step, values in read_metrics(tmp_path)] == [(1, 4), (2, 3)]
    assert reached_step(tmp_path) == 2
  assert caplog.text.count("metrics.jsonl' has 1 damaged lines (line 2)") == bool(damage)
  writer = RunLog(tmp_path, 1)
  writer.write(2, {'loss': 3.5})
  assert read_lines(tmp_path) == [{'step': 1, 'loss': 4}, {'step': 2, 'loss': 3.5}]


@pytest.mark.parametrize('value', ['[1]', '{}', 'null', '"x"', '1' + '0' * 400])
def test_a_line_with_values_that_are_no_numbers_is_no_metrics(tmp_path, value):
  lines = [f'{{"step": 1, "loss": {value}}}', '{"step": 2, "loss": "nan"}']
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  ((step, values),) = read_metrics(tmp_path)
  assert step == 2 and np.isnan(values['loss'])
