"""All families of hostile inputs, by the name that the table gives them."""

from tests.hostile import (
  archives,
  manifests,
  media_files,
  model_folders,
  side_files,
  tokenizer_pieces,
  tokenizers,
  weight_bombs,
  weight_files,
  weight_headers,
)
from tests.hostile.family import Family

_MODULES = (
  side_files, manifests, archives, media_files, weight_files, weight_headers, weight_bombs,
  model_folders, tokenizers, tokenizer_pieces,
)  # fmt: skip
FAMILIES: tuple[Family, ...] = tuple(family for module in _MODULES for family in module.FAMILIES)
