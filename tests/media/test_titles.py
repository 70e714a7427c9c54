"""Titles: letters of the alphabets that prompts are written in are drawn, not boxes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from mgjax.media import titles
from mgjax.media.titles import draw_title

SHAPES = features.check('raqm')  # False where the system has no FriBiDi
LETTERS = {
  'accented': 'äéñőşß',
  'Cyrillic': 'зелёнаяций',
  'Greek': 'πράσινοψη',
  'Arabic': 'خضرقمتحك',
  'Hebrew': 'הספרהיוק',
  'Devanagari': 'हरअकचलत',
  'Japanese': '緑の数字が左へ動く',
  'Thai': 'แมวสขย',
  'emoji': '🐈👍★→',
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


def test_a_title_of_several_alphabets_is_drawn_in_a_font_that_has_each():
  parts = ('zwei ', 'цифра ', '緑', ' रंग')
  assert drawn(''.join(parts)).shape[1] > sum(drawn(part).shape[1] for part in parts)


@pytest.mark.parametrize(('title', 'seen'), [
  ('אב', ('ב', 'א')),  # the first letter on the right
  ('a אב c', ('a', 'ב', 'א', 'c')),
  ('א b c', ('b', 'c', 'א')),  # what follows the first letter stands left of it, in its own order
  ('א 12', ('1', '2', 'א')),
])  # fmt: skip
def test_right_to_left_is_read_from_the_right(title, seen):
  ink, left = drawn(title), 0
  for letter in seen:
    shape = drawn(letter)
    low = next(
      place
      for place in range(left, ink.shape[1] - shape.shape[1] + 1)
      if any(
        np.array_equal(ink[top : top + shape.shape[0], place : place + shape.shape[1]], shape)
        for top in range(ink.shape[0] - shape.shape[0] + 1)
      )
    )
    left = low + shape.shape[1]


@pytest.mark.skipif(not SHAPES, reason='Pillow finds no FriBiDi')
def test_arabic_letters_are_joined_and_hindi_vowels_stand_where_they_are_read():
  assert drawn('ببب').shape[1] < 0.8 * 3 * drawn('ب').shape[1]
  assert not np.array_equal(drawn('कि')[:, :6], drawn('क')[:, :6])  # written left of its consonant


def test_without_shaping_or_fonts_there_are_titles_all_the_same(monkeypatch):
  monkeypatch.setattr(titles, '_layout', lambda font, backwards: {})
  assert drawn('الرقم 3 हरा').size
  monkeypatch.undo()
  monkeypatch.setattr(titles, '_PACKAGES', {'no_such_package': ''})
  caches = titles._fonts, titles._find
  for cache in caches:
    cache.cache_clear()
  try:
    assert drawn('green الرقم 緑').size
  finally:
    for cache in caches:
      cache.cache_clear()


def test_a_long_title_ends_where_it_should_and_keeps_accents_on_their_letters():
  for title in ('the green digit ' * 20, 'الرقم الأخضر ' * 20, 'हिन्दी ' * 40, '🐈‍⬛' * 60):
    for width in (60, 150, 151, 152):
      assert drawn(title, width).shape[1] <= width - 20 + 4
  cut = drawn('q\u0303' * 50, 100)
  whole = [drawn('q\u0303' * count + '...') for count in range(1, 12)]
  assert any(np.array_equal(cut, each) for each in whole)
