"""Structured captions of audio (Movie Gen §6, Table 27)."""

import dataclasses
import math
import re

from mgjax.core.errors import ConfigError
from mgjax.text.prompts import clean_prompt

EFFECTS_QUALITY = 7.0  # asked for when sampling sound effects ...
MUSIC_QUALITY = 8.0  # ... and effects with music; people notice little above 6.5
MUSIC_LIKELIHOOD = 0.9  # of music that is asked for; the one of the report's example

_START = 'This audio has quality:'
_CAPTION = re.compile(
  _START + r' (?P<quality>\d+\.\d)\. '
  r'This audio (?P<speech>contains|does not contain) speech\. '
  r'This audio (?P<singing>contains|does not contain) vocal singing\. '
  r'This audio (?:does not contain music|contains music with a (?P<music>\d\.\d\d) likelihood)\. '
  r'This audio has a description: "(?P<description>[^"]*)"\.'
  r'(?: This audio has a music description \(if applicable\): "(?P<music_description>[^"]*)"\.)?'
)


@dataclasses.dataclass(frozen=True)
class AudioCaption:
  """The fields of a structured caption; `str` writes it, `parse` reads it back unchanged.

  Of the template, the wording for a sound with speech, with singing or without music, and whether
  the sentence on music is left out where there is none, are not in public sources: these are ours.
  A caption is made to be written: quality is kept to one decimal and the likelihood to two, text is
  made safe as prompts are, and a double quotation mark, which ends a description, becomes a single.

  Attributes:
    description: what is to be heard.
    quality: 0 to 10, of a predictor of quality.
    speech: somebody speaks.
    singing: somebody sings.
    music: likelihood that there is music, 0 to 1; None says that there is none.
    music_description: mood and genre; '' if there is nothing to say.

  Raises:
    ConfigError: a number out of its range, no description, or a music description without music.
  """

  description: str
  quality: float = EFFECTS_QUALITY
  speech: bool = False
  singing: bool = False
  music: float | None = None
  music_description: str = ''

  def __post_init__(self):
    kept = {
      'description': _safe(self.description),
      'quality': _within('quality', self.quality, 10, 1),
      'music': None if self.music is None else _within('music', self.music, 1, 2),
      'music_description': _safe(self.music_description),
    }
    for name, value in kept.items():
      object.__setattr__(self, name, value)
    if not self.description:
      raise ConfigError(
        f'the description {self.description!r} holds no text; say what is to be heard, for example '
        "'waves break on a pebble beach'"
      )
    if self.music_description and self.music is None:
      raise ConfigError(
        f'the music is described as {self.music_description[:40]!r}, and the caption says that '
        f'there is none; give its likelihood, music={MUSIC_LIKELIHOOD} for instance'
      )

  def __str__(self) -> str:
    sentences = [
      f'{_START} {self.quality:.1f}.',
      f'This audio {_contains(self.speech)} speech.',
      f'This audio {_contains(self.singing)} vocal singing.',
      'This audio does not contain music.'
      if self.music is None
      else f'This audio contains music with a {self.music:.2f} likelihood.',
      f'This audio has a description: "{self.description}".',
    ]
    if self.music_description:
      sentences.append(
        f'This audio has a music description (if applicable): "{self.music_description}".'
      )
    return ' '.join(sentences)


def parse(text: str) -> AudioCaption:
  """Reads what `str` of an `AudioCaption` wrote.

  Raises:
    ConfigError: the text is not in the template, or says what no caption may.
  """
  found = _CAPTION.fullmatch(text)
  if found is None:
    example = AudioCaption('waves break on a beach')
    raise ConfigError(
      f'{text[:60]!r} is no structured caption; write it as in {str(example)!r}, or give the bare '
      'description'
    )
  return AudioCaption(
    description=found['description'],
    quality=float(found['quality']),
    speech=found['speech'] == 'contains',
    singing=found['singing'] == 'contains',
    music=None if found['music'] is None else float(found['music']),
    music_description=found['music_description'] or '',
  )


def structured(prompt: str, *, music: str = '', quality: float | None = None) -> AudioCaption:
  """Turns what people type into a caption: a description; a whole caption stays as it is.

  A description asks for a sound without speech and singing, of quality 7.0, or 8.0 with music,
  which the report samples with.

  Args:
    prompt: what is to be heard.
    music: mood and genre of the music; '' for none.
    quality: another than these.

  Raises:
    ConfigError: `AudioCaption` cannot say it, or a whole caption comes with music or a quality.
  """
  if prompt.strip().startswith(_START):
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
    music=MUSIC_LIKELIHOOD if music else None,
    music_description=music,
  )


def _contains(it: bool) -> str:
  return 'contains' if it else 'does not contain'


def _within(name: str, value: float, highest: float, decimals: int) -> float:
  if not (math.isfinite(value) and 0 <= value <= highest):
    raise ConfigError(f'{name}={value} of a sound: take a number from 0 to {highest}')
  return round(float(value), decimals) + 0.0  # -0.0 would be written with its sign


def _safe(text: str) -> str:
  try:
    return clean_prompt(text.replace('"', "'"))
  except ConfigError:  # nothing is left of it
    return ''
