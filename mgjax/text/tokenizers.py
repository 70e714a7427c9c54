"""Text to integer tokens."""

import numpy as np

from mgjax.core.typing import Int

PAD, EOS = 0, 1
BYTE_OFFSET = 3
BYTE_VOCABULARY = 384  # 3 special tokens, 256 bytes, and the 125 that ByT5 keeps for other uses


def byte_tokens(text: str, length: int) -> Int[np.ndarray, ' m']:
  """Returns ByT5's tokens of a text: each UTF-8 byte + 3, then the end token 1, then padding 0.

  'hi' -> [107, 108, 1, 0, ...]. A longer text is cut at a character, so that the end token fits.

  Args:
    text: any text; what UTF-8 cannot hold (lone surrogates) becomes '?'.
    length: number of tokens m.
  """
  data = text.encode('utf-8', errors='replace')
  if len(data) > length - 1:
    data = data[: length - 1].decode('utf-8', errors='ignore').encode('utf-8')
  tokens = np.full(length, PAD, np.int32)
  tokens[: len(data)] = np.frombuffer(data, np.uint8).astype(np.int32) + BYTE_OFFSET
  tokens[len(data)] = EOS
  return tokens
