"""Writes captions of the clips that are kept, once each, and the captions of their records.

What a captioner wrote (see `captions.py`) is kept, a line a clip, so that a run that was killed
goes on. A template then makes a record's caption of it, of the camera, of labels and of sound:

{camera}   the move of the camera where people or the scorer are sure of it: 'Pan right.'
{shot}     labels of the shot that people set: 'Wide shot.'
{caption}  what was written
{sound}    the structured caption of sound (Movie Gen §6, Table 27), alone
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import append_json_line, end_line, read_json_lines
from mgjax.core.typing import UInt8
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.ingest.worker_pool import ALLOWANCE, Allowance, Guarded, Lost
from mgjax.lab.curation import frames
from mgjax.lab.curation.captions import Captioner, Clip, make_captioner, sentence_of
from mgjax.lab.curation.filters.sound import place
from mgjax.lab.curation.measure import open_video, or_reason
from mgjax.lab.curation.review.labels import CAMERA, SHOTS
from mgjax.lab.curation.rows import digest
from mgjax.lab.curation.scores.camera_motion import ANSWERS
from mgjax.lab.curation.scores.sound import SoundLimits
from mgjax.lab.curation.settings import CaptionSettings
from mgjax.sections.audio.captions import AudioCaption

_AT_ONCE = 8  # clips between two of which what was written is kept
# Scores that records carry: of a row -> of a record.
CARRIED = {
  'camera_class': 'camera',
  'camera_confidence': 'camera_confidence',
  'people_score': 'people',
  'aesthetics_score': 'aesthetics',
  **{
    f'sound_{name}': f'sound_{name}'
    for name in ('silence', 'loudness', 'peak', 'voice', 'music', 'sound', 'cosine', 'quality')
  },
}

_Row = Fields


def caption_clips(
  rows: Sequence[_Row],
  inputs: Inputs,
  folder: str | os.PathLike[str],
  settings: CaptionSettings,
  *,
  allowance: Allowance = ALLOWANCE,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str | None]:
  """Returns what a captioner writes of clips; None where it says nothing, '' of what is unreadable.

  Of each row clip, place, start, end and caption are read; a process under limits reads frames.
  Raises ConfigError if the captioner cannot be made.
  """
  captioner = make_captioner(settings, os.path.join(folder, 'answers'))
  if not captioner.sees:
    return captioner.captions([Clip(_nothing, 1.0, row['caption'] or '') for row in rows])
  path = pathlib.Path(folder) / f'{digest(_identity(settings))}.jsonl'
  known: dict[str, str | None] = dict(pair for pair, _ in read_json_lines(path, _parsed_caption))
  missing = [row for row in rows if _key(row) not in known]
  progress(len(rows) - len(missing), len(rows))
  with Guarded(_frames, allowance) as read:
    for first in range(0, len(missing), _AT_ONCE):
      some = missing[first : first + _AT_ONCE]
      for row, caption in zip(some, _written(captioner, some, inputs, read, settings), strict=True):
        known[_key(row)] = caption
        if caption:
          end_line(path)
          append_json_line(path, [_key(row), caption])
      progress(len(rows) - len(missing) + first + len(some), len(rows))
  return [known.get(_key(row)) for row in rows]


def compose(row: _Row, settings: CaptionSettings, limits: SoundLimits) -> str:
  """Returns a record's caption: the template, filled with what is known of a clip.

  Labels of the camera that people set count, and else the scorer's answer, where it is sure.
  """
  caption = row.get('caption') or ''
  labels = row.get('labels') or ()
  if settings.template.strip() == '{sound}':
    return _sound_caption(caption, row, limits)
  camera = [label for label in labels if label in CAMERA]
  if camera and row.get('camera_class') in ANSWERS:  # people know better than what rules wrote
    caption = caption.removeprefix(sentence_of(row['camera_class'])).lstrip()
  sure = (row.get('camera_confidence') or 0.0) >= settings.prefix
  if not camera and sure and row.get('camera_class') in ANSWERS:
    camera = [row['camera_class']]
  front = sentence_of(*camera)
  filled = settings.template.format(
    camera='' if caption.startswith(front) else front,
    shot=sentence_of(*(label for label in labels if label in SHOTS)),
    caption=caption,
  )
  return ' '.join(filled.split())


def carried(row: _Row, limits: SoundLimits) -> dict[str, Any]:
  """Returns what a record holds about a clip beside its caption: camera, labels, sound."""
  fields = {name: row[key] for key, name in CARRIED.items() if row.get(key) is not None}
  if row.get('sound_cosine') is not None:
    fields['sound_place'] = place(dict(row), limits)
  if row.get('labels'):
    fields['labels'] = ', '.join(row['labels'])
  return fields


def _sound_caption(caption: str, row: _Row, limits: SoundLimits) -> str:
  """The caption of Table 27; what no network said is left out."""
  voice, music = row.get('sound_voice'), row.get('sound_music')
  with contextlib.suppress(ConfigError):  # nothing is left of the description
    return str(
      AudioCaption(
        caption,
        quality=row.get('sound_quality'),
        speech=None if voice is None else voice >= limits.heard,
        singing=None,
        music=music,
      )
    )
  return ''


def _written(
  captioner: Captioner,
  rows: Sequence[_Row],
  inputs: Inputs,
  read: Guarded,
  settings: CaptionSettings,
) -> list[str | None]:
  """Returns a captioner's captions; '' for clips that cannot be read."""
  captions: list[str | None] = [''] * len(rows)
  clips = []
  indices = []
  for number, row in enumerate(rows):
    seconds = row['end'] - row['start']
    sampling = captioner.sampling(settings, seconds)
    pictures = read((inputs[int(row['place'])], row['start'], row['end'], *sampling))
    if isinstance(pictures, str | Lost):
      continue
    fps = len(pictures) / max(seconds, 1e-6)
    clips.append(Clip(lambda pictures=pictures: pictures, fps, row['caption'] or ''))
    indices.append(number)
  for number, caption in zip(indices, captioner.captions(clips), strict=True):
    captions[number] = caption
  return captions


def _frames(
  job: tuple[Input | RejectedEntry, float, float, float, int],
) -> UInt8[np.ndarray, 't h w 3'] | str:
  """Returns the frames of a clip for a captioner, or why there are none."""
  video, start, end, rate, side = job

  def read() -> UInt8[np.ndarray, 't h w 3'] | str:
    pictures = []
    due = start
    for frame in frames.stream(open_video(video)):
      if frame.start >= end - 1e-3:
        break
      if frame.start >= due - 1e-3:
        due = max(due, start) + 1 / rate
        pictures.append(frame.shrunk(side).pixels)
    return np.stack(pictures) if pictures else 'shows no frame'

  return or_reason(read, video, 'read', MemoryError)


def _identity(settings: CaptionSettings) -> JSON:
  """What captions depend on; not the template, nor how fast a server is asked."""
  fields = dataclasses.asdict(settings)
  del fields['template'], fields['prefix']
  fields['endpoint'] = {name: settings.endpoint.get(name) for name in ('model', 'options')}
  return fields


def _key(row: _Row) -> str:
  return digest([row['clip'], row['start'], row['end'], row['caption'] or ''])


def _parsed_caption(line: Any) -> tuple[str, str]:
  key, caption = line
  return key + '', caption + ''


def _nothing() -> np.ndarray:
  raise DataError('no frame is needed for the text that came with a clip')
