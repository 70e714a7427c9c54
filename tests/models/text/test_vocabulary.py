"""The words that training showed, and what is said of others."""

import pytest

from mgjax.models.text import vocabulary


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('The cat, the DOG-3!', ['the', 'cat', 'dog', '3']),
    ("it's 'quoted' and don\u2019t", ["it's", 'quoted', 'and', "don't"]),
    ('\u0401\u043b\u043a\u0430 e\u0301te\u0301', ['\u0451\u043b\u043a\u0430', '\u00e9t\u00e9']),
    ('\u0939\u093f\u0928\u094d\u0926\u0940', ['\u0939\u093f\u0928\u094d\u0926\u0940']),
    ('\u7dd1\u306e\u6570', ['\u7dd1', '\u306e', '\u6570']),
    ('the sign says "407"', ['the', 'sign', 'says']),
  ],
)
def test_words_are_found_in_every_script(text, words):
  assert vocabulary.vocabulary_of(text) == words


def test_a_word_that_training_never_showed_is_named_with_a_near_one():
  words = vocabulary.learn_words(['the green digit 3', 'a red digit'])
  assert vocabulary.unseen('The Green digit', words) == []
  unknown = vocabulary.unseen('a gren cat', words)
  assert vocabulary.describe_unseen('a gren cat', unknown, words) == (
    "prompt 'a gren cat': training never showed 'gren' (did you mean 'green'?), 'cat'"
  )
  assert vocabulary.unseen('a gren cat', ()) == []  # of unknown words nothing is said


def test_a_vocabulary_is_kept_while_all_of_it_is_known_and_small(monkeypatch):
  monkeypatch.setattr(vocabulary, '_MOST', 3)
  assert vocabulary.learn_words(['a b c d']) is None
  known = vocabulary.Vocabulary()
  known.add(['b', 'a'])
  assert vocabulary.words_in(known.notes()) == ('a', 'b')
  known.add(['c'])
  assert known.notes() == {'words': ['a', 'b', 'c']}
  known.add(())  # what an older checkpoint learnt from, nobody knows
  known.add(['a'])
  assert known.notes() == {}


@pytest.mark.parametrize(
  'notes', [None, {}, {'words': 'text'}, {'words': [1]}, {'words': {'a': 1}}]
)
def test_notes_without_words_give_none(notes):
  assert vocabulary.words_in(notes) == ()
