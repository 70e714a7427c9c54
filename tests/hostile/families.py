"""All families of hostile inputs, by the name that the table gives them."""

from tests.hostile import media_files, side_files
from tests.hostile.family import Family

FAMILIES: tuple[Family, ...] = (*side_files.FAMILIES, *media_files.FAMILIES)
