"""What can be asked of an editor, and what of that a model can do."""

import os
from collections.abc import Sequence

from mgjax.core.errors import ConfigError
from mgjax.models.conditioning.clips.source_video import SOURCE_VIDEO_KEY as SOURCE
from mgjax.models.conditioning.edit_task import EditTask
from mgjax.models.flow_model.conditions import field_names
from mgjax.models.flow_model.model import FlowModel
from mgjax.sections.editing.instructions import guess_task

HOWS = EDIT, SDEDIT = ('edit', 'sdedit')
STRENGTH = 0.6  # of SDEdit; the report's is not in public sources


def tasks_of(model: FlowModel) -> tuple[str, ...]:
  """Returns the tasks that a model is conditioned on; () for a model without tasks."""
  return next(
    (
      conditioning.tasks
      for conditioning in model.conditionings
      if isinstance(conditioning, EditTask)
    ),
    (),
  )


def name_task(instruction: str, task: str | None, known: Sequence[str]) -> str:
  """Returns the task of an instruction, guessed by the grammar where none is given.

  `task` is what was given; None guesses, '' says that none is meant.
  """
  return guess_task(instruction, known) if task is None else task


def check_edit(
  model: FlowModel,
  workdir: str | os.PathLike[str],
  how: str,
  prompts: Sequence[str],
  tasks: Sequence[str | None],
) -> None:
  """Checks that a model can edit.

  Args:
    model: of a run.
    prompts: instructions, or of SDEdit what edited videos show.

  Raises:
    ConfigError: there is no such way, the model reads no source video, nothing is said of a video,
      or the model does not know a task.
  """
  if how not in HOWS:
    raise ConfigError(f'how={how!r}; expected {" or ".join(HOWS)}')
  if how == EDIT and SOURCE not in field_names(model.conditionings):
    raise ConfigError(
      f'the model of {os.fspath(workdir)!r} reads no source video, so it follows no instructions; '
      'take the work directory of a video editor, or --strength=0.6 with what the video shall show'
    )
  if not prompts or not all(prompt.strip() for prompt in prompts):
    raise ConfigError("there is no instruction; say what to change, as in 'make it red'")
  known = tasks_of(model)
  for task in tasks:
    if task and how == SDEDIT:
      raise ConfigError(f'task {task!r}: SDEdit reads a prompt and no task; leave it out')
    if task and task not in known:
      expected = f'expected one of {", ".join(known)}' if known else 'the model knows none'
      raise ConfigError(f'task {task!r}: {expected}; leave it out where none fits')
