"""Whether videos show who their references show, and copy how the references were taken.

All is measured on numbers that others extract: embeddings of faces, one a sampled frame (Movie Gen
§4, Table 14), or poses of what is in a reference and in the video made of it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float
from mgjax.evaluation.metrics.correlations import Correlation, correlate
from mgjax.evaluation.metrics.intervals import Share, share


@dataclasses.dataclass(frozen=True)
class Resemblance:
  """Cosines of the embeddings of one video; NaN where no frame has a face.

  `best` and `worst` are of the references and the frame that is most and least like them,
  `consecutive` of each sampled frame and the next, where both have a face; `found` is the share of
  sampled frames that have one.
  """

  best: float
  worst: float
  consecutive: tuple[float, ...]
  found: float


def resemblance(
  frames: Float[np.ndarray, 't d'], references: Float[np.ndarray, 'r d']
) -> Resemblance:
  """Compares the faces of a video with those of references, and each frame's with the next.

  With unit embeddings f_t of frames and the mean direction r of those of the references,

    best = max_t <f_t, r>,   worst = min_t <f_t, r>

  How several references count is not in public sources. The embeddings are of sampled frames in
  their order, NaN of one without a face. Raises DataError if there are no references, or one is not
  finite.
  """
  if not len(references) or not np.isfinite(references).all():
    raise DataError(
      f'{len(references)} references, of which {int(np.isnan(references).any(1).sum())} have no '
      'embedding; expected one of a face or more'
    )
  there = np.isfinite(frames).all(1)
  unit, towards = _unit(frames), _unit(_unit(references).mean(0))
  cosines = unit[there] @ towards
  pairs = there[1:] & there[:-1]
  consecutive = np.einsum('td,td->t', unit[1:], unit[:-1])[pairs]
  best, worst = (cosines.max(), cosines.min()) if cosines.size else (np.nan, np.nan)
  found = float(there.mean()) if len(there) else 0.0
  return Resemblance(float(best), float(worst), tuple(consecutive.tolist()), found)


def identity_shares(videos: Sequence[Resemblance], threshold: float) -> dict[str, Share]:
  """Returns the shares of Table 14 of videos, by the threshold of the embedder.

  'best' and 'worst' are the shares of videos whose best and worst frame show the person of the
  references, 'consistency' that of pairs of consecutive sampled frames which show one person. A
  video without a face does not show the person. The threshold is the cosine above which two
  embeddings are of one person; every embedder has its own. Raises DataError if there is no video.
  """
  pairs = [cosine for each in videos for cosine in each.consecutive]
  return {
    'best': share([each.best > threshold for each in videos]),
    'worst': share([each.worst > threshold for each in videos]),
    **({'consistency': share([cosine > threshold for cosine in pairs])} if pairs else {}),
  }


def copying(references: Mapping[str, Any], videos: Mapping[str, Any]) -> dict[str, Correlation]:
  """Correlates poses of references with those of the videos made of them, see `correlate`.

  A model that knows a person but copies no picture follows its prompts and the distribution of
  poses that videos have, so that all correlations are 0 but for chance. One that pastes has 1. Both
  map the name of a coordinate, such as 'turn', to its values, NaN where it could not be told.
  """
  return {name: correlate(references[name], videos[name]) for name in references}


def _unit(rows: Float[np.ndarray, '*b d']) -> Float[np.ndarray, '*b d']:
  return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
