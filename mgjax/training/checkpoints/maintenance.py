"""Lists, verifies and prunes the checkpoints of a run."""

import contextlib
import dataclasses
from collections.abc import Callable

from mgjax.core.configuration.keys import Fields
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
  """A checkpoint in a list.

  Attributes:
    name: of its directory: the step, or `<step>.corrupt` if it was set aside as damaged.
    size: in bytes.
    written: the time, in seconds since 1970.
    loss: of validation at its step; None if it is not known.
    problem: why it is not usable; '' if its record is valid.
  """

  name: str
  size: int
  written: float
  loss: float | None
  problem: str


def list_checkpoints(checkpoints: Checkpoints) -> list[CheckpointSummary]:
  """Lists every checkpoint without reading arrays. Raises CheckpointError if there are none."""
  summaries = []
  for step in checkpoints.steps():
    loss = None
    problem = ''
    try:
      loss = checkpoints.look_at(step).get('loss')
    except Damaged as error:
      problem = str(error)
    # A run in progress may have removed it.
    with contextlib.suppress(FileNotFoundError, CheckpointError):
      size, written = size_and_time(checkpoints.path_of(step))
      summaries.append(CheckpointSummary(str(step), size, written, loss, problem))
  summaries += [
    CheckpointSummary(path.name, *size_and_time(path), None, 'set aside as damaged')
    for path in checkpoints.aside()
  ]
  if not summaries:
    raise checkpoints.nothing()
  return summaries


def verify_all(
  checkpoints: Checkpoints,
  steps: list[int] | None = None,
  report: Callable[[int, str], None] = lambda step, problem: None,
  config: Fields | None = None,
) -> dict[int, str]:
  """Reads all arrays of checkpoints, and returns the problem of each step, '' if it has none.

  By default all checkpoints are read, oldest first. `report` is called after each. With the
  `config` of the run, a checkpoint of another run is a problem too. Raises CheckpointError if there
  are none, or one of `steps` is missing.
  """
  problems: dict[int, str] = {}
  for step in checkpoints.steps() if steps is None else steps:
    path = checkpoints.path_of(step)
    try:
      checkpoints.verify(step)
      saved = checkpoints.look_at(step)['meta'].get('config')
      others = lasting_differences(saved, config) if saved and config else []
      problem = f'another run saved it ({"; ".join(others[:3])}); take its folder away'
      problems[step] = problem if others else ''
    except Damaged as error:
      if not path.exists():  # a run in progress has removed it
        continue
      problems[step] = str(error)
    report(step, problems[step])
  if not problems and not checkpoints.aside():
    raise checkpoints.nothing()
  return problems


@dataclasses.dataclass(frozen=True)
class Pruning:
  """A plan of which checkpoints to remove.

  Attributes:
    remove: names of the directories to remove.
    stay: the steps that stay; the last one is valid.
    damaged: newer step -> its problem. A resumed run sets these aside.
  """

  remove: list[str]
  stay: list[int]
  damaged: dict[int, str]


def plan_pruning(checkpoints: Checkpoints, keep: Keep, set_aside: bool = False) -> Pruning:
  """Plans which checkpoints to remove. The newest fully valid one always stays.

  With `set_aside`, checkpoints set aside as damaged are removed too. The run must not be in
  progress. Raises CheckpointError if there is no checkpoint, or none is valid.
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
  remove += [path.name for path in checkpoints.aside() if set_aside]
  return Pruning(remove, stay, damaged)


def remove(checkpoints: Checkpoints, name: str) -> None:
  """Removes one checkpoint. If this is interrupted, the rest does not count as a checkpoint."""
  remove_checkpoint(checkpoints.directory, name)
