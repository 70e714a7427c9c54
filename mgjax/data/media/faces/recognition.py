"""Finds faces and says whether two are of one person, by one of several libraries.

`open_faces` opens them by a name, [detector+]embedder:

cascade             scikit-image's cascade of local binary patterns finds, a histogram of such
                    patterns compares; needs no weights and is weak
dlib                dlib's convolutional networks, as the package face-recognition-models ships them
arcface:FILE.onnx   an ArcFace network of your own compares, the cascade finds
dlib+arcface:FILE   the same, and dlib finds

Each embedder has a threshold of its own on its cosines; `launch.data calibrate_faces` finds one for
other pictures.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

import numpy as np

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_function
from mgjax.core.settings import Checked, Range
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.faces.face import Face, Frame

DETECTORS = {
  'cascade': 'mgjax.data.media.faces.cascade:CascadeDetector',
  'dlib': 'mgjax.data.media.faces.dlib_networks:DlibDetector',
}
EMBEDDERS = {
  'cascade': 'mgjax.data.media.faces.cascade:PatternEmbedder',
  'dlib': 'mgjax.data.media.faces.dlib_networks:DlibEmbedder',
  'arcface': 'mgjax.data.media.faces.arcface:open_arcface',
}
SMALLEST_FACE = 0.2


@runtime_checkable
class Detector(Protocol):
  """Finds faces."""

  def find(self, frames: Sequence[Frame]) -> list[list[Face]]:
    """Returns the faces of each frame, the largest first."""


@runtime_checkable
class FaceEmbedder(Protocol):
  """Compares faces; from a cosine of `threshold` on two faces count as one person."""

  threshold: float

  def crop(self, frame: Frame, face: Face) -> UInt8[np.ndarray, 's s 3']:
    """Cuts a face out as `embed` expects it."""

  def embed(self, crops: Sequence[UInt8[np.ndarray, 's s 3']]) -> Float[np.ndarray, 'n d']:
    """Returns a unit vector for each crop."""


@dataclasses.dataclass(frozen=True)
class Faces(Checked):
  """A detector, an embedder, and the cosine above which two faces count as one person.

  `smallest` is the smallest face to find, as a share of the shorter side of a picture.
  """

  name: str
  detector: Detector
  embedder: FaceEmbedder
  threshold: Annotated[float, Range(least=-1, most=1)]
  smallest: Annotated[float, Range(least=0.02, most=1)] = SMALLEST_FACE

  def find(self, frames: Sequence[Frame]) -> list[list[Face]]:
    """Returns the faces of each frame, the largest first."""
    return self.detector.find(frames)

  def embed(self, frames: Sequence[Frame], faces: Sequence[Face]) -> Float[np.ndarray, 'n d']:
    """Returns a unit vector for one face of each frame."""
    pairs = zip(frames, faces, strict=True)
    return self.embedder.embed([self.embedder.crop(frame, face) for frame, face in pairs])


def open_faces(name: str, smallest: float = SMALLEST_FACE, threshold: float | None = None) -> Faces:
  """Opens a detector and an embedder by their name, see the top of the file.

  Faces from `smallest` on, a share of the shorter side of the picture, are found; the time for it
  grows with 1 / smallest^2. `threshold` replaces the embedder's own. Raises ConfigError if the name
  is unknown, a number is out of its range, or what the name asks for is not installed or not there.
  """
  detector, plus, embedder = name.partition('+')
  detector, embedder = (detector, embedder) if plus else ('', name)
  kind, colon, file = embedder.partition(':')
  detector = detector or ('cascade' if kind == 'arcface' else kind)
  if kind not in EMBEDDERS or (kind == 'arcface') != bool(colon and file):
    unknown = kind if kind not in EMBEDDERS else embedder
    raise ConfigError(f'faces = {name!r}: {did_you_mean(unknown, DETECTORS)}, or arcface:FILE.onnx')
  if detector not in DETECTORS:
    raise ConfigError(f'faces = {name!r}: {did_you_mean(detector, DETECTORS)}')
  finding = load_function(DETECTORS[detector])(smallest)
  comparing = load_function(EMBEDDERS[kind])(*filter(None, [file]))
  threshold = comparing.threshold if threshold is None else threshold
  return Faces(name, finding, comparing, threshold, smallest)
