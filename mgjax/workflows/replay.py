"""Replays the step that ended a run, and finds the first operation that is not finite."""

import functools
import os
import pathlib
import traceback
from collections.abc import Mapping, Sequence

import jax
import optax

from mgjax.checkpoints.manager import Checkpoints
from mgjax.checkpoints.workdir import read_config
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json
from mgjax.core.settings import fields_of
from mgjax.core.typing import Batch
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import put_batch
from mgjax.registry import make_spec
from mgjax.training.accumulation import accumulation
from mgjax.training.faults import bare, examine, first_bad, load_batch, make_learn_of
from mgjax.training.settings import optimizer_settings, run_settings
from mgjax.training.spec import TrainSpec, init_params
from mgjax.training.state import State, abstract_state
from mgjax.training.step import Learn

SHOWN = 20  # leaves of each tree, of those that are finite


def replay(folder: str | os.PathLike[str]) -> str:
  """Takes the step again that a folder `faults/step_N` of a work directory keeps.

  Returns:
    A table of norms, leaf by leaf, and where the first number that is not finite appears: in the
    batch, in the parameters, or else at which line of the program.

  Raises:
    ConfigError: the folder is not one that a run left, or its data are gone.
    CheckpointError: its parameters cannot be trusted.
  """
  folder = pathlib.Path(folder)
  if not (folder / 'report.json').exists():
    raise ConfigError(
      f'{os.fspath(folder)!r} has no report.json; give a folder faults/step_N of a work directory'
    )
  config, report = read_config(folder), read_json(folder / 'report.json')
  if not {'step', 'bucket', 'samples'} <= report.keys() or not isinstance(report['samples'], list):
    raise ConfigError(
      f'{os.fspath(folder / "report.json")!r} does not say which step it is about; put back a '
      'whole copy'
    )
  mesh = make_mesh(fields_of(config, 'mesh'), config.rules)
  with jax.set_mesh(mesh):
    spec = make_spec(config, folder)
    batch = load_batch(folder, rows_of_process(mesh, jax.process_index()))
    with Checkpoints(folder / 'checkpoints') as checkpoints:
      restored = checkpoints.restore(bare(_abstract(spec, mesh)))
    if restored is None:
      raise ConfigError(f'{os.fspath(folder)!r} has no checkpoint: its writing was cut short')
    state, _ = restored
    settings = run_settings(fields_of(config, 'train'), config.seed)
    options = {'seed': settings.seed, 'accumulate': accumulation(settings, mesh)}
    options['rates'] = optimizer_settings(fields_of(config, 'optimizer')).rates
    found = examine(spec, mesh, state, batch, **options)
    lines = [f'step {report["step"]}, bucket {report["bucket"]}: {first_bad(found)}']
    lines += [f'  {sample}' for sample in report['samples']]
    for tree, leaves in found.items():
      lines += _table(tree, leaves)
    if not any(bad for tree in ('batch', 'parameters') for _, bad in found[tree].values()):
      learn = make_learn_of(spec, **options)
      lines.append(_first_operation(spec, put_batch(batch, mesh), state, learn))
  return '\n'.join(lines)


def _abstract(spec: TrainSpec, mesh) -> State:
  other = spec.discriminator and (
    functools.partial(init_params, spec.discriminator),
    optax.identity(),
  )
  return abstract_state(functools.partial(init_params, spec), optax.identity(), mesh, other)


def _table(tree: str, leaves: Mapping[str, Sequence[float]]) -> list[str]:
  """Lists the leaves that are not finite, and of the others those with the largest norms."""
  bad = [f'  {name:60} {int(count)} NOT FINITE' for name, (_, count) in leaves.items() if count]
  norms = {name: norm for name, (norm, count) in leaves.items() if not count}
  names = sorted(norms, key=lambda name: -norms[name])
  more = [f'  and {len(names) - SHOWN} more that are finite'] if len(names) > SHOWN else []
  lines = [*bad, *(f'  {name:60} norm {norms[name]:.5g}' for name in names[:SHOWN]), *more]
  return [f'{tree}:', *lines] if lines else []


def _first_operation(spec: TrainSpec, batch: Batch, state: State, learn: Learn) -> str:
  """Says which line makes a NaN or infinity; JAX runs the program again, operation by operation.

  NaNs are looked for first: of infinities some are meant, such as those of a mask.
  """
  for looking in (jax.debug_nans, jax.debug_infs):
    try:
      with looking(True):
        jax.block_until_ready(jax.jit(learn)(state, spec.prepare(batch), spec.frozen))
    except FloatingPointError as error:
      frames = traceback.extract_tb(error.__traceback__)
      ours = [frame for frame in frames if f'{os.sep}mgjax{os.sep}' in frame.filename]
      where = ''.join(traceback.format_list(ours[-4:]))
      return f'the first of them: {str(error).splitlines()[0]}\n{where}'.rstrip()
  return 'no operation makes a NaN or an infinity'
