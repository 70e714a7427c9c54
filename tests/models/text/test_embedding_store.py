"""Embeddings of texts: made once, found by the text, never half-read."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.records.writer import Share
from mgjax.sections.text import embeddings
from mgjax.sections.text.embeddings import Embeddings, embed

TEXTS = [f'a ball falls {index} times' for index in range(300)]


def arrays_of(texts):
  """Arrays that only the text decides, as long as the text."""
  return [
    {'states': np.random.default_rng(list(text.encode())).normal(size=(len(text), 4))}
    for text in texts
  ]


def check(directory, texts=TEXTS):
  store = Embeddings(str(directory))
  for text in texts:
    np.testing.assert_array_equal(store.find(text)['states'], arrays_of([text])[0]['states'])
  return store


def test_what_was_embedded_is_found_and_nothing_else(tmp_path):
  assert embed(str(tmp_path), TEXTS, arrays_of, encoder='a')
  store = check(tmp_path)
  assert len(store) == len(TEXTS)
  assert store.find('a ball') is None and store.missing(['a ball', TEXTS[3]]) == ['a ball']
  assert store.find(TEXTS[0]).keys() == {'states'}


def test_only_new_texts_are_embedded_each_once(tmp_path):
  asked = []

  def counting(texts):
    asked.extend(texts)
    return arrays_of(texts)

  assert embed(str(tmp_path), TEXTS[:100] * 2, counting, encoder='a')
  assert embed(str(tmp_path), TEXTS, counting, encoder='a', batch_size=7)
  assert embed(str(tmp_path), TEXTS, counting, encoder='a')
  assert sorted(asked) == sorted(TEXTS)
  assert len(check(tmp_path)) == len(TEXTS)


def test_processes_share_the_texts_and_the_last_one_finishes(tmp_path):
  for process in (2, 0):
    share = Share(process, 3)
    assert not embed(str(tmp_path), TEXTS, arrays_of, encoder='a', share=share)
    assert len(Embeddings(str(tmp_path))) == 0
  assert embed(str(tmp_path), TEXTS, arrays_of, encoder='a', share=Share(1, 3))
  check(tmp_path)


def test_embeddings_of_two_encoders_do_not_mix(tmp_path):
  embed(str(tmp_path), TEXTS[:3], arrays_of, encoder='a')
  with pytest.raises(ConfigError, match='embeddings of the encoder a, not of b'):
    embed(str(tmp_path), TEXTS, arrays_of, encoder='b')


def test_texts_whose_keys_are_the_same_are_told_apart_when_they_are_read(tmp_path, monkeypatch):
  embed(str(tmp_path), ['one'], arrays_of, encoder='a')
  same = embeddings._key('one')
  monkeypatch.setattr(embeddings, '_key', lambda text: same)
  store = Embeddings(str(tmp_path))
  assert store.find('two') is None and store.find('one') is not None
