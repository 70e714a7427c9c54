"""What the conditioning of an identity makes of the pictures of a sample."""

import numpy as np

from mgjax.models.clip.towers import ClipVision
from mgjax.models.conditioning.identity import Identity

VISION = ClipVision(8, patch=4, dim=16, depth=1, heads=2, mlp_dim=32, projection=None)


def test_pictures_of_any_size_are_read_at_that_of_the_tower():
  """Records have crops of 224 pixels as a rule, whatever the tower."""
  identity = Identity(VISION, dim=32, references=2)
  picture = np.zeros((1, 32, 32, 3), np.uint8)
  picture[:, 8:24, 8:24] = 200
  (read, absent) = identity.prepare({'reference': picture})['reference']
  assert read.shape == (8, 8, 3) and not absent.any()
  assert read[3:5, 3:5].min() > 190 and not read[0].any()  # Inside, and far from the edge.
