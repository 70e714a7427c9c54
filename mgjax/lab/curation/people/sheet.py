"""A picture of what was found in clips: their frames with boxes, and the references taken."""

import os
from collections.abc import Sequence

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.data.media.contact_sheet import contact_sheet, draw_frame
from mgjax.data.media.faces.face import Face, Frame, draw_faces

_FRAMES = 8  # of a clip
_LONGER = 320  # pixels of a drawn frame


class ReferenceSheet:
  """Collects the first clips, as many of those taken as of those left out."""

  def __init__(self, clips: int):
    self._room = {True: clips, False: clips}
    self._seen: list[np.ndarray] = []
    self._videos: list[np.ndarray] = []
    self._titles: list[str] = []

  def begin(self) -> None:
    self._seen = []

  def see(self, time: float, frame: Frame, faces: list[Face]) -> None:
    del time
    if any(self._room.values()) and len(self._seen) < _FRAMES:
      drawn = draw_faces(frame, faces)
      self._seen.append(np.asarray(draw_frame(drawn, small=_LONGER, large=_LONGER)))

  def end(self, name: str, rows: Sequence[JSON], reasons: Sequence[str]) -> None:
    """Ends a clip that gave rows and reasons."""
    if not self._seen or not self._room[bool(rows)]:
      return
    self._room[bool(rows)] -= 1
    self._videos.append(np.stack(self._seen))
    outcome = [f'{len(rows)} row{"s" * (len(rows) > 1)}'] if rows else []
    self._titles.append(f'{name}: {"; ".join([*outcome, *reasons])}')
    for row in rows:
      self._videos.append(row['reference'])
      self._titles.append(f'{"cross-paired" if row["cross"] else "paired"} references')

  def write(self, path: str | os.PathLike[str]) -> bool:
    """Writes a PNG, unless nothing was seen; says whether it did."""
    if self._videos:
      contact_sheet(path, self._videos, self._titles)
    return bool(self._videos)
