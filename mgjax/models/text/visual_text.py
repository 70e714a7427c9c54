"""What encoders are given of a prompt: all of it, its text alone, or what it quotes."""

import html
import unicodedata
from collections.abc import Callable

from mgjax.models.text.prompts import split_frame_rate

# Marks that open, and those that close them. A mark that may do both closes if it can.
_QUOTES = {
  '"': '"',
  "'": "'",
  '\u201c': '\u201d',  # “ ”
  '\u2018': '\u2019',  # ‘ ’
  '\u00ab': '\u00bb',  # « »
  '\u2039': '\u203a',  # ‹ ›
  '\u201e': '\u201c\u201d',  # „ “
  '\u201a': '\u2018\u2019',  # ‚ ‘
  '\u300c': '\u300d',  # 「 」
  '\u300e': '\u300f',  # 『 』
}
_CLOSE = {
  mark: [opening for opening, closing in _QUOTES.items() if mark in closing]
  for mark in ''.join(_QUOTES.values())
}
_APOSTROPHES = frozenset("'\u2018\u2019")


def visual_text(prompt: str) -> str:
  """Returns the quoted parts of a prompt, joined by spaces: what ByT5 reads (Movie Gen §3.1.4).

  'a sign says "open", a door «exit»' -> 'open exit'; '' if nothing is quoted. Of nested quotes the
  outer ones count, marks without a partner do not. A straight single quote opens only where no
  letter or digit stands before it, and single quotes close only where none follows: all others are
  apostrophes. Scripts without spaces (Chinese, Japanese, Korean) have no apostrophes.
  """
  spans: list[tuple[int, int]] = []
  opened: list[tuple[str, int]] = []  # marks that wait for their partner, with their places
  waiting = dict.fromkeys(_QUOTES, 0)  # how many of each these are
  for index, mark in enumerate(prompt):
    before = prompt[max(index - 1, 0) : index]
    behind = prompt[index + 1 : index + 2]
    apostrophe = mark in _APOSTROPHES and _in_word(behind)
    if not apostrophe and any(waiting[opening_mark] for opening_mark in _CLOSE.get(mark, ())):
      opening = ''
      while opening not in _CLOSE[mark]:
        opening, start = opened.pop()
        waiting[opening] -= 1
      while spans and spans[-1][0] > start:
        spans.pop()
      spans.append((start, index))
    elif mark in _QUOTES and not (mark == "'" and _in_word(before)):
      opened.append((mark, index))
      waiting[mark] += 1
  parts = [prompt[start + 1 : end].strip() for start, end in spans]
  return ' '.join(part for part in parts if part)


def _in_word(character: str) -> bool:
  """Says whether an apostrophe beside the character (none is '') would belong to a word."""
  return character.isalnum() and unicodedata.east_asian_width(character) not in 'WF'


def plain_text(prompt: str) -> str:
  """Returns a prompt without its frame rate, entities of HTML as characters: what Wan reads."""
  _, text = split_frame_rate(prompt)
  return ' '.join(html.unescape(html.unescape(text)).split())


# What an encoder may be given of a prompt, by the names of configurations.
READS: dict[str, Callable[[str], str]] = {
  'prompt': lambda prompt: prompt,
  'plain_text': plain_text,
  'visual_text': visual_text,
}
