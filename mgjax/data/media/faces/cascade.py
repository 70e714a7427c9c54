"""Finds faces by a cascade of local binary patterns and compares them by histograms (scikit-image).

Both need no weights beyond the 50 kB in scikit-image's wheel, and both are weak. The cascade finds
frontal faces, and the histogram recognises a person under the same light from the same side.
`launch.data calibrate_faces` measures how weak.
"""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from mgjax.core.plug_ins import load_package
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.faces.face import Face, Frame, crop_face

_WINDOW = 24  # pixels of the cascade's window
_SEEN = 72  # pixels to which the smallest face is scaled
_STEP = 1.1  # from one size of the window to the next
_NEIGHBOURS = 2  # windows that must agree; 4, the default, found none of carphone's faces
_LARGEST_ENLARGEMENT = 8.0
_SIDE, _CELLS = 84, 7  # pixels of a crop, and cells along each of its sides
# uniform patterns, and how many there are
_POINTS = 8
_RADIUS = 2
_BINS = 59


@functools.cache
def _scikit_image() -> ModuleType:
  purpose = 'finding faces needs scikit-image'
  for part in ('skimage.data', 'skimage.feature'):
    load_package(part, purpose, 'faces')
  return load_package('skimage', purpose, 'faces')


@functools.cache
def _cascade() -> Any:
  skimage = _scikit_image()
  return skimage.feature.Cascade(skimage.data.lbp_frontal_face_cascade_filename())


class CascadeDetector:
  """A cascade of multi-block local binary patterns (Liao et al., 2007), with OpenCV's weights."""

  def __init__(self, smallest: float):
    """Takes the smallest face to find, as a share of the shorter side of a picture."""
    self._smallest = smallest
    self._cascade = _cascade()

  def find(self, frames: Sequence[Frame]) -> list[list[Face]]:
    """Returns the faces of each frame, the largest first."""
    return [self._find(frame) for frame in frames]

  def _find(self, frame: Frame) -> list[Face]:
    small, scale = rescaled(frame, _SEEN / self._smallest, _LARGEST_ENLARGEMENT)
    shorter = min(small.shape[:2])
    if shorter < _WINDOW:
      return []
    least = max(_WINDOW, round(self._smallest * shorter))
    detections = self._cascade.detect_multi_scale(
      img=small,
      scale_factor=_STEP,
      step_ratio=1,
      min_size=(least, least),
      max_size=(shorter, shorter),
      min_neighbor_number=_NEIGHBOURS,
    )
    faces = [
      Face(detection['r'], detection['c'], detection['height'], detection['width'])
      for detection in detections
    ]
    faces = sorted((face.scaled(1 / scale) for face in faces), key=lambda face: -face.height)
    return [face for n, face in enumerate(faces) if not any(_lies_in(face, e) for e in faces[:n])]


def _lies_in(face: Face, larger: Face) -> bool:
  """Whether the middle of a face lies in a larger one: windows of one face are not all merged."""
  down = face.top + face.height / 2 - larger.top
  right = face.left + face.width / 2 - larger.left
  return 0 <= down <= larger.height and 0 <= right <= larger.width


class PatternEmbedder:
  """Histograms of uniform local binary patterns in cells of a face (Ahonen et al., 2006).

  The vector is their square root, so that a cosine is the Bhattacharyya coefficient of two faces.
  """

  threshold = 0.69  # not in public sources; of ten pictures of four people

  def __init__(self):
    self._feature = _scikit_image().feature

  def crop(self, frame: Frame, face: Face) -> UInt8[np.ndarray, 's s 3']:
    """Cuts the box out."""
    return crop_face(frame, face, _SIDE)

  def embed(self, crops: Sequence[UInt8[np.ndarray, 's s 3']]) -> Float[np.ndarray, 'n d']:
    """Returns a unit vector for each crop."""
    if not len(crops):
      return np.zeros((0, _CELLS * _CELLS * _BINS), np.float32)
    return np.stack([self._embed(crop) for crop in crops])

  def _embed(self, crop: UInt8[np.ndarray, 's s 3']) -> Float[np.ndarray, ' d']:
    grey = np.asarray(Image.fromarray(crop).convert('L'))
    patterns = self._feature.local_binary_pattern(grey, _POINTS, _RADIUS, 'nri_uniform')
    size = _SIDE // _CELLS
    cells = patterns.astype(int).reshape(_CELLS, size, _CELLS, size).swapaxes(1, 2)
    counts = [np.bincount(cell.ravel(), minlength=_BINS) for row in cells for cell in row]
    return np.sqrt(np.concatenate(counts) / patterns.size).astype(np.float32)


def rescaled(frame: Frame, shorter: float, most: float) -> tuple[UInt8[np.ndarray, 'i j 3'], float]:
  """Returns a frame with its shorter side at `shorter` pixels, and by how much it was scaled.

  It is enlarged by `most` at most.
  """
  scale = min(most, shorter / min(frame.shape[:2]))
  size = tuple(max(1, round(scale * length)) for length in frame.shape[1::-1])
  image = Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BICUBIC)
  return np.asarray(image), scale
