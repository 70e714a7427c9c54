"""The shares of the peak: a range for every chip, with its source, that holds what is published."""

import pytest

from configs.bench import h200
from configs.video import t2iv_768
from mgjax.lab.planning.efficiency import EFFICIENCIES, Ends, Rates, bounds, describe_efficiency
from mgjax.lab.planning.plan import Choices, make_plan
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_workload
from mgjax.parallel.chips import CHIPS

# Pods of 64 to 512 chips, as a plan would have them, and the MFU of whole training steps there:
# published by AI-Hypercomputer/maxdiffusion (#273, #487, whose backward kernels are its own)
# and of NeMo (a video transformer of 7B, arXiv 2503.12964), or measured by launch.bench.
STEPS = {
  'v5p:4x4x4': ({'fsdp': 4, 'context': 16}, 'attention_and_projections', 8, (0.296, 0.325)),
  'tpu7x:4x4x4': ({'fsdp': 32, 'context': 4}, 'attention', 32, (0.33,)),
  'h100:8x64': ({'fsdp': 64, 'context': 8}, 'attention', 64, (0.482,)),
  'h200:1': ({}, 'attention', 1, (0.476,)),  # of four layers
}


@pytest.mark.parametrize('chip', CHIPS)
def test_every_chip_has_a_low_and_a_high_end_with_sources(chip):
  found = EFFICIENCIES[chip]
  for share in (found.linear, found.forward, found.backward):
    assert 0 < share.low < share.high < 1
    assert any(word in share.source for word in ('publish', 'inferred', 'assumed')), share
  assert found.rates == Ends(
    Rates(found.linear.low, found.forward.low, found.backward.low),
    Rates(found.linear.high, found.forward.high, found.backward.high),
  )
  assert len(describe_efficiency(chip)) == 2 and len(describe_efficiency(chip, backward=True)) == 3


def test_a_backward_kernel_has_five_products_where_the_forward_one_has_two():
  rates = Rates(0.5, forward=0.5, backward=0.25)
  assert rates.attention(8.0) == 16.0
  assert rates.attention(8.0, 8.0) == 16.0 + 8.0 * 2.5 / 0.25


@pytest.mark.parametrize('topology', STEPS)
def test_the_range_of_a_step_holds_what_was_measured_by_us_or_others(topology):
  mesh, remat, rows, measured = STEPS[topology]
  config = t2iv_768.get_config('30b')
  if topology == 'h200:1':
    config = h200.get_config()
    config.model.depth = 4
  work = make_workload(FlowRun.of(config))
  plan = make_plan(work, topology, Choices(mesh, remat=remat, rows=rows))
  assert plan.fits
  mfu = bounds(plan.chosen.time.map(lambda each: each.utilisation))
  for each in measured:
    # The low end of v5p was chosen to come to the lowest, to a hundredth.
    assert mfu['low'] - 0.005 <= each <= mfu['high']
