"""Shares of kinds of clips in the sets beside the strictest one (Movie Gen §3.2.1).

The low-resolution set has 60% landscape. The extended one has 80% landscape and at least 60% with
people. Surplus clips are dropped at random.
"""

import numpy as np

from mgjax.lab.curation.filters.table import Columns, draws
from mgjax.lab.curation.settings import KeepSettings


def surplus(columns: Columns, settings: KeepSettings) -> np.ndarray:
  """Returns why each clip exceeds its kind's share, as 'too many landscape for 0.8', or ''.

  A kind without clips cannot have its share: then no clip is dropped for it. Reads 'width',
  'height', 'clip'; 'people_score' if there is one.
  """
  count = len(columns['clip'])
  reasons = np.full(count, '', object)
  lot = draws(columns['clip'], settings.seed, 'mixture')
  people = np.zeros(count, bool)
  if 'people_score' in columns:
    people = columns['people_score'] >= settings.person
    if settings.people:
      most = people.sum() * (1 - settings.people) / settings.people
      _drop(reasons, ~people, most, lot, f'too many clips without people for {settings.people:g}')
  if settings.landscape is not None:
    wide = columns['width'] >= columns['height']
    remaining = reasons == ''
    share = settings.landscape
    lot = lot - people  # clips without people are dropped first
    wides = (remaining & wide).sum()
    highs = (remaining & ~wide).sum()
    if share < 1:
      _drop(reasons, wide, highs * share / (1 - share), lot, f'too many landscape for {share:g}')
    if share > 0:
      most = wides * (1 - share) / share
      _drop(reasons, ~wide, most, lot, f'too many portrait for {1 - share:g}')
  return reasons


def _drop(reasons: np.ndarray, kind: np.ndarray, most: float, lot: np.ndarray, why: str) -> None:
  """Drops those of a kind that have the largest lots until as few are left as may be."""
  rows = np.flatnonzero(kind & (reasons == ''))
  allowed = round(most)
  if allowed and len(rows) > allowed:
    reasons[rows[np.argsort(lot[rows], kind='stable')[allowed:]]] = why
