"""Measures a CLIP on pictures that training never saw: retrieval, what they show, identities."""

import pathlib
from collections.abc import Hashable, Sequence

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import DataError
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, Int, Sample
from mgjax.data.clips import evenly
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.data.synthetic_datasets import judge_of
from mgjax.lab.evaluation.record.measured import Measured, found_metric, number_metric, share_metric
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
  """Compares held-out images of a world with all captions and with each other.

  What an identity is, the judge of the world says (`PicturesJudge`): of digits, one image of
  handwriting, shown in one colour and place and looked for among its own digit in the next colour.
  The area under the curve is the probability that it is nearer than another. The vectors compared
  are those of the model's head for identities, if it has one.

  Returns the numbers beside chance, and for some captions what is nearest: (title, uint8 (n h w
  3)), of captions that some image has. Raises DataError if no identity is there twice, ConfigError
  if nobody knows pictures of the data that the model was trained on.
  """
  data = data_settings(fields_of(clip.config, 'data'))
  size = clip.config.model.vision.size
  make = judge_of(data.kind, 'pictures')
  judge: PicturesJudge = make(
    make_world(data, 'validation', frames=1, size=(size, size), extras=())
  )
  shown = judge.pictures(samples)
  told = {picture.caption for picture in shown}  # not what is held out of these pictures too
  choices = [choice for choice in judge.choices if choice[0] in told]
  images = np.stack([picture.image for picture in shown])
  captions = [caption for caption, _ in choices]
  own = np.array([captions.index(picture.caption) for picture in shown])
  labels = LABELS | {'identity': f'images nearest to their {judge.identities}'}
  labels |= {name: f'images nearest to a caption of their {name}' for name in choices[0][1]}
  vectors, texts = clip.encode_images(images), clip.encode_texts(captions)
  cosines = vectors @ texts.T
  found, chance = _captions(cosines, own, [says for _, says in choices])
  scores = {name: hits.mean() for name, hits in found.items()}
  views = clip.encode_identities(images) if clip.identity else vectors
  hits, ranks, shares, same, other = _identities(views, shown)
  scores |= {'identity': np.mean(hits), 'identity_auc': np.mean(ranks)}
  chance |= {'identity': np.mean(shares), 'identity_auc': 0.5}
  scores = {name: float(score) for name, score in scores.items()}
  chance = {name: float(share) for name, share in chance.items()}
  close = {'same': float(np.mean(same)), 'other': float(np.mean(other))}
  metrics = {}
  for name, each in (found | {'identity': hits}).items():
    options = {'label': labels[name], 'better': 1, 'beside': {'chance': chance[name]}}
    if each.shape == own.shape and name != 'identity':
      metrics[f'retrieval/{name}'] = share_metric(each, shown=False, **options)
    else:
      metrics[f'retrieval/{name}'] = found_metric(share(each.ravel()), **options)
  area = number_metric(
    scores['identity_auc'], len(hits), labels['identity_auc'], 1, beside={'chance': 0.5}
  )
  metrics['retrieval/identity_auc'] = area
  counts = {'images': len(shown), 'captions': len(captions), 'queries': len(hits)}
  measured = Measured(
    metrics,
    [captions[number] for number in own],
    record={'retrieval': scores, 'chance': chance, 'cosines': close} | counts,
    notes=[
      f'{len(shown)} images, {len(captions)} captions, {len(hits)} identities in pairs',
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
  choices: Sequence[Fields],
) -> tuple[Sample, Sample]:
  """What is right of images against captions, and what chance has."""
  places = [np.flatnonzero(own == number) for number in range(len(choices))]
  groups = min(map(len, places))
  nearest = cosines.argmax(axis=1)
  said = {name: np.array([choice[name] for choice in choices]) for name in choices[0]}
  numbers = np.arange(len(choices))
  one = cosines[np.stack([place[:groups] for place in places])]  # caption shown, group, text
  scores = {
    'image_to_text': nearest == own,
    **{name: values[nearest] == values[own] for name, values in said.items()},
    'text_to_image': own[cosines.argmax(axis=0)] == numbers,
    'text_to_one_image': one.argmax(axis=0) == numbers[None],
  }
  kinds = {name: len(set(values.tolist())) for name, values in said.items()}
  return scores, {name: 1 / kinds.get(name, len(choices)) for name in scores}


def _identities(vectors: Float[np.ndarray, 'b p'], shown: Sequence[Picture]) -> list[np.ndarray]:
  """Looks for the identities of a view among those of the next one, group by group.

  Returns hits, areas under the curve and chances of every image; cosines of the same and of others.
  """
  first: dict[
    tuple[Hashable, int], dict[int, int]
  ] = {}  # group, view -> identity -> its first image
  for index, picture in enumerate(shown):
    first.setdefault((picture.group, picture.view), {}).setdefault(picture.identity, index)
  views = sorted({view for _, view in first})
  found: list[list[np.ndarray]] = []
  for group in sorted({group for group, _ in first}):
    for view, following in zip(views, views[1:] + views[:1], strict=True):
      here, there = (first.get((group, each), {}) for each in (view, following))
      both = sorted(here.keys() & there.keys())
      if len(both) > 1 and view != following:
        places = ([each[identity] for identity in both] for each in (here, there))
        one, other = (vectors[place] for place in places)
        found.append(_matched(one @ other.T))
  if not found:
    raise DataError('no identity is there twice, in two views; take more samples')
  return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _matched(cosines: Float[np.ndarray, 'n n']) -> list[np.ndarray]:
  """Row i has its own in column i: hits, areas, chances, cosines of the same and of others."""
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
