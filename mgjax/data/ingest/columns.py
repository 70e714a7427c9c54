"""Names of columns: one table for .csv, .tsv, .json, .jsonl, parquet and the json of tars.

Upper and lower case, spaces and punctuation of a name do not count: 'File Name' is 'file_name'. The
first name of the table that a list has is read. Folders and lists of lines go by the same names.
"""

import ast
import contextlib
import functools
import re
from collections.abc import Mapping
from typing import Any

from mgjax.core.errors import printable

_LONGEST_CELL = 100_000  # characters of several captions
# A column of files has one of these names, and perhaps more that says 'file' or 'path'. Where a row
# has a video and a picture, its first frame, the clip is the video.
_VIDEOS = 'video clip movie media mp4 webm mkv mov gif file path image img picture sample'
_SOUNDS = 'sound audio wav media file path video sample'
_FILES = {'video': _VIDEOS.split(), 'sound': _SOUNDS.split()}
_FILE = r'(relative|rel|local|full|absolute|abs)?{}s?(file|path|name|relative|rel|local|full)*s?'
# A column of captions has one of these names, else a single column ends so, as in long_caption.
_CAPTIONS = 'caption captions text texts prompt prompts description cap txt sentence tags'
_SEGMENT = r'(start|begin|end|stop)(time|timestamp|sec|second|frame)?s?|timestamps?|segments?'
_CAPTION = r'(?!neg|target|edited|output).*(caption|prompt|description|text|cap)s?'


def file_column(names: tuple[str, ...], word: str, given: str = '') -> str | None:
  """Returns the column of files of a medium, 'video' or 'sound': the one `given`, else by name."""
  if given or word in names:
    return _exactly(names, given or word)
  plain = _plain(names)
  forms = map(_FILE.format, _FILES[word])
  found = (name for form in forms for name in plain if re.fullmatch(form, name))
  return plain.get(next(found, ''))


def caption_column(names: tuple[str, ...], given: str = '') -> str | None:
  """Returns the column of captions: the one `given`, else by name."""
  if given or 'caption' in names:
    return _exactly(names, given or 'caption')
  plain = _plain(names)
  found = [name for name in _CAPTIONS.split() if name in plain]
  ending = [name for name in plain if re.fullmatch(_CAPTION, name)]
  return plain[(found or ending)[0]] if found or len(ending) == 1 else None


@functools.lru_cache(16)
def segment_columns(names: tuple[str, ...]) -> list[str]:
  """Returns the columns that say which part of a clip is meant, but for `start`, which is read."""
  return [n for plain, n in _plain(names).items() if re.fullmatch(_SEGMENT, plain) and n != 'start']


def first_of_several(value: object) -> object:
  """Returns the first caption of a list of several, any other value as it is.

  A cell of text may hold such a list as Python or JSON write it: "['a cat', 'a dog']". None of an
  empty list.
  """
  if isinstance(value, str) and value.strip()[:1] == '[' and len(value) < _LONGEST_CELL:
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
      found = ast.literal_eval(value.strip())
      value = found if all(isinstance(each, str) for each in found) else value
  if isinstance(value, list | tuple):
    return value[0] if value else None
  return value


def shown_names(names: Any) -> str:
  """Returns the names of columns for a message."""
  return printable(', '.join(map(str, names)))[:200] or 'none'


def _exactly(names: tuple[str, ...], name: str) -> str | None:
  return name if name in names else None


def _plain(names: tuple[str, ...]) -> Mapping[str, str]:
  return {re.sub(r'[\W_]+', '', str(name).lower()): name for name in reversed(names)}
