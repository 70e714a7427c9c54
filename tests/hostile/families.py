"""All families of hostile inputs, by the name that the table gives them."""

from tests.hostile import media_files, side_files, weight_bombs, weight_files, weight_headers
from tests.hostile.family import Family

FAMILIES: tuple[Family, ...] = tuple(
  family
  for module in (side_files, media_files, weight_files, weight_headers, weight_bombs)
  for family in module.FAMILIES
)
