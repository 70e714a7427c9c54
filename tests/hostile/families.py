"""All families of hostile inputs, by the name that the table gives them."""

from tests.hostile import archives, manifests, side_files
from tests.hostile.family import Family

FAMILIES: tuple[Family, ...] = (*archives.FAMILIES, *manifests.FAMILIES, *side_files.FAMILIES)
