"""Times the training step of a video configuration, here and now, on random data.

python -m launch.bench --config=configs/bench/cpu.py --rival=tests/oracles/torch_backbone.py
A rival is a Python file with the same network in another library; both take turns.
"""

import json

from absl import flags

from launch import command_line
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.train.benchmark import measure

_CONFIG = command_line.define_config()
_LATENTS = flags.DEFINE_list('latents', ['2', '4', '32', '32', '16'], 'Sizes b,t,h,w,c.')
_RIVAL = flags.DEFINE_string('rival', '', 'Python file of a rival, timed in turns with ours.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Steps of each that are timed.', lower_bound=1)
_OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers.')


def main(_) -> None:
  config = command_line.required(_CONFIG, 'configs/bench/cpu.py')
  if command_line.print_config(config):
    return
  latents = tuple(int(size) for size in _LATENTS.value if size.isdigit())
  if len(latents) != 5:
    raise ConfigError(f'--latents={",".join(_LATENTS.value)}: expected five sizes b,t,h,w,c')
  report = measure(config, latents, rival=_RIVAL.value, rounds=_ROUNDS.value)
  print(json.dumps(report, indent=2))
  if _OUT.value:
    write_json(_OUT.value, report)


if __name__ == '__main__':
  command_line.run(main)
