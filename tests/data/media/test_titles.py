"""Titles: letters of many alphabets are drawn, not boxes; what is too long is cut."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from mgjax.data.media.titles import draw_title, title_width, wrap_title

LETTERS = {
  'accented': 'äéñőşß',
  'Cyrillic': 'зелёнаций',
  'Greek': 'πράσινο',
  'Hebrew': 'הספריוק',
  'Arabic': 'خضرقمتحك',
  'signs': '★→·“€',
}


def drawn(title, width=400):
  """The columns and rows of a title that hold ink."""
  picture = Image.new('L', (width, 40), 'white')
  draw_title(ImageDraw.Draw(picture), (10, 8), title, size=14, width=width - 20)
  ink = 255 - np.asarray(picture).astype(int)
  columns, rows = np.flatnonzero(ink.any(0)), np.flatnonzero(ink.any(1))
  return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else ink[:0]


@pytest.mark.parametrize('script', LETTERS)
def test_each_letter_looks_different_from_the_others_and_from_the_box_of_a_missing_one(script):
  pictures = [drawn(letter) for letter in {*LETTERS[script], '\U0010fffe'}]
  for number, one in enumerate(pictures):
    assert one.size
    assert not any(np.array_equal(one, other) for other in pictures[:number])


@pytest.mark.skipif(not features.check('raqm'), reason='Pillow finds no FriBiDi')
def test_arabic_is_joined_and_read_from_the_right():
  assert drawn('ببب').shape[1] < 0.9 * 3 * drawn('ب').shape[1]
  np.testing.assert_array_equal(drawn('אב')[:, -5:], drawn('א')[:, -5:])


def test_any_title_is_drawn_and_a_long_one_is_cut_where_it_should_be():
  for title in ('the green digit ' * 20, 'الرقم الأخضر ' * 20, '緑' * 60, '\ud800\0\n' * 90):
    for width in (60, 150, 151, 152):
      assert drawn(title, width).shape[1] <= width - 20 + 4
  cut = drawn('q\u0303' * 50, 100)
  whole = [drawn('q\u0303' * count + '...') for count in range(1, 12)]
  assert any(np.array_equal(cut, each) for each in whole)  # accents stay with their letters


@pytest.mark.parametrize('most', [1, 2, 3, 9])
def test_a_wrapped_title_keeps_every_word_in_lines_that_fit_but_for_the_last(most):
  title = 'A red metal ball rolls left and hits a small blue wooden cube. The camera circles.'
  lines = wrap_title(title, size=14, width=150, most=most)
  assert ' '.join(lines) == title and len(lines) == min(most, 4)
  assert all(title_width(line, 14) <= 150 for line in lines[: most - 1])


@pytest.mark.parametrize('title', ['', 'x' * 300, '\ud800\0\n' * 90, '緑' * 60])
def test_what_has_no_words_to_break_at_is_one_line_and_more(title):
  lines = wrap_title(title, size=14, width=100, most=3)
  assert 1 <= len(lines) <= 3
