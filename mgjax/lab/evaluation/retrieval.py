"""Evaluates a CLIP on held-out images: retrieval, attributes, identities."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, Int
from mgjax.data.clips import evenly
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.data.synthetic_datasets import judge_of
from mgjax.lab.evaluation.record.measured import (
  Measured,
  estimate_metric,
  number_metric,
  share_metric,
)
from mgjax.lab.statistics.intervals import share
from mgjax.lab.worlds.judging import Picture, PicturesJudge
from mgjax.sections.clip.pipeline import Clip

LABELS = {
  'image_to_text': 'images nearest to their own caption',
  'text_to_image': 'captions nearest to an image of theirs, of all images',
  'text_to_one_image': 'the same, of one image a caption',
  'identity_auc': 'area under the curve of the same',
}
_SHOWN = 8  # captions on the sheet, and images a caption


def judge_retrieval(
  clip: Clip, *, samples: int = 4096
) -> tuple[Measured, list[tuple[str, np.ndarray]]]:
  """Compares held-out images of a synthetic dataset with all captions and with each other.

  The dataset's judge defines identities (`PicturesJudge`). For digits an identity is one image
  of handwriting: the query shows it in one colour and position, and the candidates are all images
  of the same digit in the next colour. The area under the curve is the probability that the match
  is nearer than another image. The compared vectors are those of the model's head for identities,
  if it has one.

  Returns the numbers beside chance, and for some captions that have images the nearest images:
  (title, uint8 (n h w 3)). Raises DataError if no identity occurs twice, ConfigError if the model's
  data have no judge of images.
  """
  data = data_settings(fields_of(clip.config, 'data'))
  size = clip.config.model.vision.size
  make = judge_of(data.kind, 'pictures')
  judge: PicturesJudge = make(
    make_world(data, 'validation', frames=1, size=(size, size), extras=())
  )
  pictures = judge.pictures(samples)
  pictured = {picture.caption for picture in pictures}  # leaves out captions without an image here
  choices = [choice for choice in judge.choices if choice[0] in pictured]
  images = np.stack([picture.image for picture in pictures])
  captions = [caption for caption, _ in choices]
  own = np.array([captions.index(picture.caption) for picture in pictures])
  labels = LABELS | {'identity': f'images nearest to their {judge.identities}'}
  labels |= {name: f'images nearest to a caption of their {name}' for name in choices[0][1]}
  vectors, texts = clip.encode_images(images), clip.encode_texts(captions)
  cosines = vectors @ texts.T
  correct, chance = _captions(cosines, own, [says for _, says in choices])
  scores = {name: hits.mean() for name, hits in correct.items()}
  views = clip.encode_identities(images) if clip.identity else vectors
  hits, ranks, shares, same, other = _identities(views, pictures)
  scores |= {'identity': np.mean(hits), 'identity_auc': np.mean(ranks)}
  chance |= {'identity': np.mean(shares), 'identity_auc': 0.5}
  scores = {name: float(score) for name, score in scores.items()}
  chance = {name: float(share) for name, share in chance.items()}
  close = {'same': float(np.mean(same)), 'other': float(np.mean(other))}
  metrics = {}
  for name, outcomes in (correct | {'identity': hits}).items():
    options = {'label': labels[name], 'better': 1, 'beside': {'chance': chance[name]}}
    if outcomes.shape == own.shape and name != 'identity':
      metrics[f'retrieval/{name}'] = share_metric(outcomes, show_extremes=False, **options)
    else:
      metrics[f'retrieval/{name}'] = estimate_metric(share(outcomes.ravel()), **options)
  area = number_metric(
    scores['identity_auc'], len(hits), labels['identity_auc'], 1, beside={'chance': 0.5}
  )
  metrics['retrieval/identity_auc'] = area
  counts = {'images': len(pictures), 'captions': len(captions), 'queries': len(hits)}
  measured = Measured(
    metrics,
    [captions[number] for number in own],
    record={'retrieval': scores, 'chance': chance, 'cosines': close} | counts,
    notes=[
      f'{len(pictures)} images, {len(captions)} captions, {len(hits)} identities in pairs',
      'cosines of an identity in two views: '
      + ', '.join(f'{name} {value:.3f}' for name, value in close.items()),
    ],
  )
  rows = []
  for number in evenly(len(captions), _SHOWN):
    best = np.argsort(-cosines[:, number], kind='stable')[:_SHOWN]
    right = int((own[best] == number).sum())
    rows.append((f'{captions[number]}: {right} of {len(best)} right', images[best]))
  return measured, rows


def _captions(
  cosines: Float[np.ndarray, 'b n'],
  own: Int[np.ndarray, ' b'],
  choices: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns which images and captions retrieve their match, and the chance levels."""
  images = [np.flatnonzero(own == number) for number in range(len(choices))]
  groups = min(map(len, images))
  nearest = cosines.argmax(axis=1)
  factors = {name: np.array([choice[name] for choice in choices]) for name in choices[0]}
  numbers = np.arange(len(choices))
  # Caption of the image, group, text.
  one = cosines[np.stack([indices[:groups] for indices in images])]
  scores = {
    'image_to_text': nearest == own,
    **{name: values[nearest] == values[own] for name, values in factors.items()},
    'text_to_image': own[cosines.argmax(axis=0)] == numbers,
    'text_to_one_image': one.argmax(axis=0) == numbers[None],
  }
  kinds = {name: len(set(values.tolist())) for name, values in factors.items()}
  return scores, {name: 1 / kinds.get(name, len(choices)) for name in scores}


