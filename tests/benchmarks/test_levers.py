"""Ways to sample are listed of a run, judged and timed, and what they cost is what they compute."""

import json

import pytest

from mgjax.benchmarks.levers import REREAD, Way, curves_of, describe_ways, list_ways, measure_ways
from mgjax.core.errors import ConfigError
from mgjax.planning.workload import count_flops
from tests import tiny


def test_every_lever_is_listed_of_a_run(tiny_runs):
  workdir = str(tiny_runs / 'video')
  ways = {way.name: way for way in list_ways(workdir, [workdir])}
  assert list(ways) == [
    'as configured', REREAD, '2 steps', '3 steps, linear', 'guidance below t = 0.3',
    'velocities reused (0.2)', 'weights in bfloat16', 'weights in int8',
    'all of these: 3 steps, int8', 'video, as configured', 'video, 3 steps',
  ]  # fmt: skip
  assert ways['guidance below t = 0.3'].changes == {'guidance': (('text', (4.0, (0.0, 0.3))),)}
  together = ways['all of these: 3 steps, int8'].changes
  assert set(together) == {'steps', 'guidance', 'weights', 'reuse'}


def test_what_is_no_flow_model_is_a_sentence(tiny_runs):
  with pytest.raises(ConfigError, match='compared of video and audio'):
    measure_ways([Way('x', str(tiny_runs / 'autoencoder'))])


@pytest.mark.slow
def test_ways_are_judged_timed_and_counted(tiny_runs):
  workdir = str(tiny_runs / 'video')
  once = Way('as configured', workdir)
  always = Way(REREAD, workdir, rereads=True)
  reused = Way('reused', workdir, {'reuse': 100.0})
  report = measure_ways([once, always, reused], samples=27, rounds=1)
  report = json.loads(json.dumps(report))
  first, second, third = report['ways']
  forward = count_flops(tiny.video(tiny_runs))[0].forward
  assert first['rows'] == second['rows'] == 6 and second['flops'] == 6 * forward
  assert first['flops'] < second['flops']
  # At such a threshold two velocities tell how fast they change, and the third is the second's.
  assert third['rows'] == 4
  for name, metric in first['found'].items():
    # Text read once is text read at every step, but for rounding, which 27 videos do not show.
    assert metric['value'] == pytest.approx(second['found'][name]['value'], abs=0.05), name
  assert {'alignment/all', 'diversity', 'frechet'} <= set(first['found'])
  assert all(way['seconds']['min'] > 0 for way in report['ways'])
  told = describe_ways(report)
  assert 'as configured' in told and 'alignment/digit' not in told and 'frechet' in told
  curves = curves_of([report], {'diversity': 'Diversity', 'scores/tone': 'Tone'})
  assert curves == {'Diversity': {'video': [(6, first['found']['diversity']['value'])]}}
