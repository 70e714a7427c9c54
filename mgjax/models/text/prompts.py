"""Cleans prompts and brings them into the form that training used."""

import hashlib
import logging
import re
import unicodedata
from typing import Annotated

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, checked

_log = logging.getLogger(__name__)

EMBEDDINGS = 'embeddings'  # field of a sample: encoder -> states (m e) of what it read
LONGEST_PROMPT = 4096  # characters; far more than any encoder reads
RATES = Range(least=1, most=240)  # that may be asked for; the paper's are 16 to 32
_Rate = Annotated[float, RATES]
_PREFIX = re.compile(r'FPS-(\d+(?:\.\d+)?)\s+(?=\S)', re.IGNORECASE)
# Marks that change how text is shown (its order, its digits, its letters' forms) but not what it
# says, and the byte order mark that editors put before a file.
_UNSEEN = frozenset(
  '\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'
  '\u206a\u206b\u206c\u206d\u206e\u206f\ufeff'
)


def clean_prompt(prompt: str) -> str:
  """Returns a prompt in NFC without control characters, bidirectional marks and doubled spaces.

  Emoji, joined sequences of them and right-to-left scripts pass unchanged. A prompt of more than
  `LONGEST_PROMPT` characters is cut, with a warning.
  Raises ConfigError if nothing is left of it.
  """
  characters = []
  for character in prompt[: 4 * LONGEST_PROMPT]:
    category = unicodedata.category(character)
    if character.isspace():
      characters.append(' ')
    elif category not in ('Cc', 'Cs') and character not in _UNSEEN:
      characters.append(character)
  text = unicodedata.normalize('NFC', ' '.join(''.join(characters).split()))
  if not text:
    raise ConfigError(
      f'the prompt {prompt[:40]!r} holds no text; describe what the video shows, '
      "for example 'the green digit 3 moves left'"
    )
  if len(text) > LONGEST_PROMPT or len(prompt) > 4 * LONGEST_PROMPT:
    _log.warning('a prompt of %d characters was cut to %d', len(prompt), LONGEST_PROMPT)
    text = text[:LONGEST_PROMPT].rstrip()
  return text


def answered(answer: Fields, name: str) -> str:
  """Returns the text by a name of a language model's answer, cleaned.

  Raises ValueError if there is none or it is too long; the language model receives its message.
  """
  text = answer.get(name)
  if not isinstance(text, str) or not text.strip():
    raise ValueError(f'"{name}" is missing; expected a string')
  if len(text) > LONGEST_PROMPT:
    raise ValueError(f'it has over {LONGEST_PROMPT} characters; say it shorter')
  return clean_prompt(text)


def prompt_hash(prompt: str) -> str:
  """Returns eight hexadecimal digits that identify a prompt in file names."""
  return hashlib.sha256(prompt.encode()).hexdigest()[:8]


def with_frame_rate(prompt: str, fps: float | None) -> str:
  """Returns 'FPS-16 <prompt>', the paper's control of the frame rate (Movie Gen §3.1.4).

  A prefix that the prompt has already is replaced. Images, `fps=None`, have none.
  """
  _, text = split_frame_rate(prompt)
  return text if fps is None else f'FPS-{fps:g} {text}'


def frame_rate_of(prompt: str, fps: float | None, default: float) -> float:
  """Returns the frames a second of a prompt's video: `fps`, else its prefix's, else `default`.
  Raises ConfigError if the rate is out of its range, or `fps` and the prefix differ.
  """
  typed, _ = split_frame_rate(prompt)
  if None not in (typed, fps) and typed != fps:
    raise ConfigError(
      f'the prompt {prompt[:40]!r} asks for {typed:g} frames a second, fps for {fps:g}; leave one '
      'of them out'
    )
  rate = typed if fps is None else fps
  return default if rate is None else checked(_Rate, rate, 'fps')


def split_frame_rate(prompt: str) -> tuple[float | None, str]:
  """Returns the frames a second that a prompt begins with, None if it does not, and the rest."""
  match = _PREFIX.match(prompt)
  return (float(match[1]), prompt[match.end() :]) if match else (None, prompt)


def prompt_of(sample: Fields) -> str:
  """Returns the prompt of a sample: its 'caption', of videos with their 'fps' in front."""
  return with_frame_rate(sample['caption'], sample.get('fps'))
