"""All families of hostile inputs, by the name that the table gives them."""

from tests.hostile import model_folders, side_files, tokenizer_pieces, tokenizers
from tests.hostile.family import Family

FAMILIES: tuple[Family, ...] = (
  *side_files.FAMILIES,
  *tokenizers.FAMILIES,
  *tokenizer_pieces.FAMILIES,
  *model_folders.FAMILIES,
)
