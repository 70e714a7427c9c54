"""The handwriting of synthetic clips: the 1,797 images of digits that ship inside scikit-learn.

An identity is one image, by its index in scikit-learn's data. Every fifth image of a digit is held
out from training. So that one judge may filter data and another judge what was made of them, what
is held out has two halves, every other image of a digit.
"""

import functools

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Float

# The images of a split, by their rank among those of their digit, modulo 10.
_RANKS = {'train': (0, 1, 2, 3, 5, 6, 7, 8), 'test': (4, 9), 'filter': (4,), 'judge': (9,)}
SPLITS = tuple(_RANKS)


@functools.cache
def _all_handwriting() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  from sklearn.datasets import load_digits  # a second of import that most programs do not need

  images, labels = load_digits(return_X_y=True)
  rank = np.zeros(len(labels), np.int64)  # of an image among those of its digit
  for digit in range(10):
    rank[labels == digit] = np.arange((labels == digit).sum())
  return images.reshape(-1, 8, 8).astype(np.float32) / 16, labels, rank % 10


def handwriting(split: str) -> tuple[Float[np.ndarray, 'b 8 8'], np.ndarray]:
  """Returns the images (in [0, 1]) and digits of a split.

  Every fifth image of a digit is 'test', the others are 'train'; 'filter' and 'judge' are the two
  halves of 'test'. The images come in the order of their writers, whom scikit-learn does not name;
  a writer may therefore have images in several splits, an image never.
  """
  images, labels, rank = _all_handwriting()
  keep = np.isin(rank, _RANKS[split])
  return images[keep], labels[keep]


@functools.cache
def identities_of(split: str, digit: int) -> tuple[int, ...]:
  """Returns the identities of the images of one digit in a split, see `handwriting`."""
  _, labels, rank = _all_handwriting()
  return tuple(np.flatnonzero(np.isin(rank, _RANKS[split]) & (labels == digit)).tolist())


def image_of(identity: int) -> tuple[Float[np.ndarray, '8 8'], int]:
  """Returns the image (in [0, 1]) of an identity, and its digit. Raises ConfigError without one."""
  images, labels, _ = _all_handwriting()
  if not 0 <= identity < len(labels):
    raise ConfigError(f'identity {identity}; expected an image of 0 to {len(labels) - 1}')
  return images[identity], int(labels[identity])
