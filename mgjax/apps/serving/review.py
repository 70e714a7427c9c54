"""Clips as items of the queue: people keep, drop, trim, caption and label them (Movie Gen §3.3).

A clip is shown with its frames in an mp4 that browsers play. Two people never have the same one at
once; who leaves one passes it on, and a decision can be changed by going back: the last one counts.
"""

import asyncio
import contextlib
import functools
import os
import pathlib
import secrets
from collections.abc import Iterator, Sequence
from typing import ClassVar

from mgjax.apps.serving.annotation_queue import AnnotationQueue, Task, now
from mgjax.apps.serving.http import Refused
from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, MgjaxError, first_line
from mgjax.core.files import read_json, write_bytes, write_json
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.ingest.worker_pool import ALLOWANCE, Guarded, Lost
from mgjax.data.media.transcode import cut_video
from mgjax.lab.curation.measure import open_video, or_reason
from mgjax.lab.curation.review.candidates import read_candidates
from mgjax.lab.curation.review.decisions import FILE, Decision, key_of, read_decisions
from mgjax.lab.curation.review.labels import CAMERA, SHOTS
from mgjax.lab.curation.scores.camera_motion import ANSWERS
from mgjax.models.text.prompts import LONGEST_PROMPT, clean_prompt

PEOPLE = 'people.json'
SHOWN = 'shown'
_KEPT = 64  # clips that stay in `shown`
_CRF = 23  # of clips that are shown, not of those that are cut
_REASON = 200  # letters
_TITLE = 'Clips for fine-tuning'
_SLACK = 2e-3  # seconds by which the page may be wrong about where a clip ends


