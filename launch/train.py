"""Trains any component of Movie Gen; the same command again goes on where it stopped.

python -m launch.train --config=configs/digits/autoencoder.py --workdir=runs/autoencoder
python -m launch.train --config=configs/video/t2iv_256.py:30b --workdir=runs/30b --dry_run
python -m launch.train --replay=runs/30b/faults/step_001234
On several hosts each of them runs it, with a --workdir that all share; see launch/recipes/. A run
that ends with exit code 4, because its numbers were not finite, says what to give as --replay: the
command takes that step again and shows where the first bad number comes from.
"""

from absl import flags

from . import command_line

_CONFIG = command_line.define_config('configs/digits/autoencoder.py', unless=('replay',))
_WORKDIR = command_line.define_required(
  'workdir', 'runs/autoencoder', 'Directory of this run: checkpoints, metrics.', unless=('replay',)
)
_NEW_DATA = flags.DEFINE_bool(
  'new_data', False, 'Go on with other data or buckets: their order begins anew at this step.'
)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print parameters and shapes, then stop.')
_REPLAY = flags.DEFINE_string(
  'replay', '', 'Folder faults/step_N of a work directory: take that step again, and stop.'
)


def main(_) -> None:
  import jax

  import mgjax
  from mgjax.parallel import distributed
  from mgjax.runtime.phases import since_start
  from mgjax.workflows.dry_run import dry_run
  from mgjax.workflows.replay import replay

  if _REPLAY.value:
    distributed.initialize()
    found = replay(_REPLAY.value)
    if jax.process_index() == 0:
      print(found)
    return
  config = _CONFIG.value
  if command_line.print_config(config):
    return
  workdir = _WORKDIR.value
  if _DRY_RUN.value:
    print(dry_run(config, workdir))
  else:
    distributed.initialize(config.train.get('limits', {}).get('heartbeat', 0))
    distributed.check_shared(workdir)
    mgjax.train(config, workdir, new_data=_NEW_DATA.value, spent=since_start())


if __name__ == '__main__':
  command_line.run(main)
