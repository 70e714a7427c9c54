"""Word-level tokenizer: a word or a whole number is one token."""

import re
import zlib

import numpy as np

from mgjax.core.typing import Int
from mgjax.models.text.tokenizers import EOS, PAD

SPECIAL = 3  # tokens before the words, as many as before the bytes of ByT5
_WORD = re.compile(r'\w+|[^\w\s]')


def words_of(text: str) -> list[str]:
  """Lists words, whole numbers and single marks: 'says "407"' -> ['says', '"', '407', '"']."""
  return _WORD.findall(text)


def word_tokens(text: str, length: int, vocabulary: int) -> Int[np.ndarray, ' m']:
  """Returns `length` tokens: one a word, then the end token 1, then padding 0; long texts are cut.

  A word's token is 3 + its hash modulo `vocabulary`, so that no list is needed: how a word is spelt
  is lost, and a word that training never showed says nothing. Two words may share a token, seldom
  where the vocabulary is several times larger than what is said: the numbers 0 to 999 have one each
  in a vocabulary of 8,192.
  """
  words = words_of(text)[: length - 1]
  tokens = np.full(length, PAD, np.int32)
  for index, word in enumerate(words):
    tokens[index] = SPECIAL + zlib.crc32(word.encode('utf-8', errors='replace')) % vocabulary
  tokens[len(words)] = EOS
  return tokens
