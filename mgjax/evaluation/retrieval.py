"""Measures a CLIP on handwriting that training never saw: retrieval, classes and identities."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.clip.pipeline import Clip
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.core.tables import aligned
from mgjax.core.typing import Bool, Float, Int
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_digits
from mgjax.digits.clips import all_captions
from mgjax.evaluation.metrics.intervals import Share, share
from mgjax.evaluation.reconstruction import evenly
from mgjax.evaluation.record.measured import (
  Measured,
  found_metric,
  number_metric,
  share_metric,
)
from mgjax.media.contact_sheet import contact_sheet

LABELS = {
  'image_to_text': 'images nearest to their own caption',
  'digit': 'images nearest to a caption of their digit',
  'colour': 'images nearest to a caption of their colour',
  'text_to_image': 'captions nearest to an image of theirs, of all images',
  'text_to_one_image': 'the same, of one image a caption',
  'identity': 'images nearest to their handwriting in another colour',
  'identity_auc': 'area under the curve of the same',
}
_SHOWN = 8  # captions on the sheet, and images a caption


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """Shares, named as in `LABELS`.

  Attributes:
    scores: of the model.
    chance: what they would be for vectors that know nothing.
    cosines: means over handwriting in two colours, of the 'same' and of 'other' of its digit.
    images: how many there are, all of held-out handwriting.
    captions: how many.
    queries: images whose handwriting was looked for.
    right: of shares over images, which images are right.
    shares: of the other shares, how many there are of.
    shown: the caption of each image.
  """

  scores: dict[str, float]
  chance: dict[str, float]
  cosines: dict[str, float]
  images: int
  captions: int
  queries: int
  right: Mapping[str, Bool[np.ndarray, 'b']] = dataclasses.field(default_factory=dict)
  shares: Mapping[str, Share] = dataclasses.field(default_factory=dict)
  shown: Sequence[str] = ()

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values; the scores go by the name `retrieval`."""
    values = dataclasses.asdict(self)
    del values['right'], values['shares'], values['shown']
    return {'retrieval': values.pop('scores'), **values}

  def measured(self) -> Measured:
    """Returns the shares with their intervals, beside chance."""
    metrics = {}
    for name, score in self.scores.items():
      options = {'label': LABELS[name], 'beside': {'chance': self.chance[name]}, 'better': 1}
      if name in self.right:
        found = share_metric(self.right[name], shown=False, **options)
      elif name in self.shares:
        found = found_metric(self.shares[name], **options)
      else:
        found = number_metric(score, self.queries, **options)
      metrics[f'retrieval/{name}'] = found
    return Measured(metrics, self.shown)

  def table(self) -> str:
    """Formats the scores beside chance, for people."""
    rows = [('', 'model', 'chance')]
    rows += [
      (LABELS[name], f'{score:.3f}', f'{self.chance[name]:.3f}')
      for name, score in self.scores.items()
    ]
    cosines = ', '.join(f'{name} {value:.3f}' for name, value in self.cosines.items())
    note = f'{self.images} images, {self.captions} captions, {self.queries} handwritings in pairs'
    return '\n'.join([*aligned(rows), note, f'cosines of handwriting in two colours: {cosines}'])


def judge_retrieval(
  clip: Clip, *, samples: int = 4096
) -> tuple[Retrieval, list[tuple[str, np.ndarray]]]:
  """Compares images of held-out handwriting with all captions and with each other.

  An identity is one image of handwriting. It is shown in one colour and place, and looked for among
  images of its own digit in another colour, one of each handwriting, so that neither digit nor
  colour tells it. The area under the curve is the probability that it is nearer than another. The
  vectors compared are those of the model's head for identities, if it has one.

  Args:
    clip: of a model that was trained on images of moving digits.
    samples: images, 4096 at most.

  Returns:
    The scores, and for some captions what is nearest: (title, uint8 (n h w 3)).

  Raises:
    ConfigError: the model was trained on something else.
    DataError: there are too few images to show every caption and some handwriting twice.
  """
  data = data_settings(fields_of(clip.config, 'data'))
  if data.kind != 'digits':
    raise ConfigError(
      f'retrieval is measured on moving digits; this model was trained on {data.kind!r} data'
    )
  size = clip.config.model.vision.size
  world = make_digits(data, 'validation', frames=1, size=(size, size), extras=())
  shown = [world[index] for index in range(min(samples, len(world)))]
  images = np.concatenate([sample['video'] for sample in shown])
  choices = all_captions(world.colours, ('',))
  captions = [caption for *_, caption in choices]
  own = np.array([captions.index(sample['caption']) for sample in shown])
  vectors, texts = clip.encode_images(images), clip.encode_texts(captions)
  cosines = vectors @ texts.T
  found, chance = _captions(cosines, own, choices)
  right = {name: hits for name, hits in found.items() if hits.shape == own.shape}
  scores = {name: hits.mean() for name, hits in found.items()}
  colours = [world.colours.index(sample['colour']) for sample in shown]
  views = clip.encode_identities(images) if clip.identity else vectors
  identities = _Identities(views, [s['identity'] for s in shown], [s['digit'] for s in shown])
  hits, ranks, shares, same, other = identities.compare(np.array(colours), len(world.colours))
  scores |= {'identity': np.mean(hits), 'identity_auc': np.mean(ranks)}
  chance |= {'identity': np.mean(shares), 'identity_auc': 0.5}
  others = {name: hits.ravel() for name, hits in found.items() if name not in right}
  retrieval = Retrieval(
    scores={name: float(score) for name, score in scores.items()},
    chance={name: float(share) for name, share in chance.items()},
    cosines={'same': float(np.mean(same)), 'other': float(np.mean(other))},
    images=len(shown),
    captions=len(captions),
    queries=len(hits),
    right=right,
    shares={name: share(each) for name, each in (others | {'identity': hits}).items()},
    shown=[captions[number] for number in own],
  )
  rows = []
  for number in evenly(len(captions), _SHOWN):
    best = np.argsort(-cosines[:, number], kind='stable')[:_SHOWN]
    right = int((own[best] == number).sum())
    rows.append((f'{captions[number]}: {right} of {len(best)} right', images[best]))
  return retrieval, rows


