"""An example of `MGJAX_CHECK`: prompts that hold a word of a list are refused.

It is an example: a list of words knows neither other spellings nor what a sentence means.
"""

import functools
import os
import pathlib
import re
import unicodedata

from mgjax.core.errors import ConfigError, printable

LIST = 'MGJAX_DENIED_WORDS'  # the environment variable that names the file
_WORD = re.compile(r'\w+')


def check(prompt: str) -> str | None:
  """Returns why a prompt is refused, or None: it holds an entry of the list as whole words.

  The file has an entry a line, a word or several that follow one another. Case does not count, nor
  what stands between words, nor how Unicode writes a letter (NFKC).

  Raises:
    ConfigError: there is no list.
  """
  words = f' {_words(prompt)} '
  for entry in _entries(os.environ.get(LIST, '')):
    if f' {entry} ' in words:
      return f'{entry!r} is on the list of denied words'
  return None


@functools.cache
def _entries(path: str) -> tuple[str, ...]:
  if not path:
    raise ConfigError(f'{LIST} names no file; set it to one with a denied word a line')
  try:
    lines = pathlib.Path(path).read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ConfigError(f'{LIST}={printable(path)!r} cannot be read: {error}') from None
  entries = tuple(entry for line in lines if (entry := _words(line)))
  if not entries:
    raise ConfigError(f'{LIST}={printable(path)!r} holds no words; write one a line')
  return entries


def _words(text: str) -> str:
  return ' '.join(_WORD.findall(unicodedata.normalize('NFKC', text).casefold()))
