"""Memory of Wan by formula beside what XLA's compiler says of the same programs.

`launch.plan --compile` printed the numbers; docs/results/wan.md has the commands.
"""

import pytest

from configs.wan import text_to_video
from mgjax.lab.planning.dispatch import plan_any

TRAINED = [
  ('1.3b,lora', 'rtx4090', 'attention', '', 18.0),
  ('1.3b,lora', 'rtx4090', 'full', '', 15.7),
  ('1.3b,lora', 'v5p:2x2x1', 'attention', '', 5.3),
  ('1.3b,lora', 'v6e:2x4', 'attention', '', 2.8),
  ('14b,lora', 'h200:1', 'attention', '', 103.3),
  ('14b,lora', 'h200:1', 'offload', '', 66.1),
  ('14b,lora', 'h100:1', 'full', 'bfloat16', 62.7),
  ('14b,lora', 'h100:8', 'attention', '', 13.3),
  ('14b,lora', 'v5p:2x2x1', 'attention', '', 32.7),
]
SAMPLED = [
  ('1.3b', 'rtx4090', 7.6),
  ('1.3b', 'v5p:2x2x1', 4.6),
  ('1.3b', 'v6e:2x4', 2.3),
  ('14b', 'h100:1', 59.0),
  ('14b,720p', 'h100:1', 65.3),
  ('14b,720p', 'h100:8', 15.2),
]


@pytest.mark.parametrize(('size', 'topology', 'remat', 'base', 'gib'), TRAINED)
def test_peaks_of_training_are_within_a_tenth_of_the_compiler_s(size, topology, remat, base, gib):
  config = text_to_video.get_config(size)
  config.lora.weights = base
  numbers = plan_any(config, topology, remat=remat).numbers
  assert numbers['peak_gib_per_chip'] == pytest.approx(gib, rel=0.1) and numbers['fits']


@pytest.mark.parametrize(('size', 'topology', 'gib'), SAMPLED)
def test_peaks_of_sampling_are_within_a_tenth_of_the_compiler_s(size, topology, gib):
  numbers = plan_any(text_to_video.get_config(size), topology, what='sample').numbers
  assert numbers['peak_gib'] == pytest.approx(gib, rel=0.1) and numbers['fits']
