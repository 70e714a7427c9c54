"""Examples on the page of a curation: pictures of clips that were kept or dropped, and why."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import printable
from mgjax.core.typing import Bool
from mgjax.data.clips import evenly
from mgjax.lab.report.page import data_url

# Numbers of rows, and 'middle' (JPEG) or 'loop' (animated WebP) -> pictures, None of one without.
Pictures = Callable[[Sequence[int], str], Sequence[bytes | None]]
Masks = Mapping[str, tuple[Bool[np.ndarray, '_'], Bool[np.ndarray, '_']]]

_KEPT, _DROPPED = 12, 6  # pictures of all that was kept, and of what each filter dropped
# bytes of a picture, and of all of them
_ONE = 2**18
_ALL = 8 * 2**20
_JPEG = b'\xff\xd8'
_LETTERS = 90  # of a caption that are shown


def examples(
  scores: Mapping[str, np.ndarray],
  reasons: np.ndarray,
  reached: Masks,
  alive: Bool[np.ndarray, '_'],
  pictures: Pictures,
) -> list[dict[str, Any]]:
  """Returns groups of `clips` with a `title`: clips kept, and clips that each filter dropped.

  `reached` has for each filter a mask of the rows that came to it and one of those that it kept;
  `alive` are those kept in the end. Clips without a picture are left out.
  """
  groups = {'Kept': _spread(alive, _KEPT)}
  for name, (incoming, remaining) in reached.items():
    groups[f'Dropped by {name}'] = _spread(incoming & ~remaining, _DROPPED)
  numbers = sorted({number for group in groups.values() for number in group})
  stills, loops = (
    dict(zip(numbers, pictures(numbers, kind), strict=True)) for kind in ('middle', 'loop')
  )
  room = _ALL
  filled = []
  for title, group in groups.items():
    clips = []
    for number in group:
      still, motion = stills[number], loops[number]
      cost = len(still or b'') + len(motion or b'')
      if not still or not still.startswith(_JPEG) or len(still) > _ONE or cost > room:
        continue
      room -= cost
      about = reasons[number] or _cut(scores['caption'][number] if 'caption' in scores else '')
      clips.append(
        {
          'name': printable(scores['clip'][number]),
          'about': printable(about),
          'still': data_url('image/jpeg', still),
          'motion': data_url('image/webp', motion) if motion else '',
        }
      )
    if clips:
      filled.append({'title': title, 'clips': clips})
  return filled


def _spread(chosen: Bool[np.ndarray, '_'], most: int) -> list[int]:
  """Some of the rows that are chosen, evenly over all of them."""
  numbers = np.flatnonzero(chosen)
  return numbers[evenly(len(numbers), most)].tolist() if len(numbers) else []


def _cut(caption: Any) -> str:
  text = caption if isinstance(caption, str) else ''
  return text if len(text) <= _LETTERS else f'{text[: _LETTERS - 1]}…'