def _identities(vectors: Float[np.ndarray, 'b p'], pictures: Sequence[Picture]) -> list[np.ndarray]:
  """Searches the identities of a view among those of the next one, group by group.

  Returns hits, areas under the curve and chance levels of every image, and cosines of the same
  identity and of others.
  """
  first: dict[tuple[Any, int], dict[int, int]] = {}  # (group, view) -> identity -> its first image
  for index, picture in enumerate(pictures):
    first.setdefault((picture.group, picture.view), {}).setdefault(picture.identity, index)
  views = sorted({view for _, view in first})
  matches: list[list[np.ndarray]] = []
  for group in sorted({group for group, _ in first}):
    for view, following in zip(views, views[1:] + views[:1], strict=True):
      current, next_view = (first.get((group, one_view), {}) for one_view in (view, following))
      shared = sorted(current.keys() & next_view.keys())
      if len(shared) > 1 and view != following:
        selections = ([images[identity] for identity in shared] for images in (current, next_view))
        one, other = (vectors[selection] for selection in selections)
        matches.append(_matched(one @ other.T))
  if not matches:
    raise DataError('no identity is there twice, in two views; take more samples')
  return [np.concatenate(parts) for parts in zip(*matches, strict=True)]


def _matched(cosines: Float[np.ndarray, 'n n']) -> list[np.ndarray]:
  """Returns hits, areas, chance levels, cosines of matches and of others; rows match columns."""
  count = len(cosines)
  same = np.diag(cosines)
  others = ~np.eye(count, dtype=bool)
  below, equal = (compare(cosines, same[:, None]) & others for compare in (np.less, np.equal))
  areas = (below.sum(axis=1) + equal.sum(axis=1) / 2) / (count - 1)
  hits = below.sum(axis=1) == count - 1
  return [hits, areas, np.full(count, 1 / count), same, cosines[others]]


def write_retrieved(
  directory: pathlib.Path, rows: Sequence[tuple[str, np.ndarray]]
) -> pathlib.Path:
  """Draws what `judge_retrieval` found: a row a caption, the nearest image first."""
  path = directory / 'retrieved.png'
  contact_sheet(path, [images for _, images in rows], [title for title, _ in rows], scale=2)
  return path
