"""Prompts as people type them: what passes, what is taken out, what is refused."""

import logging
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgjax.core.errors import ConfigError
from mgjax.models.text.prompts import LONGEST_PROMPT, clean_prompt, frame_rate_of, with_frame_rate


@pytest.mark.parametrize(
  'prompt',
  [
    'the green digit 3 moves left',
    '👩🏽‍🚀 waves 🎉',  # a joined sequence: woman, skin, joiner, rocket
    'قطة تركض على الشاطئ',
    'כלב רץ',
    '一只猫',
    'naïve café',
    'a “sign” says «no»',
    "it's 'so'",
    '「営業中」',
    'a\u200cb \u200d',
    '\u00ad',
    'a\u0323\u0301',  # accents
  ],
)
def test_what_people_write_passes_unchanged(prompt):
  assert clean_prompt(prompt) == unicodedata.normalize('NFC', prompt)


@pytest.mark.parametrize(
  ('prompt', 'clean'),
  [
    ('  a \t cat\n\nruns\r\n', 'a cat runs'),
    ('a\u00a0cat\u2028runs\u3000far', 'a cat runs far'),  # spaces of other scripts
    ('a\x00b\x07c\x1b[31md\x7f', 'abc[31md'),  # NUL, bell, escape, delete
    ('\u202eevil\u202c \u2066cat\u2069\u200f', 'evil cat'),  # marks that turn text around
    ('\ufeffa\u061c cat\u206a\u206f', 'a cat'),  # a byte order mark, deprecated marks
    ('\ud83da cat\udc00', 'a cat'),  # halves of surrogate pairs
    ('cafe\u0301', 'caf\u00e9'),  # composed
  ],
)
def test_what_says_nothing_is_taken_out(prompt, clean):
  assert clean_prompt(prompt) == clean


def test_a_megabyte_is_cut_aloud_and_at_once(caplog):
  began = time.monotonic()
  with caplog.at_level(logging.WARNING, logger='mgjax.models.text.prompts'):
    clean = clean_prompt('a cat ' * 200_000)
  assert len(clean) <= LONGEST_PROMPT
  assert clean.startswith('a cat a cat')
  assert 'was cut to 4096' in caplog.text
  assert time.monotonic() - began < 5


@given(st.text(st.characters(), min_size=1))
def test_cleaning_twice_is_cleaning_once(prompt):
  try:
    clean = clean_prompt(prompt)
  except ConfigError:
    return
  assert clean_prompt(clean) == clean
  clean.encode()  # no half of a surrogate pair is left


@pytest.mark.parametrize(
  ('fps', 'text'), [(16, 'FPS-16 a cat'), (24.0, 'FPS-24 a cat'), (23.976, 'FPS-23.976 a cat')]
)
def test_frame_rate_stands_before_the_prompt(fps, text):
  assert with_frame_rate('a cat', fps) == text


@pytest.mark.parametrize('typed', ['FPS-24 a cat', 'fps-24  a cat', 'FPS-24.0 a cat', 'a cat'])
def test_a_typed_frame_rate_is_replaced_and_not_doubled(typed):
  assert with_frame_rate(typed, 16) == 'FPS-16 a cat'
  assert with_frame_rate(typed, None) == 'a cat'


@pytest.mark.parametrize(
  'prompt', ['FPS-24', 'FPS- a cat', 'FPS-24a cat', 'a FPS-24 cat', 'FPS-x a']
)
def test_what_only_looks_like_a_frame_rate_stays(prompt):
  assert with_frame_rate(prompt, 16) == f'FPS-16 {prompt}'
  assert frame_rate_of(prompt, None, 16) == 16


@pytest.mark.parametrize(
  ('prompt', 'fps', 'rate'),
  [('a cat', None, 16), ('a cat', 24, 24), ('FPS-24 a cat', None, 24), ('FPS-24 a cat', 24.0, 24)],
)
def test_the_frame_rate_is_that_asked_for_then_the_prompts_then_trainings(prompt, fps, rate):
  assert frame_rate_of(prompt, fps, 16) == rate


@pytest.mark.parametrize(
  ('prompt', 'fps', 'said'),
  [
    ('FPS-24 a cat', 16, 'asks for 24 frames a second, fps for 16; leave one of them out'),
    ('FPS-1000 a cat', None, r'fps = 1000\.0; expected a finite number from 1 to 240'),
    ('a cat', 0.0, r'fps = 0\.0; expected'),
    ('a cat', float('nan'), 'fps = nan; expected'),
  ],
)
def test_a_frame_rate_that_cannot_be_is_refused(prompt, fps, said):
  with pytest.raises(ConfigError, match=said):
    frame_rate_of(prompt, fps, 16)
