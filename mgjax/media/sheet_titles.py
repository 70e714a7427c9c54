"""The titles of a sheet as text inside its PNG, for what cannot read pictures."""

import io
import os
from collections.abc import Sequence

from PIL import Image, PngImagePlugin

from mgjax.core.errors import printable
from mgjax.core.files import write_bytes

_KEY, _LONGEST, _MOST = 'Description', 300, 64  # letters of a title; titles


def write_sheet(path: str | os.PathLike[str], sheet: Image.Image, titles: Sequence[str]) -> None:
  """Writes a PNG, atomically, that holds its titles as a text too."""
  info = PngImagePlugin.PngInfo()
  lines = [' '.join(title[:_LONGEST].split()).replace('\0', '') for title in titles[:_MOST]]
  info.add_itxt(_KEY, '\n'.join(lines).encode('utf-8', 'replace').decode())
  buffer = io.BytesIO()
  sheet.save(buffer, 'PNG', pnginfo=info)
  write_bytes(path, buffer.getvalue())


def read_titles(path: str | os.PathLike[str]) -> list[str]:
  """Reads the titles of a sheet; none of a file that holds none, or is no picture."""
  try:
    with Image.open(path, formats=['PNG']) as sheet:
      text = sheet.info.get(_KEY, '')
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return []
  return [printable(line)[:_LONGEST] for line in text.split('\n')[:_MOST] if line.strip()]
