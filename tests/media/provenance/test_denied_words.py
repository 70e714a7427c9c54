"""The example check refuses whole words of its list, however they are written."""

import pytest

from mgjax.core.errors import ConfigError
from mgjax.media.provenance.denied_words import LIST, check


@pytest.fixture
def words(tmp_path, monkeypatch):
  path = tmp_path / 'denied.txt'
  path.write_text('\ufeffcannon\n\nRed  Digit\nstraße\n', encoding='utf-8')
  monkeypatch.setenv(LIST, str(path))


@pytest.mark.usefixtures('words')
@pytest.mark.parametrize(('prompt', 'entry'), [
  ('A CANNON fires', 'cannon'), ('cannon', 'cannon'), ('the red, digit 3', 'red digit'),
  ('the \uff43annon', 'cannon'), ('die STRASSE', 'strasse'),
  ('cannons', None), ('a red big digit', None), ('the digit red', None), ('', None),
])  # fmt: skip
def test_words_are_found_whole(prompt, entry):
  reason = check(prompt)
  assert reason == (None if entry is None else f'{entry!r} is on the list of denied words')


@pytest.mark.parametrize(('content', 'told'), [
  (None, 'cannot be read'), (b'', 'holds no words'), (b' \n!\n', 'holds no words'),
  (b'\xff\xfe', 'cannot be read'),
], ids=['missing', 'empty', 'signs', 'not_utf8'])  # fmt: skip
def test_a_list_that_cannot_be_used_lets_nothing_pass(tmp_path, monkeypatch, content, told):
  path = tmp_path / 'denied.txt'
  if content is not None:
    path.write_bytes(content)
  monkeypatch.setenv(LIST, str(path))
  with pytest.raises(ConfigError, match=told):
    check('a dog')


def test_no_list_lets_nothing_pass(monkeypatch):
  monkeypatch.delenv(LIST, raising=False)
  with pytest.raises(ConfigError, match=f'{LIST} names no file'):
    check('a dog')
