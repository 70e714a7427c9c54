"""Captions of sounds: the report's template to the letter, and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgjax.core.errors import ConfigError, DataError
from mgjax.models.text.prompts import LONGEST_PROMPT, clean_prompt
from mgjax.sections.audio.captions import (
  EFFECTS_QUALITY,
  MUSIC_QUALITY,
  AudioCaption,
  caption_of_row,
  parse,
  structured,
)

REPORT = (
  'This audio has quality: 8.0. This audio does not contain speech. This audio does not contain '
  'vocal singing. This audio contains music with a 0.90 likelihood. This audio has a description: '
  '"waves lap against the shore". This audio has a music description (if applicable): '
  '"a sentimental piano".'
)

printable = st.text(min_size=1).filter(lambda text: clean(text) != '')


def clean(text):
  try:
    return clean_prompt(text)
  except ConfigError:
    return ''


@st.composite
def captions(draw):
  music = draw(st.none() | st.floats(0, 1))
  return AudioCaption(
    description=draw(printable),
    quality=draw(st.none() | st.floats(0, 10)),
    speech=draw(st.none() | st.booleans()),
    singing=draw(st.none() | st.booleans()),
    music=music,
    music_description='' if music is not None and music < 0.006 else draw(st.text()),
  )


@pytest.mark.parametrize(
  ('caption', 'text'),
  [
    (
      AudioCaption(
        'waves lap against the shore', 8.0, music=0.9, music_description='a sentimental piano'
      ),
      REPORT,
    ),
    (
      AudioCaption('a crowd', 6.5, speech=True, singing=True),
      'This audio has quality: 6.5. This audio contains speech. This audio contains vocal singing. '
      'This audio does not contain music. This audio has a description: "a crowd".',
    ),
    (
      AudioCaption('rain', None, None, True, None, 'jazz'),  # what is not known is left out
      'This audio contains vocal singing. This audio has a description: "rain". '
      'This audio has a music description (if applicable): "jazz".',
    ),
  ],
)
def test_a_caption_is_written_to_the_letter(caption, text):
  assert str(caption) == text and parse(text) == structured(text) == caption


@given(captions())
def test_reading_undoes_writing(caption):
  assert parse(str(caption)) == caption
  assert str(parse(str(caption))) == str(caption)


@pytest.mark.parametrize(
  'description',
  [
    'a man says "hello". This audio has a music description (if applicable): "none".',
    '".',
    'quoted \u201cas books do\u201d',
    'a back\\slash at the end\\',
    'two\nlines',
    'x' * (LONGEST_PROMPT - 1) + ' y',  # cut at a space
  ],
)
def test_no_description_breaks_out_of_its_quotes(description):
  caption = AudioCaption(description, music=1.0, music_description=description)
  assert parse(str(caption)) == caption
  assert caption.description == caption.music_description and '"' not in caption.description


def test_numbers_are_kept_as_they_are_written():
  caption = AudioCaption('rain', 7.26, music=0.128, music_description='')
  assert (caption.quality, caption.music) == (7.3, 0.13)
  assert (
    AudioCaption('rain', -0.0)
    == AudioCaption('rain', 0.0)
    == parse(str(AudioCaption('rain', -0.0)))
  )
  assert math.copysign(1, AudioCaption('rain', -0.0).quality) == 1


def test_what_people_type_becomes_a_caption_of_the_reports_quality():
  effects = structured(' rain on a  tin roof ')
  assert effects == AudioCaption('rain on a tin roof', EFFECTS_QUALITY) and effects.quality == 7
  both = structured('rain', music='slow jazz')
  assert both == AudioCaption('rain', MUSIC_QUALITY, music=0.9, music_description='slow jazz')
  assert both.quality == 8 and structured('rain', quality=5).quality == 5
  assert structured(f' {REPORT}\n') == parse(REPORT)


@pytest.mark.parametrize(
  'text',
  [
    'rain',
    REPORT[:-1],
    REPORT + ' ',
    REPORT.replace('8.0', '8'),
    REPORT.replace('does not contain speech', 'has no speech'),
    REPORT.replace('a sentimental', '"a" sentimental'),
  ],
)
def test_what_is_not_in_the_template_is_refused(text):
  with pytest.raises(ConfigError, match='is no structured caption; write it as in'):
    parse(text)
  if text != 'rain' and not text.endswith(' '):
    with pytest.raises(ConfigError, match='is no structured caption'):
      structured(text)


def test_a_whole_caption_says_its_music_and_quality_itself():
  for more in ({'music': 'jazz'}, {'quality': 7.0}):
    with pytest.raises(ConfigError, match='says its music and quality itself'):
      structured(REPORT, **more)


def test_a_row_of_a_list_becomes_the_reports_caption():
  known = {
    'caption': 'waves lap against the shore',
    'quality': '8',
    'speech': 'false',
    'singing': 0,
    'music': 0.9,
    'music_description': 'a sentimental piano',
  }
  assert caption_of_row(known) == REPORT
  bare = {'caption': 'rain', 'start': '3', 'video': 'a.mp4'}
  assert caption_of_row(bare) == 'rain' and caption_of_row({'quality': '7'}) is None
  empty = bare | {'quality': '', 'speech': None, 'music': '0'}
  assert caption_of_row(empty) == (
    'This audio does not contain music. This audio has a description: "rain".'
  )
  assert caption_of_row({'caption': REPORT, 'quality': ''}) == REPORT


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'quality': 'good'}, "quality is 'good', expected a number"),
    ({'quality': '11'}, 'quality=11.0 of a sound: take a number from 0 to 10'),
    ({'speech': 'perhaps'}, "speech is 'perhaps', expected true or false"),
    ({'music': [1]}, r'music is \[1\], expected a number'),
    ({'music_description': 3}, 'music_description is 3, expected text'),
    ({'music': '0', 'music_description': 'jazz'}, 'the caption says that there is none'),
    ({'caption': REPORT, 'speech': 'no'}, 'is whole and says speech itself'),
  ],
)
def test_a_row_that_says_what_no_caption_may_is_refused(fields, said):
  with pytest.raises(DataError, match=said):
    caption_of_row({'caption': 'rain'} | fields)
