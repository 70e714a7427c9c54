"""WordText: a small word-level text encoder, a baseline for `ByteText`."""

from typing import ClassVar

import numpy as np

from mgjax.core.settings import Positive
from mgjax.core.typing import Int
from mgjax.models.conditioning.byte_text import ByteText
from mgjax.models.text.words import SPECIAL, word_tokens, words_of


class WordText(ByteText):
  """Encodes a prompt's words, whole numbers and marks by the encoder of `ByteText`.

  Word tokens, spread over `vocabulary` places, say nothing of spelling
  (`mgjax/models/text/words.py`).
  """

  vocabulary: Positive = 2**15
  unit: ClassVar[str] = 'words'

  @property
  def vocabulary_size(self) -> int:
    """Entries of the table of tokens."""
    return SPECIAL + self.vocabulary

  def tokens(self, text: str) -> tuple[int, Int[np.ndarray, ' m']]:
    """Returns how many tokens a text has without its end, and as many as are read."""
    return len(words_of(text)), word_tokens(text, self.length, self.vocabulary)

  def head(self, text: str, size: int) -> str:
    """Returns the part of a text that so many tokens have room for."""
    return ' '.join(words_of(text)[:size])
