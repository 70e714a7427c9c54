"""Edits video files: read, edited and written frame by frame, the sound untouched."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mgjax.core.settings import Strength
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.sections.editing.requests import EDIT, SDEDIT, check_edit
from mgjax.sections.flow.requests import SHEET_FRAMES, Change, model_of
from mgjax.training.checkpoints.workdir import read_config, read_config_of


@dataclasses.dataclass(frozen=True)
class Edited(Change):
  """One video to edit; the prompt is the instruction, or of SDEdit what the edited video shows.

  Attributes:
    task: which kind of edit it is, '' for none; None has it guessed.
    how: 'edit' or 'sdedit'.
    strength: as of `Editor.stream`.
  """

  task: str | None = None
  how: str = EDIT
  strength: Strength | None = None

  @classmethod
  def of_row(cls, pipeline: Any, row: Any, folder: pathlib.Path, **options: Any) -> 'Edited':
    """Makes the request of a row of a suite; a task that the model does not know is left out.

    SDEdit is asked by the description of the edited video, where the suite has one.
    """
    video = pathlib.Path(row.fields['video'])
    sdedit = options.get('how') == SDEDIT
    prompt = (sdedit and row.fields['target']) or row.prompt
    task = row.fields['task'] if row.fields['task'] in pipeline.tasks and not sdedit else None
    out = folder / f'{row.index:04d}_{video.stem}.mp4'
    return cls(prompt, out, video=os.fspath(video), task=task, **options)

  def described(self, pipeline: Any = None) -> dict[str, Any]:
    """Returns the request as plain JSON values, with the pipeline's task."""
    fields = super().described()
    return fields | ({'task': self._task(pipeline)} if pipeline else {})

  def check(self, workdir: str | os.PathLike[str], changes: Mapping[str, object] = {}) -> None:
    """Checks the model, the video and where it goes; see `Request.check`."""
    if read_config(workdir).component != 'video':
      read_config_of(workdir, 'editing', 'a video editor')
    model, _ = model_of(workdir, changes)
    check_edit(model, workdir, self.how, self.prompts, [self.task])
    video = self.probe()
    self.rate(video)
    self.paths(video)

  def write(self, pipeline: Any) -> list[pathlib.Path]:
    """Edits the video with an `Editor`; writes it, a picture of some frames and a json."""
    task = self._task(pipeline)
    video = self.probe()
    paths, fps = self.paths(video), self.rate(video)
    (unknown,) = pipeline.tell([self.prompt], [fps] if video.frames > 1 else None)
    size = pipeline.size_for(video.frames, (video.height, video.width))
    options = {'task': task, 'how': self.how, 'strength': self.strength, 'fps': fps}
    options |= {'seed': self.seed, 'rows': self.batch_size}
    sheet_frames, digests = self._write_frames(
      paths[0], video, lambda frames: pipeline.edit_frames(frames, self.prompt, **options), size
    )
    rows = [np.stack(frames) for frames in sheet_frames]
    contact_sheet(paths[1], rows, ['before', self.prompt], columns=SHEET_FRAMES)
    height, width = size
    output = {'height': height, 'width': width, 'fps': fps, 'unknown_words': unknown, **digests}
    return self._finish(paths, pipeline.provenance | {'request': self.described(pipeline)} | output)

  def _task(self, pipeline: Any) -> str:
    """Checks that a pipeline can edit so, and returns the task that it takes."""
    pipeline.check_edit(self.how, self.prompts, [self.task])
    return pipeline.name_task(self.prompt, self.task, self.how)