def _captions(
  cosines: Float[np.ndarray, 'b n'], own: Int[np.ndarray, ' b'], choices: Sequence[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """What is right of images against captions, and what chance has."""
  places = [np.flatnonzero(own == number) for number in range(len(choices))]
  if not (groups := min(map(len, places))):
    raise DataError(f'{len(own)} images do not show all {len(choices)} captions; take more samples')
  nearest = cosines.argmax(axis=1)
  digits, colours = (np.array([choice[field] for choice in choices]) for field in (0, 1))
  numbers = np.arange(len(choices))
  one = cosines[np.stack([place[:groups] for place in places])]  # caption shown, group, text
  scores = {
    'image_to_text': nearest == own,
    'digit': digits[nearest] == digits[own],
    'colour': colours[nearest] == colours[own],
    'text_to_image': own[cosines.argmax(axis=0)] == numbers,
    'text_to_one_image': one.argmax(axis=0) == numbers[None],
  }
  chance = {
    'image_to_text': 1 / len(choices),
    'digit': 1 / len(set(digits)),
    'colour': 1 / len(set(colours)),
    'text_to_image': 1 / len(choices),
    'text_to_one_image': 1 / len(choices),
  }
  return scores, chance


class _Identities:
  """Vectors of images with the handwriting and the digit that each shows."""

  def __init__(
    self, vectors: Float[np.ndarray, 'b p'], identities: Sequence[int], digits: Sequence[int]
  ):
    self.vectors, self.identities = vectors, np.array(identities)
    self.digits = np.array(digits)

  def compare(self, colours: Int[np.ndarray, ' b'], count: int) -> list[np.ndarray]:
    """Looks for the handwriting of a colour among that of the next one.

    Returns:
      Of every image that was looked for: whether it was found, its area under the curve, what
      chance finds; the cosines of the same and of other handwriting.
    """
    found: list[list[np.ndarray]] = []
    for digit in np.unique(self.digits):
      for colour in range(count if count > 1 else 0):
        first = self._first((self.digits == digit) & (colours == colour))
        second = self._first((self.digits == digit) & (colours == (colour + 1) % count))
        both = sorted(first.keys() & second.keys())
        if len(both) > 1:
          here, there = ([views[identity] for identity in both] for views in (first, second))
          found.append(_matched(self.vectors[here] @ self.vectors[there].T))
    if not found:
      raise DataError('no handwriting is there twice, in two colours; take more samples')
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]

  def _first(self, chosen: Bool[np.ndarray, ' b']) -> dict[int, int]:
    """Identity -> the first of the chosen images that shows it."""
    views: dict[int, int] = {}
    for index in np.flatnonzero(chosen):
      views.setdefault(int(self.identities[index]), int(index))
    return views


def _matched(cosines: Float[np.ndarray, 'n n']) -> list[np.ndarray]:
  """Row i has its own in column i: hits, areas, chances, cosines of the same and of others."""
  count = len(cosines)
  same, others = np.diag(cosines), ~np.eye(count, dtype=bool)
  below, equal = (compare(cosines, same[:, None]) & others for compare in (np.less, np.equal))
  areas = (below.sum(axis=1) + equal.sum(axis=1) / 2) / (count - 1)
  hits = below.sum(axis=1) == count - 1
  return [hits, areas, np.full(count, 1 / count), same, cosines[others]]


def write_retrieved(
  directory: str | os.PathLike[str], rows: Sequence[tuple[str, np.ndarray]]
) -> pathlib.Path:
  """Draws what `judge_retrieval` found: a row a caption, the nearest image first."""
  path = pathlib.Path(directory) / 'retrieved.png'
  contact_sheet(path, [images for _, images in rows], [title for title, _ in rows], scale=2)
  return path
