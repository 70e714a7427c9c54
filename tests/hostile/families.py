"""All families of hostile inputs, by the name that the table gives them."""

from tests.hostile import side_files, weight_bombs, weight_files, weight_headers
from tests.hostile.family import Family

FAMILIES: tuple[Family, ...] = (
  *side_files.FAMILIES,
  *weight_files.FAMILIES,
  *weight_headers.FAMILIES,
  *weight_bombs.FAMILIES,
)
