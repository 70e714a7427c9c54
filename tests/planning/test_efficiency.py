"""The shares of the peak: a range for every chip, with its source, that holds what is published."""

import pytest

from configs.bench import h200
from configs.video import t2iv_768
from mgjax.parallel.chips import CHIPS
from mgjax.planning.efficiency import EFFICIENCIES, STEPS, Ends, Rates, bounds, describe_efficiency
from mgjax.planning.plan import Choices, make_plan
from mgjax.planning.workload import make_workload, read_outline

# Pods of 64 to 512 chips, as a plan would have them.
STEP_OF = {
  'v5p': ('v5p:4x4x4', {'fsdp': 4, 'context': 16}, 'attention_and_projections', 8),
  'tpu7x': ('tpu7x:4x4x4', {'fsdp': 32, 'context': 4}, 'attention', 32),
  'h100': ('h100:8x64', {'fsdp': 64, 'context': 8}, 'attention', 64),
  'h200': ('h200:1', {}, 'attention', 1),  # of four layers
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


@pytest.mark.parametrize('chip', STEPS)
def test_the_range_of_a_step_holds_what_was_measured_by_us_or_others(chip):
  topology, mesh, remat, rows = STEP_OF[chip]
  config = t2iv_768.get_config('30b') if chip != 'h200' else h200.get_config()
  config.model.depth = 4 if chip == 'h200' else config.model.depth
  work = make_workload(config.to_dict(), read_outline(config.to_dict()))
  plan = make_plan(work, topology, Choices(mesh, remat=remat, rows=rows))
  assert plan.fits
  mfu = bounds(plan.chosen.time.map(lambda each: each.utilisation))
  for published, _ in STEPS[chip]:
    # The low end of v5p was chosen to come to the lowest, to a hundredth.
    assert mfu['low'] - 0.005 <= published <= mfu['high']
