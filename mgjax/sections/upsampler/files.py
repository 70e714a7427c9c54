"""Enlarges video files: read, upsampled and written frame by frame, the sound untouched."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize
from mgjax.core.settings import Positive, Range
from mgjax.core.typing import UInt8
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.video import ClipInfo
from mgjax.sections.flow.requests import SHEET_FRAMES, Change, VideoFrame
from mgjax.sections.upsampler.geometry import check_size, scaled_size

Scale = Annotated[float, Range(least=1, most=16)]


@dataclasses.dataclass(frozen=True)
class Enlarged(Change):
  """One video to enlarge; the prompt says what it shows, '' where nobody says.

  Attributes:
    scale: of both sides; 2 unless there is a size.
    size: height and width of the result, in place of `scale`.
    keep_colours: those of the video, where the model would put right what has suffered.
  """

  needs_prompt: ClassVar[bool] = False

  scale: Scale | None = None
  size: tuple[Positive, Positive] | None = None
  keep_colours: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.scale is not None and self.size is not None:
      raise ConfigError('give one of a factor, as --factor=2, and --size=1080,1920')

  def size_of(self, video: ClipInfo) -> tuple[int, int]:
    """Returns height and width of the result. Raises ConfigError if they are too large."""
    size = self.size or scaled_size((video.height, video.width), self.scale or 2.0)
    check_size(size)
    return size

  def check(self, workdir: str | os.PathLike[str], changes: Mapping[str, object] = {}) -> None:
    """Checks the model, the video and where it goes; see `Request.check`."""
    super().check(workdir, changes)
    video = self.probe()
    self.size_of(video)
    self.rate(video)
    self.paths(video)

  def write(self, pipeline: Any) -> list[pathlib.Path]:
    """Enlarges the video with an `Upsampler`; writes it, a picture of some frames and a json."""
    video = self.probe()
    (height, width), paths = self.size_of(video), self.paths(video)
    options = {'prompt': self.prompt, 'fps': self.rate(video), 'seed': self.seed}
    options |= {'size': (height, width), 'rows': self.batch_size, 'keep_colours': self.keep_colours}
    sheet_frames, digests = self._write_frames(
      paths[0], video, lambda small: pipeline.stream(small, **options)
    )
    _write_sheet(paths[1], *sheet_frames, (height, width))
    output = {'height': height, 'width': width, **digests}
    return self._finish(paths, pipeline.provenance | {'request': self.described()} | output)


def _write_sheet(
  path: pathlib.Path,
  before: list[VideoFrame],
  after: list[UInt8[np.ndarray, 'i j 3']],
  size: tuple[int, int],
) -> None:
  """Draws the middle of some frames, in rows of bicubic and upsampled, pixel by pixel."""
  height, width = (min(side, 256) for side in size)
  top, left = (size[0] - height) // 2, (size[1] - width) // 2
  bicubic = [resize(frame[None], size, 'bicubic')[0] for frame in before]
  rows = [
    np.stack(frames)[:, top : top + height, left : left + width] for frames in (bicubic, after)
  ]
  contact_sheet(path, rows, ['bicubic', 'upsampled'], columns=SHEET_FRAMES)
