"""All families of hostile inputs, by the name that the table gives them."""

from tests.hostile import (
  archives,
  manifests,
  media_files,
  side_files,
  weight_bombs,
  weight_files,
  weight_headers,
)
from tests.hostile.family import Family

_MODULES = (
  side_files,
  manifests,
  archives,
  media_files,
  weight_files,
  weight_headers,
  weight_bombs,
)
FAMILIES: tuple[Family, ...] = tuple(family for module in _MODULES for family in module.FAMILIES)