class Review(AnnotationQueue):
  """The clips of a run, of which people may have decided about some already."""

  kind = 'review'
  largest = 65_536
  revisable = True
  fields: ClassVar[Fields] = {
    'id': str,
    'keep': bool,
    'reason': str,
    'from': (int, float),
    'to': (int, float),
    'caption': str,
    'labels': list,
  }

  def __init__(self, folder: str | os.PathLike[str], inputs: Inputs, people: Sequence[str] = ()):
    """Reads what there is to look at and what was decided; `people` come to those before.
    Raises ConfigError if there is nothing to look at, or of other videos, or nobody who looks.
    """
    self._folder = pathlib.Path(folder)
    self._inputs = inputs
    rows, self._about = read_candidates(folder, inputs)
    self._rows = {key_of(row): row for row in rows}
    secret, names = _people(self._folder / PEOPLE, people)
    super().__init__(self._folder / FILE, secret, names, dict.fromkeys(self._rows, 1))
    for decision in read_decisions(self.log):
      self.add(decision.key, decision)
    self._media = {self.token('media', *key): key for key in self._rows}
    self._cut = Guarded(_cut, ALLOWANCE)
    self._cutting = asyncio.Lock()

  def close(self) -> None:
    self._cut.close(for_good=True)

  def plan(self, person: str, take_over: bool) -> Iterator[Task]:
    """Yields all undecided clips."""
    return (Task(key, person) for key in self.open)

  def identity(self, task: Task) -> str:
    """Returns the id of the decision, another one whenever the person goes back to the clip."""
    return self.token('decision', task.person, *task.key, self.answer_counts(task.key)[task.person])

  async def describe(self, task: Task) -> JSON:
    """Returns what is known of a clip, and what was decided about it before."""
    row = self._rows[task.key]
    before = self.latest.get(task.key)
    answer = row.get('camera_class')
    sure = row.get('camera_confidence') or 0.0
    return {
      'clip': row['clip'],
      'seconds': row['end'] - row['start'],
      'frame': 1 / row['fps'],
      'sound': bool(row['sound']),
      'size': [row['width'], row['height']],
      'shortest': self._about.shortest,
      'longest': self._about.longest,
      'caption': row['caption'] or '',
      'camera': {'answer': answer, 'confidence': sure, 'labels': ANSWERS.get(answer or '', ())},
      'groups': {'Camera': CAMERA, 'Shot': SHOTS},
      'decided': before
      and {
        'keep': before.keep,
        'reason': before.reason,
        'by': before.person,
        'from': before.first - row['start'],
        'to': before.last - row['start'],
        'caption': before.caption,
        'labels': before.labels,
      },
    }

  def media_names(self, task: Task) -> dict[str, str]:
    return {'clip': self.token('media', *task.key)}

  async def media(self, person: str, name: str) -> tuple[pathlib.Path, str]:
    """Returns the mp4 of a clip, which is cut when it is first asked for."""
    if (key := self._media.get(name)) is None:
      raise Refused(404, 'There is no such clip.')
    path = self._folder / SHOWN / f'{name}.mp4'
    async with self._cutting:
      if not path.exists():
        row = self._rows[key]
        clip = self._inputs[int(row['place'])], row['start'], row['end']
        data = await asyncio.to_thread(self._cut, clip)
        if isinstance(data, str | Lost):
          why = data if isinstance(data, str) else data.reason
          raise Refused(422, f'This clip cannot be shown: {why}.')
        await asyncio.to_thread(_put, path, data)
    return path, 'video/mp4'

  async def decide(self, task: Task, fields: Fields, waited: float) -> Decision:
    row = self._rows[task.key]
    start, end = row['start'], row['end']
    first, last = start + fields['from'], start + fields['to']
    caption = ''
    with contextlib.suppress(ConfigError):  # nothing is left of it
      caption = clean_prompt(fields['caption'])
    if len(fields['caption']) > LONGEST_PROMPT or len(fields['reason']) > _REASON:
      raise Refused(400, f'A caption has at most {LONGEST_PROMPT} letters, a reason {_REASON}.')
    if not all(isinstance(label, str) for label in fields['labels']):
      raise Refused(400, 'labels are names.')
    if fields['keep'] and not caption:
      raise Refused(400, 'A clip that is kept needs a caption.')
    try:
      return Decision(
        id=fields['id'],
        clip=row['clip'],
        start=start,
        end=end,
        person=task.person,
        keep=fields['keep'],
        reason='' if fields['keep'] else ' '.join(fields['reason'].split()),
        first=start if abs(first - start) < _SLACK else round(first, 6),
        last=end if abs(last - end) < _SLACK else round(last, 6),
        caption=None if caption == (row['caption'] or '') else caption or None,
        labels=tuple(fields['labels']),
        time=now(),
      )
    except MgjaxError as error:
      raise Refused(400, f'That is no decision: {first_line(error)}.') from error

  def _decided(self) -> list[Decision]:
    return [decision for key, decision in self.latest.items() if key in self._rows]

  def header(self, person: str, waiting: Sequence[Task]) -> JSON:
    decided = self._decided()
    total = len(self._rows)
    num_kept = sum(d.keep for d in decided)
    own = sum(d.person == person for d in decided)
    ended = f'All {total} clips are decided. You can close this page.'
    if self.open:
      ended = f'Others are looking at the last {len(self.open)}; reload later for what they leave.'
    return {
      'title': _TITLE,
      'count': f'{len(decided)} of {total} decided, {num_kept} kept, {own} by {person}',
      'done': len(decided),
      'total': total,
      'ended': ended,
      'more': 0,
      'own': own,
    }

  def state(self) -> JSON:
    decided = self._decided()
    rows = [
      [
        {'text': name, 'link': f'../r/{token}'},
        sum(decision.person == name for decision in decided),
        sum(decision.person == name and decision.keep for decision in decided),
      ]
      for token, name in self.people.items()
    ]
    return {
      'title': _TITLE,
      'sum': f'{len(decided)} of {len(self._rows)} clips are decided, '
      f'{sum(decision.keep for decision in decided)} of them kept.',
      'tables': [{'title': 'People', 'head': ['Name', 'Decided', 'Kept'], 'rows': rows}],
    }


def _people(path: pathlib.Path, added: Sequence[str]) -> tuple[str, list[str]]:
  """Returns the secret of links, and the names of people: those in the file, and `added`."""
  known = read_json(path) if path.exists() else {'secret': secrets.token_hex(32), 'people': []}
  names = list(dict.fromkeys([*known['people'], *added]))
  if not names:
    raise ConfigError('nobody looks at clips; give names, --people=ann,ben')
  if names != known['people']:
    write_json(path, known | {'people': names}, private=True)
  return known['secret'], names


def _put(path: pathlib.Path, data: bytes) -> None:
  """Writes a clip, and deletes the oldest ones."""
  write_bytes(path, data)
  files = sorted(path.parent.glob('*.mp4'), key=lambda file: file.stat().st_mtime)
  for old in files[:-_KEPT]:
    old.unlink(missing_ok=True)


def _cut(clip: tuple[Input | RejectedEntry, float, float]) -> bytes | str:
  """Returns an mp4 of a clip that browsers play, or why there is none."""
  video, start, end = clip
  cut = functools.partial(cut_video, crf=_CRF, anew=True)
  return or_reason(lambda: cut(open_video(video), start, end)[0], video, 'cut', MemoryError)
