"""Sampling by the clock: a guided step, the loop, and a trained model up to its file."""

import inspect
import json

import jax
import pytest

from mgjax.lab.benchmarks.flow_model import measure_flow_model
from mgjax.lab.benchmarks.pipeline import describe_pipeline, measure_pipeline
from mgjax.lab.benchmarks.report import describe_benchmark
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.flops import backbone_flops
from mgjax.parallel import compiler
from mgjax.parallel.compiler import DeviceProgram
from mgjax.parallel.mesh import make_mesh
from tests.lab.benchmarks import test_flow_model

LATENTS = (1, 2, 4, 4, 16)


def tiny(**changes):
  return test_flow_model.tiny(buckets__video__batch_size=1, sample__steps=3, **changes)


BASELINE = """
WHAT = ('sample',)

def make_programs(task):
  assert len(task['times']) == 4 and task['times'][0] == 0 and task['times'][-1] == 1
  assert task['guidance'] == 4.0 and task['solver'] == 'euler' and task['latents'][0] == 1
  return {'quick': {'guided_step': lambda: None, 'sample': lambda: None}}
"""


def test_a_guided_step_and_all_of_them_take_turns_with_a_rival(tmp_path):
  path = tmp_path / 'baseline.py'
  path.write_text(BASELINE)
  run = FlowRun.of(tiny(sample__guidance=(('text', 4.0),)))
  mesh = make_mesh({}, devices=test_flow_model.one_device())
  options = {'rounds': 2, 'latents': LATENTS}
  report = measure_flow_model(run, 'sample', mesh, baselines=[str(path)], **options)
  report = json.loads(json.dumps(report))
  assert not report['failed'] and report['steps'] == 3 and report['guidance'] == 4.0
  ours = report['programs']['mgjax']
  row = backbone_flops(make_flow_model(tiny().model.to_dict()).backbone, LATENTS, 7).forward
  assert ours['guided_step']['flops'] == 2 * row
  assert ours['sample']['flops'] == 3 * 2 * row
  for name, numbers in ours.items():
    assert 0 < numbers['min'] <= numbers['median'] and name in describe_benchmark(report)
  each = report['step_milliseconds']
  assert each['mgjax'] == pytest.approx(1000 * ours['sample']['median'] / 3)
  assert set(each) == {'mgjax', 'quick'}
  assert f'mgjax {each["mgjax"]:.3g} ms a step' in describe_benchmark(report)


def test_a_program_has_the_options_of_the_devices_it_runs_on(monkeypatch):
  seen = []

  def options(device, count=1):
    seen.append((device, count))
    return {'xla_an_option_of_nobody': 'true'}

  program = DeviceProgram(lambda x: x + 1)
  assert program(1) == 2 and inspect.unwrap(program)(2) == 3
  assert not seen
  monkeypatch.setattr(compiler, 'compiler_options', options)
  with pytest.raises(Exception, match='xla_an_option_of_nobody'):
    program(1)
  assert seen == [(jax.devices()[0], 1)]
  with (
    jax.set_mesh(jax.sharding.Mesh(jax.devices()[2:4], 'a')),
    pytest.raises(Exception, match='x'),
  ):
    program.lower(1).compile()
  assert seen[1:] == [(jax.devices()[2], 2)]


def test_a_trained_model_is_timed_from_loading_to_its_file(tiny_runs):
  report = measure_pipeline(str(tiny_runs / 'video'), rounds=1)
  assert report == json.loads(json.dumps(report)) and set(report['programs']) == {'pixels', 'file'}
  assert report['first']['load'] > 0 and report['first']['file'] > 0
  assert all(times['min'] > 0 for times in report['programs'].values())
  assert 'pixels' in describe_pipeline(report) and 'loaded in' in describe_pipeline(report)
