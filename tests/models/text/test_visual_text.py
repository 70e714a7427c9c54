"""The quoted parts of prompts: every kind of quotes, quotes in quotes, apostrophes, loose marks."""
# ruff: noqa: RUF001

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgjax.models.text.visual_text import visual_text

PAIRS = ['""', "''", '“”', '‘’', '«»', '‹›', '„“', '„”', '‚‘', '「」', '『』']
MARKS = frozenset(''.join(PAIRS))
# Text without quotation marks, as it stands inside of them.
plain = st.text(st.characters(exclude_characters=MARKS, exclude_categories=('Cs',))).map(str.strip)
some = plain.filter(bool)
pairs = st.sampled_from(PAIRS)


def quoted(text, pair):
  return f'{pair[0]}{text}{pair[1]}'


@pytest.mark.parametrize(
  ('prompt', 'text'),
  [
    # Quoted parts come in order.
    ('a sign that says "open"', 'open'),
    ("a sign that says 'open'", 'open'),
    ('“Hello, world” on a T-shirt and ‘bye’ on a cap', 'Hello, world bye'),
    ('ein Schild „Straße“, une porte «sortie», « entrée »', 'Straße sortie entrée'),
    ('看板に「営業中」と『本日』', '営業中 本日'),
    ("一块写着'你好'的牌子", '你好'),
    ("'안녕'이라고 쓰인 간판", '안녕'),
    ('first "a", then "b c"', 'a b c'),
    # Of nested quotes the outer ones count.
    ('"he said \'hi\' to me"', "he said 'hi' to me"),
    ('\'the "best" bar\'', 'the "best" bar'),
    ('«a «b» c»', 'a «b» c'),
    ('「外「内」側」', '外「内」側'),
    ("'a 'b' c'", "a 'b' c"),
    ('„außen ‚innen‘ außen“', 'außen ‚innen‘ außen'),
    # Apostrophes are no quotes.
    ("the dog's bowl isn't the cats' bowl", ''),
    ('the dog’s bowl isn’t the cats’ bowl', ''),
    ("a sign 'it's Joe's' on the dog's house", "it's Joe's"),
    ('a sign ‘it’s Joe’s’ on the dog’s house', 'it’s Joe’s'),
    ("'tis the season, says 'hi'", 'hi'),
    ("'hi'5 is no end, here it is'", "hi'5 is no end, here it is"),
    # Marks without a partner are passed over.
    ('', ''),
    ('a cat', ''),
    ('a 5" pipe', ''),
    ('“never closed', ''),
    ('never opened”', ''),
    ('“a «b» c', 'b'),
    ('a » b « c', ''),
    ('“5" pipe” and "hi"', '5" pipe hi'),
    ('"a «b" c»', 'a «b'),  # crossed: the first one to open
    ('「a」」「b', 'a'),
    ('"" and " "', ''),
    ('"', ''),
  ],
)
def test_quoted_parts_are_read_and_nothing_else(prompt, text):
  assert visual_text(prompt) == text


@given(st.lists(st.tuples(plain, some, pairs)), plain)
def test_parts_are_joined_in_order(parts, rest):
  prompt = ' '.join(f'{before} {quoted(text, pair)}' for before, text, pair in parts)
  assert visual_text(f'{prompt} {rest}') == ' '.join(text for _, text, _ in parts)


@given(some, some, pairs, pairs)
def test_an_inner_pair_of_another_kind_changes_nothing(inner, outer, one, other):
  if set(one) & set(other):
    return
  text = f'{outer} {quoted(inner, other)} {outer}'
  assert visual_text(quoted(text, one)) == text


@given(st.text(st.sampled_from([*MARKS, 'a', ' ', '語'])))
def test_any_marks_give_a_part_of_the_prompt_without_an_end(prompt):
  """Whatever is typed is answered; what is read was there, and in this order."""
  rest = iter(prompt)
  assert all(character in rest for character in visual_text(prompt) if character != ' ')
  assert visual_text(f'{prompt} ') == visual_text(prompt)


@pytest.mark.parametrize('marks', ['«', '"', "'", '«"', "«'„", '«»', '“‘'])
def test_many_marks_take_no_time(marks):
  began = time.monotonic()
  visual_text(marks * (10**5 // len(marks)))
  assert time.monotonic() - began < 5
