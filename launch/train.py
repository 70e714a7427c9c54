"""Trains any part of Movie Gen; the same command again goes on where it stopped.

python -m launch.train --config=configs/digits/autoencoder.py --workdir=runs/autoencoder
python -m launch.train --config=configs/video/t2iv_256.py:30b --workdir=runs/30b --dry_run
On several hosts each of them runs it, with a --workdir that all share; see launch/recipes/.
"""

from absl import flags

from launch import command_line
from mgjax.parallel import distributed
from mgjax.train import run

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string('workdir', '', 'Directory of this run: checkpoints, metrics.')
_NEW_DATA = flags.DEFINE_bool(
  'new_data', False, 'Go on with other data or buckets: their order begins anew at this step.'
)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print parameters and shapes, then stop.')


def main(_) -> None:
  config = command_line.required(_CONFIG, 'configs/digits/autoencoder.py')
  if command_line.print_config(config):
    return
  workdir = command_line.required(_WORKDIR, 'runs/autoencoder')
  if _DRY_RUN.value:
    print(run.dry_run(config, workdir))
  else:
    distributed.initialize()
    distributed.check_shared(workdir)
    run.train(config, workdir, new_data=_NEW_DATA.value)


if __name__ == '__main__':
  command_line.run(main)
