"""Bytes to ByT5's tokens."""

import numpy as np
import pytest

from mgjax.models.text.tokenizers import BYTE_VOCABULARY, EOS, PAD, byte_tokens


def test_tokens_are_byt5s_and_of_an_empty_text_the_end():
  tokens = byte_tokens('héllo', 10)
  assert tokens.tolist() == [107, 198, 172, 111, 111, 114, EOS, PAD, PAD, PAD]
  assert tokens.dtype == np.int32
  assert byte_tokens('', 4).tolist() == [EOS, PAD, PAD, PAD]


@pytest.mark.parametrize(
  ('length', 'kept'), [(7, 'héllo'), (6, 'héll'), (4, 'hé'), (3, 'h'), (1, '')]
)
def test_cut_is_at_a_character_and_keeps_the_end(length, kept):
  tokens = byte_tokens('héllo', length)
  data = [*kept.encode()]
  assert tokens.tolist() == [b + 3 for b in data] + [EOS] + [PAD] * (length - len(data) - 1)


def test_cut_never_breaks_an_emoji():
  for length in range(1, 14):
    tokens = byte_tokens('👍🏽🎉!', length)
    text = bytes(int(t) - 3 for t in tokens if t > 2).decode()  # raises on half a character
    assert '👍🏽🎉!'.startswith(text)
    assert EOS in tokens


def test_every_text_fits_the_vocabulary():
  tokens = byte_tokens('\x00\ud800\U0010ffff' + ''.join(map(chr, range(256))), 1024)
  assert 0 <= tokens.min() <= tokens.max() < BYTE_VOCABULARY
  assert byte_tokens('\ud800', 4).tolist() == [ord('?') + 3, EOS, PAD, PAD]
