"""Rewrites short prompts in the style of training captions, by a language model (Movie Gen §3.4.1).

Users type few words; training captions have about 100. A teacher, a large model prompted with
examples, rewrites prompts by three rules: one structure for all, simple words for difficult ones,
and no motion so detailed that videos break. People review its output, and a small student is
finetuned on the pairs they keep:

  teach(prompts, ...)           -> pairs.jsonl, a line a prompt, with the reason for each drop
  (people set "keep" to false, or edit "rewritten")
  write_student_file(pairs, out)  -> a .jsonl of chats for finetuning of chat models

The Movie Gen paper does not publish the wording of the request, the examples and the limits; these
are our own.
"""

import dataclasses
import functools
import json
import logging
import os
import re
from collections.abc import Sequence
from typing import Annotated, Any

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.core.files import read_json, read_json_lines, write_bytes
from mgjax.core.settings import Checked, Fraction, Positive, Range, unpack
from mgjax.lab.language_models.endpoint import Endpoint, EndpointSettings, Question
from mgjax.models.text.prompts import answered, clean_prompt, split_frame_rate
from mgjax.models.text.words import words_of

_log = logging.getLogger(__name__)
EXAMPLES = (
  (
    'a dog on a beach',
    'A brown dog runs along the edge of the water on a sandy beach. Small waves roll in behind it. '
    'The dog has wet fur and an open mouth. The sky is clear and blue, and the low sun gives a '
    'warm light. The camera moves right with the dog.',
  ),
  (
    'ebullient chef flambéing crêpes',
    'A happy cook in a white jacket stands at a stove and holds a pan with thin pancakes. A high '
    'yellow flame rises from the pan. The cook smiles. Copper pots hang on the wall behind. The '
    'kitchen is lit by soft light from a window on the left. The camera does not move.',
  ),
)
_SYSTEM = (
  'You write short prompts for a video generator anew, in the style of the captions that it was '
  'trained on. Say what is to be seen in plain sentences, in this order: who or what, what it '
  'does, where, the light and colours, the camera. Use simple, direct words for difficult ones. '
  'Keep all that the prompt asks for, numbers and quoted text letter for letter, and add nothing '
  'against it. Say motion simply, without details of how limbs or things move. Write about '
  '{words} words. Answer with JSON alone: {{"prompt": "..."}}'
)
_PREAMBLE = re.compile(r'(sure|certainly|of course|here is|here\'s|as an ai|i )\b', re.IGNORECASE)
_SHORT = 3  # letters; words up to this length may be lost


@dataclasses.dataclass(frozen=True)
class RewriteSettings(Checked):
  """Which model rewrites prompts, and which answers are accepted.

  Attributes:
    endpoint: fields of `EndpointSettings`: `model`, `url` and so on.
    words: that are asked for; the paper's captions have about 100.
    most: words that a rewritten prompt may have.
    examples: pairs of a prompt and its rewriting that the model is shown; none for a student.
    keep: least share of a prompt's longer words that must remain.
  """

  endpoint: Fields
  words: Annotated[int, Range(least=5, most=500)] = 60
  most: Positive = 250
  examples: tuple[tuple[str, str], ...] = EXAMPLES
  keep: Fraction = 0.5

  def asking(self) -> EndpointSettings:
    """Returns the settings of the endpoint; ConfigError if they are wrong."""
    return unpack(EndpointSettings, self.endpoint, 'rewrite.endpoint')

  @property
  def system(self) -> str:
    """The system message."""
    examples = ''.join(
      f'\n\nPrompt: {prompt}\nAnswer: {_quoted(answer)}' for prompt, answer in self.examples
    )
    return _SYSTEM.format(words=self.words) + examples


def fault_of(prompt: str, rewritten: str, settings: RewriteSettings) -> str:
  """Returns why a rewritten prompt must not be used; '' if it may be used.

  The rules find lost content. They do not judge the quality of the rest.
  """
  new = words_of(rewritten.lower())
  if len(new) > settings.most:
    return f'{len(new)} words; expected at most {settings.most}'
  if _PREAMBLE.match(rewritten):
    return f'it begins with {rewritten[:20]!r}; expected the prompt alone'
  if ' '.join(new) == ' '.join(words_of(prompt.lower())):
    return 'it is the prompt itself'
  quoted = [
    quotation
    for pair in re.findall(r'"([^"]+)"|“([^”]+)”', prompt)
    for quotation in pair
    if quotation
  ]
  for text in (*quoted, *re.findall(r'\d+', prompt)):
    if text not in rewritten:
      return f'{text!r} is missing'
  old = {word for word in words_of(prompt.lower()) if len(word) > _SHORT}
  # A word remains if a new word starts with its stem: 'runs' for 'running'.
  stems = [word[: max(_SHORT, len(word) - 3)] for word in old]
  remaining = sum(any(word.startswith(stem) for word in new) for stem in stems)
  if old and remaining / len(old) < settings.keep:
    return f'{remaining} of {len(old)} longer words are left'
  return ''


