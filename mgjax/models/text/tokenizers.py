"""Tokenizers: UTF-8 bytes, and those of published encoders."""

import bisect
import logging
import os
from collections.abc import Sequence

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Bool, Int
from mgjax.models.text.tokenizer_files import TokenizerEncoding, is_of_library, read_vocabulary
from mgjax.models.text.vocabulary import shortened

PAD, EOS = 0, 1
BYTE_OFFSET = 3
BYTE_VOCABULARY = 384  # 3 special tokens, 256 bytes, and the 125 that ByT5 keeps for other uses
BYTES = 'bytes'  # in place of a path

_log = logging.getLogger(__name__)
_NAMED = 3  # texts that are cut, of which each has its sentence
_warned: set[int] = set()  # lengths for which this process has said which texts are cut


def byte_tokens(text: str, length: int) -> Int[np.ndarray, ' m']:
  """Returns ByT5's tokens of a text: each UTF-8 byte + 3, then the end token 1, then padding 0.

  'hi' -> [107, 108, 1, 0, ...], `length` in all. A longer text is cut at a character, so that the
  end token fits; what UTF-8 cannot hold (lone surrogates) becomes '?'.
  """
  data = text.encode('utf-8', errors='replace')
  if len(data) > length - 1:
    data = data[: length - 1].decode('utf-8', errors='ignore').encode('utf-8')
  tokens = np.full(length, PAD, np.int32)
  tokens[: len(data) + 1] = _encode_bytes(data)
  return tokens


def _encode_bytes(data: bytes) -> np.ndarray:
  return np.append(np.frombuffer(data, np.uint8).astype(np.int32) + BYTE_OFFSET, np.int32(EOS))


class Tokenizer:
  """Text to tokens, as `load_tokenizer` makes it; it can be pickled.

  `pad` fills up, `end` ends every text, and `size` is the largest token + 1: what the encoder's
  vocabulary must have room for.
  """

  def __init__(self, vocabulary: TokenizerEncoding):
    self._vocabulary = vocabulary
    self.pad = vocabulary.pad
    self.end = int(self('')[-1])
    self.size = vocabulary.size

  def __call__(self, text: str) -> Int[np.ndarray, ' m']:
    """Returns all tokens of a text, those that begin and end it included.

    What UTF-8 cannot hold (lone surrogates) becomes '?'.
    Raises ConfigError if the tokenizer's files are damaged where this text needs them.
    """
    text = text.encode('utf-8', errors='replace').decode()
    try:
      return np.array(self._vocabulary.encode(text), np.int32)
    except BaseException as error:
      if not is_of_library(error):
        raise
      raise ConfigError(
        f'the tokenizer makes no tokens of {text!r:.60}: {error!r:.200}; take the files that '
        'came with the weights'
      ) from error

  def head(self, text: str, length: int) -> str:
    """Returns the part of a text that about `length` tokens stand for, as `cut` leaves it."""
    size = bisect.bisect_right(range(len(text)), length, key=lambda end: len(self(text[:end])))
    return text[: max(size - 1, 0)]

  def cut(self, tokens: Int[np.ndarray, ' m'], length: int) -> Int[np.ndarray, ' n']:
    """Returns at most `length` of a text's tokens: its first ones and the end token.

    Published encoders were trained with this truncation; of bytes it may leave a part of a
    character, where `byte_tokens` leaves none.
    Raises ConfigError if not even the tokens that begin and end every text would fit.
    """
    ends = self._vocabulary.ends
    if length < self._vocabulary.begins + ends:
      raise ConfigError(
        f'length = {length} has no room for the {self._vocabulary.begins + ends} tokens that begin '
        'and end a text; take a greater length'
      )
    if len(tokens) <= length:
      return tokens
    return np.concatenate([tokens[: length - ends], tokens[-ends:]])


def load_tokenizer(path: str | os.PathLike[str], tried: bool = False) -> Tokenizer:
  """Reads a tokenizer.

  Args:
    path: 'bytes' for that of ByT5, which needs no file; else a file or a folder with `spiece.model`
      (T5, UL2: sentencepiece), `tokenizer.json` (tokenizers), `vocab.json` and `merges.txt` or
      `bpe_simple_vocab_16e6.txt.gz` (CLIP).
    tried: whether these very files were read before; others are read in their own process first.

  Raises:
    ConfigError: there is no such file, or it is damaged, or its tokenizer ends texts with no token.
  """
  if path == BYTES:
    size = BYTE_OFFSET + 256
    return Tokenizer(TokenizerEncoding(_encode_as_bytes, PAD, begins=0, ends=1, size=size))
  return Tokenizer(read_vocabulary(path, tried))


def _encode_as_bytes(text: str) -> np.ndarray:  # by name, so that it can be pickled
  return _encode_bytes(text.encode())


def encode_texts(
  tokenizer: Tokenizer, texts: Sequence[str], length: int
) -> tuple[Int[np.ndarray, 'b m'], Bool[np.ndarray, 'b m']]:
  """Returns the tokens of texts, cut or padded on the right to `length`, and the mask of real ones.

  Cut texts are logged, those of the first such call for each length.
  """
  rows = [tokenizer(text) for text in texts]
  cut = {text: len(row) for text, row in zip(texts, rows, strict=True) if len(row) > length}
  if cut and length not in _warned:
    _warned.add(length)
    for text, size in list(cut.items())[:_NAMED]:
      prompt = shortened(text)
      head = tokenizer.head(text, length)
      _log.warning('%s is cut after %d of %d tokens: read is %r', prompt, length, size, head)
    if len(cut) > _NAMED:
      more = len(cut) - _NAMED
      longest = max(cut.values())
      _log.warning('%d more texts are cut, of up to %d tokens; later ones unsaid', more, longest)
  tokens = np.full((len(rows), length), tokenizer.pad, np.int32)
  mask = np.zeros(tokens.shape, bool)
  for row, whole in enumerate(rows):
    tokens_of_row = tokenizer.cut(whole, length)
    tokens[row, : len(tokens_of_row)] = tokens_of_row
    mask[row, : len(tokens_of_row)] = True
  return tokens, mask
