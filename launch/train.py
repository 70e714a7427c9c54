"""Trains any component of Movie Gen; the same command again goes on where it stopped.

python -m launch.train --config=configs/digits/autoencoder.py --workdir=runs/autoencoder
python -m launch.train --config=configs/video/t2iv_256.py:30b --workdir=runs/30b --dry_run
python -m launch.train --config=configs/digits/recipe.py --workdir=runs/recipe
python -m launch.train --config=configs/quickstart.py --workdir=runs/quickstart
python -m launch.train --config=configs/quickstart.py:my_clips/ --workdir=runs/mine
A configuration with stages is a recipe: its stages run one after the other, each in a folder of
--workdir, and a field of a stage is overridden as in --config.stages.joint.train.steps=2000. The
quickstart is a recipe too: an autoencoder and a model from nothing, then samples, judged.
On several hosts each of them runs it, with a --workdir that all share; see launch/recipes/.
"""

from absl import flags

from . import command_line

_CONFIG = command_line.define_config('configs/digits/autoencoder.py')
_WORKDIR = command_line.define_required(
  'workdir', 'runs/autoencoder', 'Directory of this run: checkpoints, metrics; of a recipe: stages.'
)
_NEW_DATA = flags.DEFINE_bool(
  'new_data', False, 'Go on with other data or buckets: their order begins anew at this step.'
)
_NEW_RATE = flags.DEFINE_bool(
  'new_rate',
  False,
  'Go on with the moments at another learning rate or schedule, or for more steps.',
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print parameters and shapes, of a recipe its stages; then stop.'
)


def main(_) -> None:
  workdir, config = _WORKDIR.value, _CONFIG.value
  if command_line.print_config(config):
    return
  import mgjax
  from mgjax.apps import dry_run, recipe
  from mgjax.lab.evaluation import quickstart
  from mgjax.parallel import distributed
  from mgjax.training.monitoring import phases

  fields = config.to_dict()
  stages = 'stages' in fields
  allowed = {'new_data': _NEW_DATA.value, 'new_rate': _NEW_RATE.value}
  if _DRY_RUN.value:
    plan = (
      recipe.describe_recipe(fields, workdir, **allowed)
      if stages
      else dry_run.dry_run(config, workdir)
    )
    print(plan)
    return
  distributed.initialize(recipe.heartbeat(fields))
  distributed.check_shared(workdir)
  if not stages:
    mgjax.train(config, workdir, **allowed, spent=phases.since_start())
  elif not recipe.run_recipe(fields, workdir, **allowed):
    return
  print(quickstart.describe_result(fields, workdir), end='')


if __name__ == '__main__':
  command_line.run(main)
