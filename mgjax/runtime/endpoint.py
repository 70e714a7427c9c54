"""A language model that a server has: questions of text and pictures in, text or checked JSON out.

The server speaks OpenAI's protocol of chat completions, as those of vLLM and llama.cpp do. What it
answered is kept on disk, one file a question, named by a hash of model, options, text and pixels.
So a call that was killed asks only what is missing when it is made again. What has no answer stands
in `failed.jsonl` beside these files, with the reason, and is asked again by the next call.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.files import append_json_line, read_json_lines, read_optional_json, write_bytes
from mgjax.runtime.chat import Chat, Check, EndpointSettings, Failed, Question, Unfit, fit
from mgjax.runtime.progress import Progress
from mgjax.runtime.workdir_lock import hold

__all__ = ['FAILED', 'Endpoint', 'EndpointSettings', 'Question']

FAILED = 'failed.jsonl'
_SHOWN = 200  # characters of a question that has no answer

_log = logging.getLogger(__name__)


class Endpoint:
  """Asks the model that a server has, and keeps what it answered.

  One call or process at a time uses a folder; another one is refused.

  Args:
    settings: which model, and how it is asked.
    folder: of the answers.
  """

  def __init__(self, settings: EndpointSettings, folder: str | os.PathLike[str]):
    self.settings = settings
    self.folder = pathlib.Path(folder)

  def ask_all(self, questions: Sequence[Question], check: Check | None = None) -> list[Any]:
    """Returns the answers in order; None where there is none, for a reason that failed.jsonl has.

    Args:
      questions: each is taken once, in order, when its turn comes, so that a sequence may read its
        frames from disk then.
      check: makes of an answer's JSON what is returned for it, and raises ValueError or a
        MgjaxError if it is not what is wanted: then the model is told so and asked again. Without
        it an answer is its text.

    Raises:
      ConfigError: there is no key, the folder is in use, or `check` returns None.
    """
    chat = Chat(self.settings)
    with contextlib.ExitStack() as stack:
      stack.enter_context(hold(self.folder))
      answers = _Answers(self.folder, self.settings)
      answers.tidy()
      stack.callback(answers.tidy)
      progress = stack.enter_context(contextlib.closing(Progress(len(questions), unit='question')))
      pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(self.settings.at_once))
      stack.callback(chat.stop, 'the call ended')
      return _Call(chat, answers, pool, progress, questions, check).run()


class _Call:
  """Questions on their way; all but the requests themselves happens in one thread."""

  def __init__(
    self,
    chat: Chat,
    answers: '_Answers',
    pool: concurrent.futures.ThreadPoolExecutor,
    progress: Progress,
    questions: Sequence[Question],
    check: Check | None,
  ):
    self._chat, self._answers, self._pool, self._progress = chat, answers, pool, progress
    self._questions, self._check = questions, check
    self._found: list[Any] = [None] * len(questions)
    self._places: dict[str, list[int]] = {}  # of what is under way or has failed
    self._under_way: dict[concurrent.futures.Future, tuple[str, str]] = {}  # key and text
    self._in_a_row, self._reason = 0, ''

  def run(self) -> list[Any]:
    """Asks all, and returns the answers."""
    for place in range(len(self._questions)):
      self._begin(place, self._questions[place])
      self._report(place + 1)
    while self._under_way:
      self._settle()
      self._report(len(self._questions))
    if missing := sum(map(len, self._places.values())):
      _log.warning(
        '%d of %d questions have no answer, the first of them: %s; %r lists them, and the same '
        'call asks them again',
        missing, len(self._found), self._reason, os.fspath(self._answers.failed),
      )  # fmt: skip
    return self._found

  def _begin(self, place: int, question: Question) -> None:
    key = self._answers.key(question)
    if key in self._places:  # the same as an earlier one
      self._places[key].append(place)
    elif (kept := self._answers.kept(key, self._check)) is not None:
      self._found[place] = kept
    else:
      while len(self._under_way) >= self._answers.settings.at_once:
        self._settle()
      self._places[key] = [place]
      future = self._pool.submit(self._chat.ask, question, self._check)
      self._under_way[future] = key, question.text

  def _settle(self) -> None:
    """Waits for one answer or more, and keeps it."""
    done, _ = concurrent.futures.wait(self._under_way, return_when='FIRST_COMPLETED')
    for future in done:
      key, text = self._under_way.pop(future)
      try:
        answer, value = future.result()
      except Failed as failed:
        self._fail(key, text, str(failed))
        continue
      self._in_a_row = 0
      self._answers.keep(key, answer)
      for place in self._places.pop(key):
        self._found[place] = value

  def _fail(self, key: str, text: str, reason: str) -> None:
    self._reason = self._reason or reason
    self._answers.list_failed(key, self._places[key][0], text, reason)
    self._in_a_row += 1
    if self._in_a_row == self._answers.settings.failures_in_a_row:
      self._chat.stop(f'{self._in_a_row} questions in a row had no answer, the last: {reason}')

  def _report(self, begun: int) -> None:
    self._progress.report(begun - len(self._under_way))


class _Answers:
  """The answers of a folder, and the list of questions that have none."""

  def __init__(self, folder: pathlib.Path, settings: EndpointSettings):
    self.folder, self.settings = folder, settings
    self.failed = folder / FAILED

  def key(self, question: Question) -> str:
    """Names a question by all that its answer depends on."""
    asked = {
      'model': self.settings.model,
      'options': self.settings.options,
      'system': question.system,
      'text': question.text,
      'frames': [
        [*frame.shape, hashlib.sha256(np.ascontiguousarray(frame)).hexdigest()]
        for frame in question.frames
      ],
      'jpeg_quality': self.settings.jpeg_quality if len(question.frames) else 0,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

  def kept(self, key: str, check: Check | None) -> Any:
    """Returns an answer of an earlier call; None if there is none that `check` takes."""
    found = read_optional_json(self._path(key), lambda kept: isinstance(kept['answer'], str))
    try:
      return None if found is None else fit(found['answer'], check)
    except Unfit:
      return None

  def keep(self, key: str, answer: str) -> None:
    """Puts an answer on disk, so that no crash takes it away."""
    kept = {'model': self.settings.model, 'answer': answer}
    write_bytes(self._path(key), json.dumps(kept).encode())

  def list_failed(self, key: str, index: int, text: str, reason: str) -> None:
    """Adds a question to the list of those without an answer."""
    row = {'question': key, 'index': index, 'text': text[:_SHOWN], 'reason': reason}
    append_json_line(self.failed, row)

  def tidy(self) -> None:
    """Leaves in the list the last line of each question that has no answer yet."""
    if self.failed.exists():
      lines = {
        key: line
        for key, line in read_json_lines(self.failed, _key_of)
        if line.endswith(b'\n') and not self._path(key).exists()
      }
      write_bytes(self.failed, b''.join(lines.values()))

  def _path(self, key: str) -> pathlib.Path:
    return self.folder / key[:2] / f'{key}.json'


def _key_of(row: Any) -> str:
  if not re.fullmatch('[0-9a-f]{64}', row['question']):
    raise ValueError('it names no question')
  return row['question']
