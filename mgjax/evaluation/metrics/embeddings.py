"""Scores of pairs from vectors and probabilities: CLIP, CLAP, edits, classes of sounds, lags."""

import dataclasses

import numpy as np
import scipy.special

from mgjax.core.errors import DataError
from mgjax.core.typing import Float

_LEAST = 1e-12  # of a length
_SAME = 1e-6  # length of a difference of unit vectors below which it has no direction
_SUM = 1e-3  # by which probabilities may miss 1: those of float16 do


def cosines(x: Float[np.ndarray, '*b d'], y: Float[np.ndarray, '*b d']) -> Float[np.ndarray, '*b']:
  """Returns the cosine of each vector with its partner, in float64; 0 of a vector without length.

  Of CLAP's vectors of sounds and their captions it is the CLAP score, of a sound in each clip.
  """
  return np.sum(_unit(x) * _unit(y), axis=-1)


def clip_score(frames: Float[np.ndarray, 't d'], text: Float[np.ndarray, 'd']) -> float:
  """Returns the mean over frames of 100 max(cos(frame, text), 0).

  Hessel et al. (2021) have 2.5 in place of 100; torchmetrics cuts the mean, not each frame, at 0.
  """
  return float(100 * np.maximum(_unit(frames) @ _unit(text), 0).mean())


def frame_consistency(frames: Float[np.ndarray, 't d']) -> float:
  """Returns the mean cosine of each frame's vector with the next; 1 if still, NaN of one frame."""
  return float(cosines(frames[1:], frames[:-1]).mean()) if len(frames) > 1 else float('nan')


def class_divergence(
  reference: Float[np.ndarray, 'b c'], generated: Float[np.ndarray, 'b c']
) -> Float[np.ndarray, 'b']:
  """Returns KL(p || q) = sum_c p_c log(p_c / q_c) of each pair, in nats.

  p are a classifier's probabilities of what is true, q those of what was generated in its place. It
  is infinite where q says that something is impossible. Raises DataError if they are not
  probabilities of classes that exclude each other.
  """
  p, q = (np.asarray(each, np.float64) for each in (reference, generated))
  for each in (p, q):
    if not (each >= 0).all() or not np.allclose(each.sum(1), 1, rtol=0, atol=_SUM):
      raise DataError('a row of probabilities does not sum to 1; take the softmax of the logits')
  p, q = (each / each.sum(1, keepdims=True) for each in (p, q))
  return scipy.special.rel_entr(p, q).sum(1)


def embedding_offset(
  sound: Float[np.ndarray, 't d'],
  video: Float[np.ndarray, 't d'],
  rate: float,
  furthest: float = 2.0,
) -> float:
  """Returns the seconds by which sound is later than video: where their vectors agree most.

  Its absolute value is DeSync, where vectors of a network such as Synchformer are given.

    argmax_k mean_i cos(sound_(i + k), video_i),   |k| <= furthest rate

  The smallest |k| of equal ones. At least half of the shorter sequence has to overlap. There are
  `rate` vectors a second, of a space that both share; `furthest` is in seconds.
  """
  most = min(int(furthest * rate), len(sound) // 2)
  products = _unit(sound) @ _unit(video).T
  means = {
    lag: np.trace(products, -lag) / (len(sound) - abs(lag)) for lag in range(-most, most + 1)
  }
  return max(means, key=lambda lag: (means[lag], -abs(lag))) / rate


@dataclasses.dataclass(frozen=True)
class Directional:
  """Similarities of edited clips, one number a clip.

  `direction` is s, the mean of its frames: 0 of a frame that is as it was, NaN of a clip whose
  captions do not differ. `output` is the mean cosine of the edited frames with the target caption.
  """

  direction: Float[np.ndarray, 'b']
  output: Float[np.ndarray, 'b']


def directional_similarity(
  before: Float[np.ndarray, 'b t d'],
  after: Float[np.ndarray, 'b t d'],
  source: Float[np.ndarray, 'b d'],
  target: Float[np.ndarray, 'b d'],
) -> Directional:
  """Compares the way from frame to edited frame with the way from caption to caption.

    s = cos(E_v(after) - E_v(before), E_t(target caption) - E_t(source caption))

  (StyleGAN-NADA, Gal et al. 2021; of edits InstructPix2Pix, Brooks et al. 2022.) A high cosine says
  that what changed is what the captions say. It says nothing of what was to be kept, so that
  structure is measured beside it. The vectors, of frames (clips frames d) and captions (clips d),
  may be of any length: only directions count.
  """
  before, after, source, target = (
    _unit(vectors, _SAME) for vectors in (before, after, source, target)
  )
  said = target - source
  direction = np.einsum('btd,bd->bt', _unit(after - before, _SAME), _unit(said, _SAME)).mean(1)
  direction[np.linalg.norm(said, axis=1) < _SAME] = np.nan
  return Directional(direction, np.einsum('btd,bd->bt', after, target).mean(1))


def _unit(vectors: Float[np.ndarray, '*b d'], least: float = _LEAST) -> Float[np.ndarray, '*b d']:
  """Vectors of unit length in float64; zeros where they are shorter than `least`."""
  vectors = np.asarray(vectors, np.float64)
  length = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return np.where(length < least, 0.0, vectors / np.maximum(length, least))
