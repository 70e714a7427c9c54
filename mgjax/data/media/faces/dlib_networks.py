"""Faces by dlib's networks, with the weights of the package face-recognition-models (CC0).

A convolutional detector (max-margin object detection), five landmarks, and a residual network that
turns an upright crop of 150 x 150 into 128 numbers (King, 2009, Dlib-ml; the weights are of 2017).
"""

import functools
import importlib
import importlib.util
import pathlib
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.faces.cascade import rescaled
from mgjax.data.media.faces.face import Face, Frame, crop_face

_SEEN = 80  # pixels, the smallest face that the detector was trained on
_LARGEST_ENLARGEMENT = 4.0
_SIDE = 150
_NUMBERS = 128
_MARGIN = 0.25
_PACKAGE = 'face_recognition_models'
_DETECTOR = 'mmod_human_face_detector.dat'
_LANDMARKS = 'shape_predictor_5_face_landmarks.dat'
_EMBEDDER = 'dlib_face_recognition_resnet_model_v1.dat'
_LOCK = threading.Lock()  # dlib's networks keep what they compute in themselves


def _dlib() -> ModuleType | None:
  """The module of the distribution dlib-bin; None where it is not installed."""
  try:
    return importlib.import_module('dlib')
  except ImportError:
    return None


@functools.cache
def _load(kind: str, name: str) -> Any:
  """Loads a network of dlib. The weights' package is not imported, since it needs pkg_resources."""
  dlib = _dlib()
  package = importlib.util.find_spec(_PACKAGE)
  folders = (package and package.submodule_search_locations) or []
  files = [path for folder in folders if (path := pathlib.Path(folder, 'models', name)).is_file()]
  if dlib is None or not files:
    missing = 'dlib' if dlib is None else f'{name} of the package face-recognition-models'
    raise ConfigError(
      f"these faces need {missing}, which is not installed: pip install 'mgjax[dlib]'"
    )
  return getattr(dlib, kind)(str(files[0]))


class DlibDetector:
  """dlib's convolutional detector, with five landmarks of each face."""

  def __init__(self, smallest: float):
    """Takes the smallest face to find, as a share of the shorter side of a picture."""
    self._smallest = smallest
    self._network = _load('cnn_face_detection_model_v1', _DETECTOR)
    self._landmarks = _load('shape_predictor', _LANDMARKS)

  def find(self, frames: Sequence[Frame]) -> list[list[Face]]:
    """Returns the faces of each frame, the largest first."""
    return [self._find(frame) for frame in frames]

  def _find(self, frame: Frame) -> list[Face]:
    small, scale = rescaled(frame, _SEEN / self._smallest, _LARGEST_ENLARGEMENT)
    if min(small.shape[:2]) < _SEEN / 2:  # no face fits, and a few pixels end the process
      return []
    with _LOCK:
      boxes = [detection.rect for detection in self._network(small, 0)]
      shapes = [self._landmarks(small, box) for box in boxes]
    faces = []
    for box, shape in zip(boxes, shapes, strict=True):
      points = np.array([(point.y, point.x) for point in shape.parts()], np.float32)
      faces.append(Face(box.top(), box.left(), box.height(), box.width(), points))
    return sorted((face.scaled(1 / scale) for face in faces), key=lambda face: -face.height)


class DlibEmbedder:
  """dlib's residual network: 128 numbers, here of length 1.

  Its vectors all lie near one another: cosines of different people reach 0.85.
  """

  threshold = 0.9  # at .86 a face whose landmarks had slipped was taken for another person's

  def __init__(self):
    self._network = _load('face_recognition_model_v1', _EMBEDDER)
    self._landmarks = _load('shape_predictor', _LANDMARKS)

  def crop(self, frame: Frame, face: Face) -> UInt8[np.ndarray, 's s 3']:
    """Cuts a face out, turned upright by its landmarks, which are found if they are missing."""
    dlib = _dlib()
    # The face large enough for landmarks, in a picture of a few times its own size.
    length = max(face.height, face.width)
    around = crop_face(frame, face, 2 * _SIDE, 0.5)
    scale = 2 * _SIDE / (2 * length)
    middle = face.top + face.height / 2, face.left + face.width / 2
    low = round(_SIDE - scale * face.height / 2), round(_SIDE - scale * face.width / 2)
    box = dlib.rectangle(low[1], low[0], 2 * _SIDE - low[1], 2 * _SIDE - low[0])
    if face.points is None:
      shape = self._landmarks(around, box)
    else:
      landmarks = np.rint((face.points - middle) * scale + _SIDE).astype(int)
      shape = dlib.full_object_detection(box, [dlib.point(int(x), int(y)) for y, x in landmarks])
    return dlib.get_face_chip(around, shape, _SIDE, _MARGIN)

  def embed(self, crops: Sequence[UInt8[np.ndarray, 's s 3']]) -> Float[np.ndarray, 'n d']:
    """Returns a unit vector for each crop."""
    if not len(crops):
      return np.zeros((0, _NUMBERS), np.float32)
    with _LOCK:
      descriptors = self._network.compute_face_descriptor(
        [np.ascontiguousarray(crop) for crop in crops]
      )
    vectors = np.array([np.array(descriptor) for descriptor in descriptors], np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
