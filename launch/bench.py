r"""Times a video configuration, here and now, on random data: seconds, rates, MFU and memory.

python -m launch.bench --config=configs/bench/cpu.py --rival=tests/oracles/torch_backbone.py
python -m launch.bench --config=configs/bench/h200.py:73728 --what=blocks --layers=0 --out=out.json
python -m launch.bench --config=configs/bench/h200.py:8192 --what=attention --rival=jax.nn \
  --rival=tests/oracles/torch_attention.py
--what=step is a whole training step, forward one pass of the model, blocks its layers alone and
attention that of one layer, both forward and with gradients. A rival is jax.nn (attention alone) or
a Python file (mgjax/planning/rivals.py); all take turns on one device.
"""

import jax
from absl import flags

from launch import command_line
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.parallel import distributed
from mgjax.planning.benchmark import measure
from mgjax.planning.results import describe
from mgjax.planning.subjects import SUBJECTS

_CONFIG = command_line.define_config()
_WHAT = flags.DEFINE_enum('what', 'step', list(SUBJECTS), 'What is timed.')
_LATENTS = flags.DEFINE_list('latents', [], 'b,t,h,w,c; by default of the longest bucket.')
_LAYERS = flags.DEFINE_integer(
  'layers', None, 'Layers; 0 is as many as fit, by default those configured.', lower_bound=0
)
_RIVAL = flags.DEFINE_multi_string('rival', [], 'jax.nn or a Python file')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Timed runs of each program.', lower_bound=1)
_PROFILE = flags.DEFINE_string('profile', '', 'Directory for a trace, for TensorBoard or XProf.')
_OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers.')


def main(_) -> None:
  config = command_line.required(_CONFIG, 'configs/bench/cpu.py')
  if command_line.print_config(config):
    return
  distributed.initialize()
  report = measure(
    config, _WHAT.value, latents=_latents(_LATENTS.value), layers=_LAYERS.value,
    rivals=_RIVAL.value, rounds=_ROUNDS.value, profile=_PROFILE.value,
  )  # fmt: skip
  if jax.process_index() == 0:
    print(describe(report))
    if _OUT.value:
      write_json(_OUT.value, report)


def _latents(words: list[str]) -> tuple[int, ...] | None:
  sizes = tuple(int(word) for word in words if word.isdigit())
  if words and (len(sizes) != 5 or len(words) != 5 or 0 in sizes):
    raise ConfigError(f'--latents={",".join(words)}: expected five sizes b,t,h,w,c')
  return sizes or None


if __name__ == '__main__':
  command_line.run(main)
