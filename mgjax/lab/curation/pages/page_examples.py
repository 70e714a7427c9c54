"""Examples on the page of a curation: pictures of clips that were kept or dropped, and why."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mgjax.core.errors import printable
from mgjax.core.typing import Bool
from mgjax.data.clips import evenly
from mgjax.lab.report.page import section

# Numbers of rows, and 'middle' (JPEG) or 'loop' (animated WebP) -> pictures, None of one without.
Pictures = Callable[[Sequence[int], str], Sequence[bytes | None]]
Masks = Mapping[str, tuple[Bool[np.ndarray, '_'], Bool[np.ndarray, '_']]]

_KEPT, _DROPPED = 12, 6  # pictures of all that was kept, and of what each filter dropped
# bytes of a picture, and of all of them
_ONE = 2**18
_ALL = 8 * 2**20
_JPEG = b'\xff\xd8'
_HEIGHT = 90  # pixels of a picture on the page
_LETTERS = 90  # of a caption that are shown


def show_examples(
  scores: Mapping[str, np.ndarray],
  reasons: np.ndarray,
  reached: Masks,
  alive: Bool[np.ndarray, '_'],
  pictures: Pictures,
) -> str:
  """Returns HTML of what was kept, and of what each filter dropped; '' where there is no picture.

  `reached` has of each filter the rows that came to it, and those that it left; `alive` are those
  kept in the end.
  """
  groups = {'Kept': _spread(alive, _KEPT)}
  for name, (came, left) in reached.items():
    groups[f'Dropped by {name}'] = _spread(came & ~left, _DROPPED)
  wanted = sorted({number for group in groups.values() for number in group})
  stills, loops = (
    dict(zip(wanted, pictures(wanted, kind), strict=True)) for kind in ('middle', 'loop')
  )
  room = _ALL
  sections = []
  for title, group in groups.items():
    figures = []
    for number in group:
      still, motion = stills[number], loops[number]
      cost = len(still or b'') + len(motion or b'')
      if not still or not still.startswith(_JPEG) or len(still) > _ONE or cost > room:
        continue
      room -= cost
      about = reasons[number] or _cut(scores['caption'][number] if 'caption' in scores else '')
      figures.append(_figure(scores['clip'][number], about, still, motion))
    if figures:
      sections.append(f'<h3>{html.escape(title)}</h3><div class="shown">{"".join(figures)}</div>')
  return section('Examples', *sections) if sections else ''


def _spread(chosen: Bool[np.ndarray, '_'], most: int) -> list[int]:
  """Some of the rows that are chosen, evenly over all of them."""
  numbers = np.flatnonzero(chosen)
  return numbers[evenly(len(numbers), most)].tolist() if len(numbers) else []


def _figure(clip: str, about: str, still: bytes, motion: bytes | None) -> str:
  name, about = html.escape(printable(clip)), html.escape(printable(about))
  style = f'height:{_HEIGHT}px;max-width:none'
  shown = f'<img style="{style}" src="{_data("jpeg", still)}" alt="{name}">'
  if motion:  # who wants no motion sees the still one
    source = f'media="(prefers-reduced-motion:no-preference)" srcset="{_data("webp", motion)}"'
    shown = f'<picture><source {source}>{shown}</picture>'
  told = f'<figcaption>{name}<br><small>{about}</small></figcaption>'
  return f'<figure style="overflow:hidden">{shown}{told}</figure>'


def _data(kind: str, picture: bytes) -> str:
  return f'data:image/{kind};base64,{base64.b64encode(picture).decode()}'


def _cut(caption: object) -> str:
  text = caption if isinstance(caption, str) else ''
  return text if len(text) <= _LETTERS else f'{text[: _LETTERS - 1]}…'
