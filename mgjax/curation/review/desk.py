"""What is said to people who look at clips and taken from them, without the network between.

Each person is given a clip that nobody has decided about and that nobody else is looking at, with
its frames in an mp4 that browsers play. A decision is on the disk before it is acknowledged, has
the id that came with the clip, so that sending it again changes nothing, and can be changed by
going back to it: the last one counts (Movie Gen §3.3).
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.errors import ConfigError, DataError, MgjaxError, StorageError, first_line
from mgjax.core.files import parse_json, read_json, write_bytes, write_json
from mgjax.curation.measure import open_video, reason_of
from mgjax.curation.review import candidates
from mgjax.curation.review.decisions import (
  FILE,
  Decision,
  Key,
  append_decision,
  key_of,
  read_decisions,
)
from mgjax.curation.review.labels import CAMERA, SHOTS
from mgjax.curation.scores.global_motion import ANSWERS
from mgjax.data.ingest.entries import Rejected
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.ingest.worker_pool import ALLOWANCE, Guarded, Lost
from mgjax.media.transcode import cut_video
from mgjax.runtime.page_server import Refused
from mgjax.text.prompts import LONGEST, clean_prompt

PEOPLE, SHOWN = 'people.json', 'shown'
_HELD = 900.0  # seconds that a clip stays with whoever has said nothing since
_KEPT = 64  # clips that stay in `shown`
_CRF = 23  # of clips that are shown, not of those that are cut
_REASON = 200  # letters
_SLACK = 2e-3  # seconds by which the page may be wrong about where a clip ends
_FIELDS = {
  'id': str, 'keep': bool, 'reason': str, 'from': (int, float), 'to': (int, float),
  'caption': str, 'labels': list,
}  # fmt: skip


class Desk:
  """What is said to people and taken from them.

  Attributes:
    people: token -> name.
    decisions: in their order, those of this folder.
  """

  def __init__(self, folder: str | os.PathLike[str], inputs: Inputs, people: Sequence[str] = ()):
    """Reads what there is to look at, and what was decided.

    Args:
      folder: of the review.
      inputs: the videos.
      people: names of those who look at clips, beside those who did before.

    Raises:
      ConfigError: there is nothing to look at, or of other videos, or nobody who looks.
    """
    self._folder, self._inputs = pathlib.Path(folder), inputs
    rows, self._about = candidates.read_candidates(folder, inputs)
    self._rows = {key_of(row): row for row in rows}
    self._secret, names = _people(self._folder / PEOPLE, people)
    self.people = {self._token('person', name): name for name in names}
    self.decisions = read_decisions(self._folder / FILE)
    self._latest = {each.key: each for each in self.decisions}
    self._turns = {each.key: turn for turn, each in enumerate(self.decisions)}
    self._held: dict[Key, tuple[str, float]] = {}
    self._skipped: dict[str, set[Key]] = {}
    self._asked: dict[tuple[str, str], Key] = {}  # by person and id of the decision
    self._media = {self._token('media', *key): key for key in self._rows}
    self._cut, self._cutting = Guarded(_cut, ALLOWANCE), asyncio.Lock()
    self._writing = asyncio.Lock()

  def close(self) -> None:
    """Ends the process that cuts clips."""
    self._cut.close(for_good=True)

  def next(self, person: str, back: int = 0) -> dict[str, Any]:
    """Returns what a person is to see next, the same until it is decided.

    Args:
      person: a name.
      back: of the clips that they decided about the last but so many, to be looked at again.
    """
    now = time.monotonic()
    self._held = {
      key: (who, now if who == person else since)
      for key, (who, since) in self._held.items()
      if key not in self._latest and now - since < _HELD
    }
    own = [key for key, each in self._latest.items() if each.person == person and key in self._rows]
    open_clips = [key for key in self._rows if key not in self._latest]
    wanted = self._choose(person, open_clips)
    answer = {
      'done': len(self._rows) - len(open_clips), 'total': len(self._rows), 'own': len(own),
      'kept': sum(self._latest[key].keep for key in self._rows if key in self._latest),
      'left_by_others': len(open_clips), 'task': None, 'ahead': [], 'person': person,
    }  # fmt: skip
    if back:
      mine = sorted(own, key=self._turns.__getitem__)
      if back > len(mine):
        raise Refused(404, 'That is as far back as your decisions go.')
      wanted = [mine[-back]]
    elif wanted:
      self._held[wanted[0]] = person, now
    if wanted:
      answer['task'] = self._describe(person, wanted[0])
      answer['ahead'] = [self._token('media', *key) for key in wanted[1:2]]
    return answer

  def _choose(self, person: str, open_clips: Sequence[Key]) -> list[Key]:
    """What a person may look at: first what they have, then what is free, then what they passed."""
    passed = self._skipped.setdefault(person, set())
    free = [key for key in open_clips if self._held.get(key, (person, 0.0))[0] == person]
    had = [key for key in free if key in self._held and key not in passed]
    fresh = [key for key in free if key not in self._held and key not in passed]
    return [*had, *fresh, *(key for key in free if key in passed)]

  def _describe(self, person: str, key: Key) -> dict[str, Any]:
    row, before = self._rows[key], self._latest.get(key)
    mine = sum(each.key == key and each.person == person for each in self.decisions)
    identity = self._token('decision', person, *key, mine)
    self._asked[person, identity] = key
    answer, sure = row.get('camera_class'), row.get('camera_confidence') or 0.0
    return {
      'id': identity,
      'clip': row['clip'],
      'media': self._token('media', *key),
      'seconds': row['end'] - row['start'],
      'fps': row['fps'],
      'sound': bool(row['sound']),
      'size': [row['width'], row['height']],
      'shortest': self._about.shortest,
      'longest': self._about.longest,
      'caption': row['caption'] or '',
      'camera': {'answer': answer, 'confidence': sure, 'labels': ANSWERS.get(answer or '', ())},
      'groups': {'Camera': CAMERA, 'Shot': SHOTS},
      'decided': before and {
        'by': before.person, 'keep': before.keep, 'reason': before.reason,
        'from': before.first - before.start, 'to': before.last - before.start,
        'caption': before.caption, 'labels': before.labels,
      },
    }  # fmt: skip

  async def media(self, name: str) -> pathlib.Path:
    """Returns the mp4 of a clip, which is cut when it is first asked for.

    Raises:
      Refused: there is none, or it cannot be cut.
    """
    if (key := self._media.get(name)) is None:
      raise Refused(404, 'There is no such clip.')
    path = self._folder / SHOWN / f'{name}.mp4'
    if path.exists():
      return path
    async with self._cutting:
      if not path.exists():
        row = self._rows[key]
        given = self._inputs[int(row['place'])], row['start'], row['end']
        made = await asyncio.to_thread(self._cut, given)
        if isinstance(made, str | Lost):
          why = made if isinstance(made, str) else made.reason
          raise Refused(422, f'This clip cannot be shown: {why}.')
        await asyncio.to_thread(_put, path, made)
    return path

  def skip(self, person: str, body: bytes) -> dict[str, Any]:
    """Leaves a clip to others, and to the person when nothing else is left.

    Raises:
      Refused: it is no clip that they were shown.
    """
    identity = _parsed(body, {'id': str})['id']
    if (key := self._asked.get((person, identity))) is None:
      raise Refused(409, 'That clip was not shown to you; load it again.')
    self._skipped.setdefault(person, set()).add(key)
    self._held.pop(key, None)
    return {'left': identity}

  async def decide(self, person: str, body: bytes) -> dict[str, Any]:
    """Writes a decision, once.

    Raises:
      Refused: it is none, or about a clip that they were not shown, or the disk is full.
    """
    fields = _parsed(body, _FIELDS)
    async with self._writing:
      known = next((each for each in self.decisions if each.id == fields['id']), None)
      if known is not None and known.person != person:
        raise Refused(409, 'That clip was not shown to you; load it again.')
      if known is None:
        if (key := self._asked.get((person, fields['id']))) is None:
          raise Refused(409, 'That clip was not shown to you; load it again.')
        known = _decision(person, self._rows[key], fields)
        try:
          await asyncio.to_thread(append_decision, self._folder / FILE, known)
        except OSError as error:
          raise Refused(507, f'The decision could not be saved: {error.strerror}.') from error
        self.decisions.append(known)
        self._latest[key], self._turns[key] = known, len(self.decisions)
        self._held.pop(key, None)
    return {'saved': known.id}

  def _token(self, *parts: Any) -> str:
    """What nobody can guess who has not the secret."""
    message = json.dumps(parts).encode()
    return hmac.new(self._secret.encode(), message, hashlib.sha256).hexdigest()[:32]


def _decision(person: str, row: Mapping[str, Any], fields: Mapping[str, Any]) -> Decision:
  """What was sent, checked.

  Raises:
    Refused: it cannot be.
  """
  start, end = row['start'], row['end']
  first, last = start + fields['from'], start + fields['to']
  caption = ''
  with contextlib.suppress(ConfigError):  # nothing is left of it
    caption = clean_prompt(fields['caption'])
  if len(fields['caption']) > LONGEST or len(fields['reason']) > _REASON:
    raise Refused(400, f'A caption has at most {LONGEST} letters, a reason {_REASON}.')
  if fields['keep'] and not caption:
    raise Refused(400, 'A clip that is kept needs a caption.')
  try:
    return Decision(
      id=fields['id'],
      clip=row['clip'],
      start=start,
      end=end,
      person=person,
      keep=fields['keep'],
      reason='' if fields['keep'] else ' '.join(fields['reason'].split()),
      first=start if abs(first - start) < _SLACK else round(first, 6),
      last=end if abs(last - end) < _SLACK else round(last, 6),
      caption=None if caption == (row['caption'] or '') else caption or None,
      labels=tuple(fields['labels']),
      time=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
    )
  except MgjaxError as error:
    raise Refused(400, f'That is no decision: {first_line(error)}.') from error


def _people(path: pathlib.Path, more: Sequence[str]) -> tuple[str, list[str]]:
  """What links are made of, and who has one; both stay for those who come later."""
  known = read_json(path) if path.exists() else {'secret': secrets.token_hex(32), 'people': []}
  names = list(dict.fromkeys([*known['people'], *more]))
  if not names:
    raise ConfigError('nobody looks at clips; give names, --people=ann,ben')
  if names != known['people']:
    path.touch(0o600)
    write_json(path, known | {'people': names})
    path.chmod(0o600)
  return known['secret'], names


def _put(path: pathlib.Path, data: bytes) -> None:
  """Writes a clip, and deletes those that were made long before."""
  write_bytes(path, data)
  files = sorted(path.parent.glob('*.mp4'), key=lambda each: each.stat().st_mtime)
  for old in files[:-_KEPT]:
    old.unlink(missing_ok=True)


def _cut(given: tuple[Input | Rejected, float, float]) -> bytes | str:
  """An mp4 of a clip that browsers play, or why there is none."""
  each, start, end = given
  if isinstance(each, Rejected):
    return each.reason
  try:
    return cut_video(open_video(each), start, end, crf=_CRF, anew=True)[0]
  except (StorageError, MemoryError):
    raise
  except DataError as error:
    return reason_of(error, each)
  except Exception as error:  # whatever a stranger's file brings about must not end the server
    return f'cannot be cut ({type(error).__name__}: {error!s:.200})'


def _parsed(body: bytes, wanted: Mapping[str, Any]) -> dict[str, Any]:
  try:
    fields = parse_json(body, 'what was sent', error=DataError, mend='send it again')
  except MgjaxError as error:
    raise Refused(400, first_line(error)) from error
  fits = fields.keys() == wanted.keys() and all(
    isinstance(fields[name], kind) and (kind is bool or not isinstance(fields[name], bool))
    for name, kind in wanted.items()
  )
  if not fits or not all(isinstance(each, str) for each in fields.get('labels', ())):
    raise Refused(400, f'Expected {", ".join(wanted)}.')
  return fields
