"""Measures a CLIP on handwriting that training never saw: retrieval, classes and identities."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.clip.pipeline import Clip
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, Int
from mgjax.data.clips import evenly
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.evaluation.metrics.intervals import share
from mgjax.evaluation.record.measured import (
  Grid,
  Measured,
  found_metric,
  number_metric,
  share_metric,
)
from mgjax.media.contact_sheet import contact_sheet
from mgjax.worlds.digits.clips import all_captions

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


def judge_retrieval(
  clip: Clip, *, samples: int = 4096
) -> tuple[Measured, list[tuple[str, np.ndarray]]]:
  """Compares images of held-out handwriting with all captions and with each other.

  An identity is one image of handwriting. It is shown in one colour and place, and looked for among
  images of its own digit in another colour, one of each handwriting, so that neither digit nor
  colour tells it. The area under the curve is the probability that it is nearer than another. The
  vectors compared are those of the model's head for identities, if it has one.

  Returns the numbers beside chance, and for some captions what is nearest: (title, uint8 (n h w
  3)). Raises DataError if too few images show every caption and some handwriting twice.
  """
  data = data_settings(fields_of(clip.config, 'data'))
  if data.kind != 'digits':
    raise ConfigError(
      f'retrieval is measured on moving digits; this model was trained on {data.kind!r} data'
    )
  size = clip.config.model.vision.size
  world = make_world(data, 'validation', frames=1, size=(size, size), extras=())
  shown = [world[index] for index in range(min(samples, len(world)))]
  images = np.concatenate([sample['video'] for sample in shown])
  choices = all_captions(world.colours, ('',))
  captions = [caption for *_, caption in choices]
  own = np.array([captions.index(sample['caption']) for sample in shown])
  vectors, texts = clip.encode_images(images), clip.encode_texts(captions)
  cosines = vectors @ texts.T
  found, chance = _captions(cosines, own, choices)
  scores = {name: hits.mean() for name, hits in found.items()}
  views = clip.encode_identities(images) if clip.identity else vectors
  hits, ranks, shares, same, other = _identities(views, shown, world.colours)
  scores |= {'identity': np.mean(hits), 'identity_auc': np.mean(ranks)}
  chance |= {'identity': np.mean(shares), 'identity_auc': 0.5}
  scores = {name: float(score) for name, score in scores.items()}
  chance = {name: float(share) for name, share in chance.items()}
  close = {'same': float(np.mean(same)), 'other': float(np.mean(other))}
  metrics = {}
  for name, each in (found | {'identity': hits}).items():
    options = {'label': LABELS[name], 'better': 1, 'beside': {'chance': chance[name]}}
    if each.shape == own.shape and name != 'identity':
      metrics[f'retrieval/{name}'] = share_metric(each, shown=False, **options)
    else:
      metrics[f'retrieval/{name}'] = found_metric(share(each.ravel()), **options)
  area = number_metric(
    scores['identity_auc'], len(hits), LABELS['identity_auc'], 1, beside={'chance': 0.5}
  )
  metrics['retrieval/identity_auc'] = area
  counts = {'images': len(shown), 'captions': len(captions), 'queries': len(hits)}
  measured = Measured(
    metrics,
    [captions[number] for number in own],
    record={'retrieval': scores, 'chance': chance, 'cosines': close} | counts,
    table=[
      Grid(('model', 'chance'), {LABELS[name]: (scores[name], chance[name]) for name in scores}),
      f'{len(shown)} images, {len(captions)} captions, {len(hits)} handwritings in pairs',
      'cosines of handwriting in two colours: '
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
  kinds = {'digit': len(set(digits)), 'colour': len(set(colours))}
  return scores, {name: 1 / kinds.get(name, len(choices)) for name in scores}


def _identities(
  vectors: Float[np.ndarray, 'b p'], shown: Sequence[Mapping[str, Any]], colours: Sequence[str]
) -> list[np.ndarray]:
  """Looks for the handwriting of a colour among that of the next one.

  Returns hits, areas under the curve and chances of every image; cosines of the same and of others.
  """
  views: dict[tuple[int, str], dict[int, int]] = {}  # identity -> its first image
  for index, sample in enumerate(shown):
    identities = views.setdefault((int(sample['digit']), sample['colour']), {})
    identities.setdefault(int(sample['identity']), index)
  found: list[list[np.ndarray]] = []
  for digit in sorted({digit for digit, _ in views}):
    for place, colour in enumerate(colours if len(colours) > 1 else ()):
      first = views.get((digit, colour), {})
      second = views.get((digit, colours[(place + 1) % len(colours)]), {})
      both = sorted(first.keys() & second.keys())
      if len(both) > 1:
        here, there = ([each[identity] for identity in both] for each in (first, second))
        found.append(_matched(vectors[here] @ vectors[there].T))
  if not found:
    raise DataError('no handwriting is there twice, in two colours; take more samples')
  return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _matched(cosines: Float[np.ndarray, 'n n']) -> list[np.ndarray]:
  """Row i has its own in column i: hits, areas, chances, cosines of the same and of others."""
  count = len(cosines)
  same, others = np.diag(cosines), ~np.eye(count, dtype=bool)
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