def rewrite_prompts(
  prompts: Sequence[str], settings: RewriteSettings, folder: str | os.PathLike[str]
) -> list[str]:
  """Returns the model's rewriting of clean prompts, or the prompt and a warning if that fails.

  A leading frame rate ('FPS-16 ...') stays. Answers are cached in `folder`, so that the same prompt
  gets the same rewriting.
  Raises ConfigError if the settings of the endpoint are wrong, or its folder is in use.
  """
  texts = [split_frame_rate(prompt)[1] for prompt in prompts]
  rewritten = []
  for prompt, text, answer in zip(prompts, texts, _ask(texts, settings, folder), strict=True):
    fault = 'there is no answer' if answer is None else fault_of(text, answer, settings)
    if fault:
      excerpt = printable(prompt[:80])
      _log.warning('%r was not rewritten, and is used as it is: %s', excerpt, printable(fault))
    else:
      _log.info('%r is rewritten: %s', printable(prompt[:80]), printable(answer))
    rewritten.append(prompt if fault else prompt.removesuffix(text) + str(answer))
  return rewritten


def teach(
  prompts: Sequence[str],
  settings: RewriteSettings,
  folder: str | os.PathLike[str],
  pairs: str | os.PathLike[str],
) -> dict[str, int]:
  """Writes a teacher's rewriting of prompts, a line a prompt, for people to review.

  A line has `prompt`, `rewritten` (null without an answer), `reason` (of `fault_of`, '' for none)
  and `keep`, true if there is no reason. People may change `keep` and `rewritten`. Answers are
  cached in `folder`. Returns the numbers of lines that are kept and dropped. Raises ConfigError if
  `pairs` exists, because it may hold edits, or as `rewrite_prompts`.
  """
  if os.path.exists(pairs):
    raise ConfigError(f'{os.fspath(pairs)!r} exists; delete it, or name another file')
  prompts = list(dict.fromkeys(split_frame_rate(clean_prompt(prompt))[1] for prompt in prompts))
  rows = []
  for prompt, answer in zip(prompts, _ask(prompts, settings, folder), strict=True):
    reason = 'no answer' if answer is None else fault_of(prompt, answer, settings)
    rows.append({'prompt': prompt, 'rewritten': answer, 'reason': reason, 'keep': not reason})
  _write_lines(pairs, rows)
  num_kept = sum(row['keep'] for row in rows)
  return {'kept': num_kept, 'dropped': len(rows) - num_kept}


def write_student_file(
  pairs: str | os.PathLike[str], out: str | os.PathLike[str], settings: RewriteSettings
) -> int:
  """Writes the kept pairs as chats to finetune a student on, and returns their number.

  A line is {"messages": [system, user, assistant]}, the format of trainers of chat models. The
  system message is the teacher's without examples, so query a student with `examples=()`.
  Raises DataError if no pair is kept, or the file cannot be read.
  """
  if not os.path.exists(pairs):
    raise DataError(f'there is no file {os.fspath(pairs)!r}; `teach` writes it')
  system = dataclasses.replace(settings, examples=()).system
  chats = []
  for row, _ in read_json_lines(pairs, _pair):
    if row is not None:
      contents = {'system': system, 'user': row[0], 'assistant': _quoted(row[1])}
      chats.append(
        {'messages': [{'role': role, 'content': content} for role, content in contents.items()]}
      )
  if not chats:
    raise DataError(f'no pair of {os.fspath(pairs)!r} is kept; set "keep" of some to true')
  _write_lines(out, chats)
  return len(chats)


def read_rewriter(text: str, flag: str = '--rewrite') -> RewriteSettings:
  """Reads 'MODEL@URL', or a .json file with the fields of `RewriteSettings`; messages name `flag`.

  Raises:
    ConfigError: `text` is neither, or a field is wrong.
    DataError: the file cannot be read.
  """
  if text.endswith('.json'):
    settings = unpack(RewriteSettings, read_json(text), flag.lstrip('-'))
  else:
    model, at, url = text.rpartition('@http')
    if not at or not model:
      raise ConfigError(
        f'{flag}={text}: expected MODEL@URL, as in llama@http://127.0.0.1:8000/v1, or a .json file'
      )
    settings = RewriteSettings({'model': model, 'url': f'http{url}'})
  settings.asking()
  return settings


def _ask(
  prompts: Sequence[str], settings: RewriteSettings, folder: str | os.PathLike[str]
) -> list[str | None]:
  endpoint = Endpoint(settings.asking(), folder)
  questions = [Question(prompt, system=settings.system) for prompt in prompts]
  return endpoint.ask_all(questions, functools.partial(answered, name='prompt'))


def _quoted(prompt: str) -> str:
  return json.dumps({'prompt': prompt}, ensure_ascii=False)


def _pair(row: Any) -> tuple[str, str] | None:
  """Returns prompt and rewriting of a line of `teach`; None if people dropped it."""
  if not isinstance(row['keep'], bool):
    raise ValueError('"keep" is neither true nor false')
  return (row['prompt'] + '', clean_prompt(row['rewritten'])) if row['keep'] else None


def _write_lines(path: str | os.PathLike[str], rows: Sequence[object]) -> None:
  lines = (json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  write_bytes(path, ''.join(lines).encode())
