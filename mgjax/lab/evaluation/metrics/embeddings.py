"""Scores of pairs of vectors: CLIP, CLAP, edits."""

import dataclasses

import numpy as np

from mgjax.core.typing import Float

_LEAST = 1e-12  # of a length
_SAME = 1e-6  # length of a difference of unit vectors below which it has no direction


def cosines(x: Float[np.ndarray, '*b d'], y: Float[np.ndarray, '*b d']) -> Float[np.ndarray, '*b']:
  """Returns the cosine of each vector with its partner, in float64; 0 for a zero vector.

  Of CLAP's vectors of audio and their captions it is the CLAP score, of a sound in each clip.
  """
  return np.sum(_unit(x) * _unit(y), axis=-1)


def clip_score(frames: Float[np.ndarray, 't d'], text: Float[np.ndarray, 'd']) -> float:
  """Returns the mean over frames of 100 max(cos(frame, text), 0).

  Hessel et al. (2021) use 2.5 in place of 100; torchmetrics clips the mean, not each frame, at 0.
  """
  return float(100 * np.maximum(_unit(frames) @ _unit(text), 0).mean())


def frame_consistency(frames: Float[np.ndarray, 't d']) -> float:
  """Returns the mean cosine of each frame's vector with the next; 1 if still, NaN for one frame."""
  return float(cosines(frames[1:], frames[:-1]).mean()) if len(frames) > 1 else float('nan')


@dataclasses.dataclass(frozen=True)
class Directional:
  """Similarities of edited clips, one number a clip.

  `direction` is s, averaged over frames: 0 for an unchanged frame, NaN for a clip whose captions
  are equal. `output` is the mean cosine of the edited frames with the target caption.
  """

  direction: Float[np.ndarray, 'b']
  output: Float[np.ndarray, 'b']


def directional_similarity(
  before: Float[np.ndarray, 'b t d'],
  after: Float[np.ndarray, 'b t d'],
  source: Float[np.ndarray, 'b d'],
  target: Float[np.ndarray, 'b d'],
) -> Directional:
  """Compares the direction from frame to edited frame with that from caption to caption.

    s = cos(E_v(after) - E_v(before), E_t(target caption) - E_t(source caption))

  (StyleGAN-NADA, Gal et al. 2021; for edits InstructPix2Pix, Brooks et al. 2022.) A high cosine
  means that the edit follows the captions. It does not measure preservation, so measure structure
  as well. The vectors, of frames (clips frames d) and captions (clips d), may have any norm.
  """
  before, after, source, target = (
    _unit(vectors, _SAME) for vectors in (before, after, source, target)
  )
  caption_direction = target - source
  direction = np.einsum(
    'btd,bd->bt', _unit(after - before, _SAME), _unit(caption_direction, _SAME)
  ).mean(1)
  direction[np.linalg.norm(caption_direction, axis=1) < _SAME] = np.nan
  return Directional(direction, np.einsum('btd,bd->bt', after, target).mean(1))


def _unit(vectors: Float[np.ndarray, '*b d'], least: float = _LEAST) -> Float[np.ndarray, '*b d']:
  """Normalises vectors in float64; vectors shorter than `least` become zeros."""
  vectors = np.asarray(vectors, np.float64)
  length = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return np.where(length < least, 0.0, vectors / np.maximum(length, least))
