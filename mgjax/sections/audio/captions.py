"""Structured captions of audio (Movie Gen §6, Table 27)."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.models.text.prompts import clean_prompt

EFFECTS_QUALITY = 7.0  # asked for when sampling sound effects ...
MUSIC_QUALITY = 8.0  # ... and effects with music; people notice little above 6.5
MUSIC_LIKELIHOOD = 0.9  # of music that is asked for; the one of the report's example

# Columns of a list, fields of a json, that a caption is made of beside the description.
CAPTION_COLUMNS = ('quality', 'speech', 'singing', 'music', 'music_description')

_START = 'This audio has quality:'
_CAPTION = re.compile(
  rf'(?:{_START} (?P<quality>\d+\.\d)\. )?'
  r'(?:This audio (?P<speech>contains|does not contain) speech\. )?'
  r'(?:This audio (?P<singing>contains|does not contain) vocal singing\. )?'
  r'(?:This audio (?P<silent>does not contain music)\. '
  r'|This audio contains music with a (?P<music>\d\.\d\d) likelihood\. )?'
  r'This audio has a description: "(?P<description>[^"]*)"\.'
  r'(?: This audio has a music description \(if applicable\): "(?P<music_description>[^"]*)"\.)?'
)


@dataclasses.dataclass(frozen=True)
class AudioCaption:
  """The fields of a structured caption; `str` writes it, `parse` reads it back unchanged.

  Of the template, the wording for a sound with speech, with singing or without music, and that a
  sentence is left out where nothing is known (None), are not in public sources: these are ours. A
  caption is made to be written: quality is kept to one decimal and the likelihood to two. Text is
  made safe as prompts are. A double quotation mark, which ends a description, becomes a single one.
  Raises ConfigError for a number out of its range, no description, or music described and denied.
  """

  description: str
  quality: float | None = EFFECTS_QUALITY  # 0 to 10, of a predictor of quality, or None
  speech: bool | None = False
  singing: bool | None = False
  # Likelihood that there is music, 0 to 1, or None; 0 says that there is none.
  music: float | None = 0.0
  music_description: str = ''  # mood and genre; '' if there is nothing to say

  def __post_init__(self):
    fields = {
      'description': _safe(self.description),
      'quality': _within('quality', self.quality, 10, 1),
      'music': _within('music', self.music, 1, 2),
      'music_description': _safe(self.music_description),
    }
    for name, value in fields.items():
      object.__setattr__(self, name, value)
    if not self.description:
      raise ConfigError(
        f'the description {self.description!r} holds no text; say what is to be heard, for example '
        "'waves break on a pebble beach'"
      )
    if self.music_description and self.music == 0:
      raise ConfigError(
        f'the music is described as {self.music_description[:40]!r}, and the caption says that '
        f'there is none; give its likelihood, music={MUSIC_LIKELIHOOD} for instance'
      )

  def __str__(self) -> str:
    sentences = []
    if self.quality is not None:
      sentences.append(f'{_START} {self.quality:.1f}.')
    for there, what in ((self.speech, 'speech'), (self.singing, 'vocal singing')):
      if there is not None:
        sentences.append(f'This audio {"contains" if there else "does not contain"} {what}.')
    if self.music == 0:
      sentences.append('This audio does not contain music.')
    elif self.music is not None:
      sentences.append(f'This audio contains music with a {self.music:.2f} likelihood.')
    sentences.append(f'This audio has a description: "{self.description}".')
    if self.music_description:
      sentences.append(
        f'This audio has a music description (if applicable): "{self.music_description}".'
      )
    return ' '.join(sentences)


def parse(text: str) -> AudioCaption:
  """Parses the text of an `AudioCaption`. Raises ConfigError if it matches no template."""
  match = _CAPTION.fullmatch(text)
  if match is None:
    example = AudioCaption('waves break on a beach')
    raise ConfigError(
      f'{text[:60]!r} is no structured caption; write it as in {str(example)!r}, or give the bare '
      'description'
    )
  there = {None: None, 'contains': True, 'does not contain': False}
  music = '0' if match['silent'] else match['music']
  return AudioCaption(
    description=match['description'],
    quality=None if match['quality'] is None else float(match['quality']),
    speech=there[match['speech']],
    singing=there[match['singing']],
    music=None if music is None else float(music),
    music_description=match['music_description'] or '',
  )


def structured(prompt: str, *, music: str = '', quality: float | None = None) -> AudioCaption:
  """Turns what people type into a caption: a description; a whole caption stays as it is.

  A description asks for a sound without speech and singing, of `quality` 7.0, or 8.0 with music,
  which the paper samples with. `music` is its mood and genre, '' for none. Raises ConfigError if
  `AudioCaption` cannot say it, or a whole caption comes with music or a quality.
  """
  if _is_whole(prompt):
    if music or quality is not None:
      raise ConfigError(
        'the prompt is a whole caption and says its music and quality itself; write them there, or '
        'give the bare description'
      )
    return parse(prompt.strip())
  default = MUSIC_QUALITY if music else EFFECTS_QUALITY
  return AudioCaption(
    description=prompt,
    quality=default if quality is None else quality,
    music=MUSIC_LIKELIHOOD if music else 0.0,
    music_description=music,
  )


def caption_of_row(row: Mapping[str, Any]) -> Any:
  """Returns the caption of a list row, structured if the row has any of `CAPTION_COLUMNS`.

  Numbers and truth values may be text, as a .csv has them. What is empty or missing is not known:
  its sentence is left out. Raises DataError if `AudioCaption` cannot say it, or a whole caption
  comes with the other columns.
  """
  caption = row.get('caption')
  if not isinstance(caption, str) or not any(name in row for name in CAPTION_COLUMNS):
    return caption
  columns = {name: row.get(name) for name in CAPTION_COLUMNS}
  columns = {name: value for name, value in columns.items() if value is not None and value != ''}
  if _is_whole(caption):
    if columns:
      raise DataError(f'its caption is whole and says {min(columns)} itself; leave one of them')
    return caption
  music = columns.get('music_description', '')
  if not isinstance(music, str):
    raise DataError(f'music_description is {music!r:.40}, expected text')
  try:
    return str(
      AudioCaption(
        description=caption,
        quality=_number(columns, 'quality'),
        speech=_truth(columns, 'speech'),
        singing=_truth(columns, 'singing'),
        music=_number(columns, 'music'),
        music_description=music,
      )
    )
  except ConfigError as error:
    raise DataError(str(error)) from error


def _is_whole(text: str) -> bool:
  """Whether a text is a caption in the template, or is meant as one."""
  return text.strip().startswith(_START) or _CAPTION.fullmatch(text.strip()) is not None


def _number(row: Fields, name: str) -> float | None:
  try:
    return float(row[name]) if name in row else None
  except (TypeError, ValueError, OverflowError):
    raise DataError(f'{name} is {row[name]!r:.40}, expected a number') from None


def _truth(row: Fields, name: str) -> bool | None:
  if name not in row:
    return None
  known = {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}
  if (text := str(row[name]).strip().lower()) not in known:
    raise DataError(f'{name} is {row[name]!r:.40}, expected true or false')
  return known[text]


def _within(name: str, value: float | None, highest: float, decimals: int) -> float | None:
  if value is None:
    return None
  if not (math.isfinite(value) and 0 <= value <= highest):
    raise ConfigError(f'{name}={value} of a sound: take a number from 0 to {highest}')
  return round(float(value), decimals) + 0.0  # -0.0 would be written with its sign


def _safe(text: str) -> str:
  try:
    return clean_prompt(text.replace('"', "'"))
  except ConfigError:  # nothing is left of it
    return ''
