import itertools

import numpy as np
import pytest

from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.handwriting import SPLITS, handwriting, identities_of, image_of


def _identities(split):
  return {identity for digit in range(10) for identity in identities_of(split, digit)}


def test_what_is_held_out_has_two_halves_that_share_no_image():
  filtering, judging, test, train = map(_identities, ('filter', 'judge', 'test', 'train'))
  assert filtering | judging == test and not filtering & judging
  assert not train & test and len(train | test) == 1797
  for digit in range(10):
    halves = [len(identities_of(split, digit)) for split in ('filter', 'judge')]
    assert abs(halves[0] - halves[1]) <= 1
  pixels = {split: {image.tobytes() for image in handwriting(split)[0]} for split in SPLITS}
  for one, other in itertools.combinations(('train', 'filter', 'judge'), 2):
    assert not pixels[one] & pixels[other]


@pytest.mark.parametrize('split', SPLITS)
def test_an_identity_is_its_image(split):
  images, digits = handwriting(split)
  identities = sorted(_identities(split))
  for identity, image, digit in zip(identities, images, digits, strict=True):
    found, label = image_of(identity)
    assert label == digit and identity in identities_of(split, label)
    np.testing.assert_array_equal(found, image)


def test_a_world_is_drawn_from_its_half():
  for split in ('filter', 'judge'):
    drawn = {sample['identity'] for sample in Digits(split=split, frames=1, length=60)}
    assert drawn < _identities(split) and len(drawn) > 30
