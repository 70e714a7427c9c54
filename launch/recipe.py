"""Runs the stages of a recipe end to end; the same command again goes on where it stopped.

python -m launch.recipe --config=configs/digits/recipe.py --workdir=runs/recipe
python -m launch.recipe --config=configs/video/recipe.py:30b --workdir=runs/30b --dry_run
A stage's fields are overridden as in --config.stages.joint.train.steps=2000. A stage names the
stages that it builds on. Each stage has a folder in --workdir, and report.html there shows all of
them.
"""

from absl import flags

from . import command_line

_CONFIG = command_line.define_config('configs/digits/recipe.py')
_WORKDIR = command_line.define_required(
  'workdir', 'runs/recipe', 'Directory of the recipe: a folder a stage.'
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print the stages, what of them is done, their parameters, then stop.'
)


def main(_) -> None:
  from mgjax.parallel import distributed
  from mgjax.workflows.recipe import describe_recipe, heartbeat, run_recipe

  config = _CONFIG.value
  if command_line.print_config(config):
    return
  workdir = _WORKDIR.value
  if _DRY_RUN.value:
    print(describe_recipe(config, workdir))
  else:
    distributed.initialize(heartbeat(config))
    distributed.check_shared(workdir)
    run_recipe(config, workdir)


if __name__ == '__main__':
  command_line.run(main)
