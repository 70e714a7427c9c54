"""A face in a picture: its box, and the crops, masks and drawings that are made of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mgjax.core.typing import Float, UInt8

Frame = UInt8[np.ndarray, '_ _ 3']  # frames of one call may differ in size
_COLOURS = ('#00e05a', '#ff4fa3', '#ffb000', '#3aa0ff')
_STROKE = 1 / 160  # of the shorter side, the line of a drawn box


@dataclasses.dataclass(frozen=True)
class Face:
  """The box of a face, in pixels; it may reach beyond the picture's edges.

  `points` are five landmarks, (y, x) each, if the detector has them. They are both corners of the
  eye on the right of the picture, the outer first, both of that on the left, and the base of the
  nose.
  """

  top: float
  left: float
  height: float
  width: float
  points: Float[np.ndarray, '5 2'] | None = dataclasses.field(default=None, compare=False)

  def scaled(self, factor: float) -> 'Face':
    """Returns the same face in a picture that is `factor` times as large."""
    box = (factor * side for side in (self.top, self.left, self.height, self.width))
    return Face(*box, None if self.points is None else factor * self.points)

  def within(self, height: int, width: int) -> tuple[float, float, float, float]:
    """Returns (top, left, height, width) as shares of the picture's height and width."""
    return self.top / height, self.left / width, self.height / height, self.width / width


def crop_face(
  frame: Frame, face: Face, side: int, margin: float = 0.0
) -> UInt8[np.ndarray, 's s 3']:
  """Cuts a square around the middle of a face, as large as its box's longer side, to `side` pixels.

  It grows by `margin`, a share of the box, on each side. Beyond the picture's edges it is black.
  """
  length = max(1, round(max(face.height, face.width) * (1 + 2 * margin)))
  row = round(face.top + (face.height - length) / 2)
  column = round(face.left + (face.width - length) / 2)
  square = np.zeros((length, length, 3), np.uint8)
  rows, columns = (
    slice(max(0, begin), max(0, min(begin + length, end)))
    for begin, end in ((row, frame.shape[0]), (column, frame.shape[1]))
  )
  part = frame[rows, columns]
  square[rows.start - row :, columns.start - column :][: part.shape[0], : part.shape[1]] = part
  return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))


def mask_face(crop: UInt8[np.ndarray, 's s 3']) -> UInt8[np.ndarray, 's s 3']:
  """Makes a crop black outside its inscribed ellipse.

  Unlike a hull of landmarks it is the same for every detector, and keeps forehead and hair.
  """
  offsets = (np.arange(crop.shape[0]) + 0.5) / crop.shape[0] * 2 - 1
  inside = np.square(offsets)[:, None] + np.square(offsets)[None] <= 1
  return crop * inside[..., None].astype(np.uint8)


def draw_faces(frame: Frame, faces: Sequence[Face]) -> Frame:
  """Draws the boxes of faces and their landmarks on a copy of a picture."""
  image = Image.fromarray(np.ascontiguousarray(frame))
  pen = ImageDraw.Draw(image)
  stroke = max(1, round(_STROKE * min(image.size)))
  for number, face in enumerate(faces):
    colour = _COLOURS[number % len(_COLOURS)]
    box = (face.left, face.top, face.left + face.width, face.top + face.height)
    pen.rectangle(box, outline=colour, width=stroke)
    for y, x in () if face.points is None else face.points:
      pen.ellipse((x - stroke, y - stroke, x + stroke, y + stroke), fill=colour)
  return np.asarray(image)
