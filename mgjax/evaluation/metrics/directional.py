"""Whether an edit goes the way its captions go: directional similarity of CLIP's vectors.

  s = cos(E_v(after) - E_v(before), E_t(target caption) - E_t(source caption))

(StyleGAN-NADA, Gal et al. 2021; of edits InstructPix2Pix, Brooks et al. 2022.) A high cosine says
that what changed is what the captions say. It says nothing of what was to be kept, so that
structure is measured beside it.
"""

import dataclasses

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float

_LEAST = 1e-6  # length of a difference of unit vectors below which it has no direction


@dataclasses.dataclass(frozen=True)
class Directional:
  """Similarities of edited clips, one number a clip.

  Attributes:
    direction: s, the mean of its frames. 0 of a frame that is as it was: it goes no way at all; NaN
      of a clip whose captions do not differ.
    output: cosine of the edited frames with the target caption, the mean of them.
  """

  direction: Float[np.ndarray, 'b']
  output: Float[np.ndarray, 'b']


def directional_similarity(
  before: Float[np.ndarray, '_ _ _'],
  after: Float[np.ndarray, '_ _ _'],
  source: Float[np.ndarray, '_ _'],
  target: Float[np.ndarray, '_ _'],
) -> Directional:
  """Compares the way from frame to edited frame with the way from caption to caption.

  Args:
    before: vectors of the frames of clips, of any length: only directions count.
    after: of the same frames, edited.
    source: vectors of captions of what the clips show.
    target: of what they are to show.

  Raises:
    DataError: they do not belong together.
  """
  shape = before.shape
  if after.shape != shape or not source.shape == target.shape == (shape[0], shape[2]):
    raise DataError(
      f'vectors of frames {shape}, {after.shape}, of captions {source.shape}, {target.shape}; '
      'expected (clips, frames, d) twice and (clips, d) twice'
    )
  before, after, source, target = (
    _unit(np.asarray(vectors, np.float64)) for vectors in (before, after, source, target)
  )
  said = target - source
  direction = np.einsum('btd,bd->bt', _unit(after - before), _unit(said)).mean(1)
  direction[np.linalg.norm(said, axis=1) < _LEAST] = np.nan
  return Directional(direction, np.einsum('btd,bd->bt', after, target).mean(1))


def _unit(vectors: Float[np.ndarray, '*b d']) -> Float[np.ndarray, '*b d']:
  """Vectors of unit length; zeros where they have no direction."""
  length = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return np.where(length < _LEAST, 0.0, vectors / np.maximum(length, _LEAST))
