"""Faces by an ArcFace network of the user's own, an ONNX file (Deng et al., 2019).

Such files are published by several projects under licences of their own, many for research only;
none is shipped here. They read aligned crops of 112 x 112, (x - 127.5) / 127.5, channels first.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mgjax.core.errors import ConfigError, first_line
from mgjax.core.plug_ins import load_package
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.faces.face import Face, Frame, crop_face

_SIDE = 112
# Where ArcFace has the middle of both eyes, (y, x) in the crop: on the left, on the right.
_EYES = np.array([(51.6, 38.3), (51.5, 73.5)])


class ArcFace:
  """An ArcFace network; its threshold is Movie Gen's between frames of one person (§4)."""

  threshold = 0.5

  def __init__(self, session: Any):
    """Takes an onnxruntime session of pictures of 112 x 112; ConfigError for another network."""
    inputs = session.get_inputs()
    shapes = [list(network_input.shape) for network_input in inputs]
    if len(shapes) != 1 or shapes[0][1:] != [3, _SIDE, _SIDE]:
      raise ConfigError(
        f'the network reads {shapes}; expected pictures of ArcFace, [n, 3, {_SIDE}, {_SIDE}]'
      )
    self._session = session
    self._input = inputs[0].name
    self._batch = shapes[0][0]

  def crop(self, frame: Frame, face: Face) -> UInt8[np.ndarray, 's s 3']:
    """Cuts a face out, by its eyes where they are known."""
    if face.points is None:
      return crop_face(frame, face, _SIDE)
    right_eye = face.points[:2].mean(0)
    left_eye = face.points[2:4].mean(0)
    # The turn and scale that bring the eyes of the crop, as complex numbers, to those in the frame.
    source, target = ([complex(x, y) for y, x in eyes] for eyes in (_EYES, (left_eye, right_eye)))
    turn = (target[1] - target[0]) / (source[1] - source[0])
    shift = target[0] - turn * source[0]
    coefficients = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    image = Image.fromarray(np.ascontiguousarray(frame))
    if abs(turn) > 1:  # a transform reads single pixels: shrunk first, none is left out
      small = tuple(max(1, round(length / abs(turn))) for length in image.size)
      image = image.resize(small, Image.Resampling.BICUBIC)
      coefficients = tuple(number / abs(turn) for number in coefficients)
    return np.asarray(
      image.transform(
        (_SIDE, _SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
      )
    )

  def embed(self, crops: Sequence[UInt8[np.ndarray, 's s 3']]) -> Float[np.ndarray, 'n d']:
    """Returns a unit vector for each crop."""
    pixels = (np.stack(crops).astype(np.float32) - 127.5) / 127.5 if len(crops) else None
    if pixels is None:
      return np.zeros((0, 1), np.float32)
    pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
    step = self._batch if isinstance(self._batch, int) else len(pixels)
    outputs = [
      self._session.run(None, {self._input: pixels[first : first + step]})[0]
      for first in range(0, len(pixels), step)
    ]
    vectors = np.concatenate(outputs).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def open_arcface(file: str) -> ArcFace:
  """Opens an ONNX file; ConfigError if it or onnxruntime is missing, or it is no such network."""
  if not pathlib.Path(file).is_file():
    raise ConfigError(f'there is no file {file!r}; give the path of an ArcFace network, .onnx')
  onnxruntime = load_package('onnxruntime', 'ArcFace needs onnxruntime', 'arcface')
  try:
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
  except Exception as error:  # its errors have no class in common
    raise ConfigError(f'{file!r} is no network that can be used: {first_line(error)}') from None
  return ArcFace(session)
