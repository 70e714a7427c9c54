"""What copies of a video have in common: perceptual hashes and a layout of its colours.

It stands in for the embeddings of a copy detection network (Movie Gen §3.2.1: SSCD), and knows no
crops and no mirror. Each quarter of a clip is averaged into one picture, so that the size, the
frame rate and the encoding of a copy do not matter.
"""

import numpy as np
from PIL import Image

from mgjax.core.plug_ins import load_package
from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Score, Scorer
from mgjax.lab.curation.settings import MeasureSettings

_QUARTERS = 4
_SIDE = 32  # of the pictures that are hashed
_LIGHT, _COLOUR = 8, 4  # sides of the grids of brightness and of colour
_TO_COLOUR = np.array([[-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32)  # BT.601
_TO_LIGHT = np.array([0.299, 0.587, 0.114], np.float32)


class Fingerprint(Scorer):
  """`fingerprint_hash`, 64 bits a quarter, and `fingerprint_vector`, of length 1."""

  name = 'fingerprint'
  side = 64
  rate = 4.0

  def __init__(self, settings: MeasureSettings):
    del settings
    self._hash = load_package('imagehash', 'copies are found by imagehash', 'curation').phash
    self._seen: list[tuple[float, float, np.ndarray]] = []

  def see(self, frame: Frame) -> None:
    small = Image.fromarray(frame.pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    self._seen.append((frame.start, frame.end, np.asarray(small)))

  def scores(self, start: float, end: float) -> dict[str, Score]:
    inside = [
      (time, picture) for time, until, picture in self._seen if until > start and time < end
    ]
    if not inside:
      return {'hash': None, 'vector': None}
    positions = [(time - start) / (end - start) for time, _ in inside]
    pictures = [
      _typical(positions, [picture for _, picture in inside], n) for n in range(_QUARTERS)
    ]
    vector = np.concatenate([_layout(picture) for picture in pictures])
    hashes = [
      np.packbits(self._hash(Image.fromarray(np.uint8(np.rint(picture @ _TO_LIGHT)))).hash)
      for picture in pictures
    ]
    return {
      'hash': b''.join(code.tobytes() for code in hashes),
      'vector': (vector / np.linalg.norm(vector)).astype(np.float32).tolist(),
    }


def _typical(positions: list[float], pictures: list[np.ndarray], quarter: int) -> np.ndarray:
  """Returns the mean picture of a quarter of a clip, or the one nearest to its middle."""
  inside = [
    n for n, position in enumerate(positions) if int(max(position, 0) * _QUARTERS) == quarter
  ]
  middle = (quarter + 0.5) / _QUARTERS
  inside = inside or [int(np.argmin(np.abs(np.array(positions) - middle)))]
  return np.mean([pictures[n] for n in inside], axis=0, dtype=np.float32)


def _layout(picture: np.ndarray) -> np.ndarray:
  """Brightness without its mean on a grid, and colours on a coarser one, and a constant.

  The constant keeps the vector of an even grey from being zero.
  """
  light = _means(picture @ _TO_LIGHT, _LIGHT)
  colours = _means(picture @ _TO_COLOUR.T, _COLOUR)
  return np.concatenate([(light - light.mean()).ravel(), 2 * colours.ravel(), [1.0]])


def _means(picture: np.ndarray, grid: int) -> np.ndarray:
  size = _SIDE // grid
  return picture.reshape(grid, size, grid, size, -1).mean((1, 3))
