"""Lists the words that a model was trained on, and the words of a prompt that it was not."""

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

_MOST = 2000  # words; beyond that a list tells little
_NAMED = 8  # unknown words of a prompt that are named
WORDS = 'words'  # the note of a checkpoint that has them
_LISTED = 60  # words that people are shown
_MARKS = re.compile(r'"\d+"')  # a number in quotes is spelt, as on a sign
# Of scripts that put no spaces between words every sign counts as one: kana and Chinese ones.
_WORD = re.compile(r'[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff]+')


class _Kept(dict):
  """Letters, their accents, digits and apostrophes stay; all else becomes a space."""

  def __missing__(self, code: int) -> int:
    self[code] = code if unicodedata.category(chr(code))[0] in 'LMN' else ord(' ')
    return self[code]


_KEPT = _Kept({ord("'"): ord("'"), 0x2019: ord("'")})


def vocabulary_of(text: str) -> list[str]:
  """Lists the different words of a text, in lower case: 'A cat, a Dog' -> ['a', 'cat', 'dog'].

  Unlike the tokens of `words.py`, they hold no marks and no numbers in quotes.
  """
  text = unicodedata.normalize('NFC', _MARKS.sub(' ', text).casefold())
  words = (word.strip("'") for word in _WORD.findall(text.translate(_KEPT)))
  return list(dict.fromkeys(filter(None, words)))


def learn_words(captions: Iterable[str]) -> list[str] | None:
  """Returns the words of captions in alphabetical order; None if they are more than `_MOST`."""
  words: set[str] = set()
  for caption in captions:
    words.update(vocabulary_of(caption))
    if len(words) > _MOST:
      return None
  return sorted(words)


def words_in(notes: object) -> tuple[str, ...]:
  """Returns the words that the notes of a checkpoint have; () if they have none, or no words."""
  words = notes.get(WORDS) if isinstance(notes, dict) else None
  good = isinstance(words, list) and len(words) <= _MOST
  return tuple(words) if good and all(isinstance(word, str) for word in words) else ()


class Vocabulary:
  """The words of all that a model is trained on, as long as they are known and few."""

  def __init__(self):
    self._words: set[str] | None = set()

  def add(self, words: Iterable[str] | None) -> None:
    """Adds words of more training data; None or nothing makes all words unknown from then on."""
    more = set(words or ())
    self._words = self._words | more if more and self._words is not None else None
    if self._words is not None and len(self._words) > _MOST:
      self._words = None

  def notes(self) -> dict[str, list[str]]:
    """Returns what a checkpoint keeps, for `words_in`."""
    return {WORDS: sorted(self._words)} if self._words else {}


def unseen(prompt: str, words: Collection[str]) -> list[str]:
  """Lists the words of a prompt that are not among `words`; none where no words are known."""
  return [word for word in vocabulary_of(prompt) if word not in words] if words else []


def describe_unseen(prompt: str, unknown: Sequence[str], words: Collection[str]) -> str:
  """Says which words of a prompt training never showed, with similar words that it did."""
  descriptions = []
  for word in unknown[:_NAMED]:
    close = meant(word, words)
    descriptions.append(f'{word!r}' + (f' (did you mean {close!r}?)' if close else ''))
  more = f' and {len(unknown) - _NAMED} more' if len(unknown) > _NAMED else ''
  return f'prompt {shortened(prompt)}: training never showed {", ".join(descriptions)}{more}'


def meant(word: str, words: Collection[str]) -> str:
  """Returns the word that was mistyped, '' if none is near enough.

  A typing error seldom changes the first letter, and adds, drops, changes or swaps one letter, in
  words of eight and more two; words of three letters are near to too many others.
  """
  near = difflib.get_close_matches(word, words, n=5, cutoff=0.6)
  most = 1 + (len(word) >= 8)
  for candidate in near:
    if (
      word[0] == candidate[0]
      and max(map(len, (word, candidate))) > 3
      and _edits(word, candidate) <= most
    ):
      return candidate
  return next((candidate for candidate in near if sorted(candidate) == sorted(word)), '')


def _edits(a: str, b: str) -> int:
  """Counts letters that are added, dropped, changed or swapped with their neighbour."""
  rows = [list(range(len(b) + 1))]
  for i, letter in enumerate(a, 1):
    row = [i]
    for j, other in enumerate(b, 1):
      row.append(min(row[-1] + 1, rows[-1][j] + 1, rows[-1][j - 1] + (letter != other)))
      if i > 1 and j > 1 and (letter, a[i - 2]) == (b[j - 2], other):
        row[-1] = min(row[-1], rows[-2][j - 2] + 1)
    rows.append(row)
  return rows[-1][-1]


def describe_words(words: Sequence[str]) -> str:
  """Lists the words that a model was trained on, if a person would read so many; '' if not."""
  if not 0 < len(words) <= _LISTED:
    return ''
  return f'this model knows {len(words)} words: {" ".join(words)}'


def shortened(text: str, most: int = 60) -> str:
  """Returns a text in quotes, of a long one the beginning."""
  return repr(text if len(text) <= most else f'{text[: most - 3]}...')
