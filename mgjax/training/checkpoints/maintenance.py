"""Lists, verifies and prunes the checkpoints of a run."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mgjax.core.errors import CheckpointError
from mgjax.training.checkpoints.fingerprints import Damaged
from mgjax.training.checkpoints.folders import remove_checkpoint, size_and_time
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import (
  Keep,
  steps_to_keep,
)
from mgjax.training.checkpoints.resume import lasting_differences


@dataclasses.dataclass(frozen=True)
class CheckpointSummary:
  """A checkpoint at a glance."""

  name: str  # of its directory, the step; `<step>.corrupt` if it was set aside
  size: int  # bytes
  written: float  # when, in seconds since 1970
  loss: float | None  # of the validation at its step, None if it is not known
  problem: str  # why it is no good, '' if at a glance it is


def list_checkpoints(checkpoints: Checkpoints) -> list[CheckpointSummary]:
  """Lists every checkpoint without reading arrays. Raises CheckpointError if there are none."""
  found = []
  for step in checkpoints.steps():
    loss = None
    problem = ''
    try:
      loss = checkpoints.look_at(step).get('loss')
    except Damaged as error:
      problem = str(error)
    # The run, which goes on, may have removed it.
    with contextlib.suppress(FileNotFoundError, CheckpointError):
      where = size_and_time(checkpoints.path_of(step))
      found.append(CheckpointSummary(str(step), *where, loss, problem))
  found += [
    CheckpointSummary(path.name, *size_and_time(path), None, 'set aside as damaged')
    for path in checkpoints.aside()
  ]
  if not found:
    raise checkpoints.nothing()
  return found


def verify_all(
  checkpoints: Checkpoints,
  steps: list[int] | None = None,
  report: Callable[[int, str], None] = lambda step, problem: None,
  config: Mapping[str, Any] | None = None,
) -> dict[int, str]:
  """Reads checkpoints whole, and returns for each step what is wrong with it, '' if nothing.

  By default all are read, oldest first; `report` hears of each as soon as it is. With the `config`
  of the run, what another run saved is wrong too. Raises CheckpointError if there never was one, or
  none of a step that is asked for.
  """
  found: dict[int, str] = {}
  for step in checkpoints.steps() if steps is None else steps:
    path = checkpoints.path_of(step)
    try:
      checkpoints.verify(step)
      saved = checkpoints.look_at(step)['meta'].get('config')
      others = lasting_differences(saved, config) if saved and config else []
      told = f'another run saved it ({"; ".join(others[:3])}); take its folder away'
      found[step] = told * bool(others)
    except Damaged as error:
      if not path.exists():  # the run, which goes on, has removed it
        continue
      found[step] = str(error)
    report(step, found[step])
  if not found and not checkpoints.aside():
    raise checkpoints.nothing()
  return found


@dataclasses.dataclass(frozen=True)
class Pruning:
  """What is to be cleared away."""

  # Directories of steps that nothing asks to be kept, and of those set aside if wanted.
  remove: list[str]
  stay: list[int]  # steps that stay, of which the last is good
  # Steps newer than that, with what is wrong; a run that goes on sets them aside.
  damaged: dict[int, str]


def plan_pruning(checkpoints: Checkpoints, keep: Keep, aside: bool = False) -> Pruning:
  """Decides what may go; the newest checkpoint that is good, read whole, counts as the newest.

  With `aside` what was set aside as damaged may go too. The run must not be going on. Raises
  CheckpointError if there is no checkpoint, or none is good; then none may go.
  """
  steps = checkpoints.steps()
  damaged = {}
  while steps:
    problem = verify_all(checkpoints, [steps[-1]])[steps[-1]]
    if not problem:
      break
    damaged[steps.pop()] = problem
  if not steps:
    if not damaged:
      raise checkpoints.nothing()
    raise CheckpointError(
      f'no checkpoint in {checkpoints.directory} is good (steps {sorted(damaged)}), so none is '
      'removed; bring the directory back from a backup'
    )
  stay = steps_to_keep(steps, keep, checkpoints.loss_of)
  remove = [str(step) for step in steps if step not in stay]
  remove += [path.name for path in checkpoints.aside() if aside]
  return Pruning(remove, stay, damaged)


def remove(checkpoints: Checkpoints, name: str) -> None:
  """Removes one checkpoint; if it is interrupted, what is left is no step any more."""
  remove_checkpoint(checkpoints.directory, name)
