"""Words to tokens."""

import numpy as np

from mgjax.models.text.tokenizers import EOS, PAD
from mgjax.models.text.words import SPECIAL, word_tokens, words_of

VOCABULARY = 8192


def test_a_word_a_number_or_a_mark_is_one_word():
  assert words_of('the sign says "407", 24 times') == [
    'the',
    'sign',
    'says',
    '"',
    '407',
    '"',
    ',',
    '24',
    'times',
  ]
  assert words_of("l'été 数字 👍") == ['l', "'", 'été', '数字', '👍']
  assert words_of(' \n') == []


def test_a_word_has_its_token_wherever_it_stands():
  first, second = word_tokens('red 407', 5, VOCABULARY), word_tokens('407 is red', 5, VOCABULARY)
  assert first.dtype == np.int32
  assert first[0] == second[2] and first[1] == second[0]
  assert first[2:].tolist() == [EOS, PAD, PAD]


def test_a_longer_text_is_cut_and_keeps_its_end():
  whole = word_tokens('a b c', 4, VOCABULARY)
  np.testing.assert_array_equal(word_tokens('a b c d e', 4, VOCABULARY), whole)
  assert whole[3] == EOS
  assert word_tokens('a', 1, VOCABULARY).tolist() == [EOS]


def test_numbers_do_not_share_tokens():
  tokens = word_tokens(' '.join(map(str, range(1000))), 1001, VOCABULARY)[:-1]
  assert len(set(tokens.tolist())) == 1000
  assert tokens.min() >= SPECIAL and tokens.max() < SPECIAL + VOCABULARY


def test_any_text_fits_the_vocabulary():
  tokens = word_tokens('\ud800 \x00 \U0010ffff ' + 'x' * 10_000, 8, 2)
  assert tokens.min() >= 0 and tokens.max() < SPECIAL + 2
