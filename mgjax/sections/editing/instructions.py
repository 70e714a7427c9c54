"""Instructions: a grammar of edits, and what writes them and turns them round (Movie Gen §5).

Backtranslation needs of a clip an instruction, the one that undoes it, and captions of the clip
before and after. A language model writes them for real footage; a synthetic dataset has its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError

_COLOURS = (
  'red green blue yellow orange purple violet pink brown black white grey gray golden silver teal'
)
# What may stand for a slot; any words by default.
_SLOTS = {
  'colour': r'(?:(?:dark|light|bright) )?(?:' + '|'.join(_COLOURS.split()) + ')',
  'behind': r'(?:background|wall|sky|scene|room|floor)',
  'style': r'.*(?:style|painting|watercolou?r|drawing|sketch|cartoon|anime|film|photo).*',
  'quoted': r'["\'].*["\']',
  'verb': r'(?:stop|move|run|walk|jump|dance|turn|wave|fall|fly|swim|smile)\w*.*',
}
# Task -> how it is said, with slots; the first that fits decides, so what is special stands first.
GRAMMAR: Mapping[str, tuple[str, ...]] = {
  'nothing': ('leave it as it is', 'change nothing', 'keep {x}'),
  'text': ('change the text to {quoted}', 'write {quoted} {x}', 'replace {quoted} with {quoted}'),
  'mark': ('mark {x} in {colour}', 'highlight {x}', 'segment {x}'),
  'reverse': ('play it backwards', 'reverse {x}'),
  'still': ('freeze {x}', 'let it stand still', 'stop the motion'),
  'background': (
    'make the {behind} {x}',
    'change the {behind} to {x}',
    'replace the {behind} with {x}',
    'put {x} in front of {x}',
  ),
  'style': (
    'make it look like {x}',
    'turn it into {style}',
    'make it {style}',
    'in the style of {x}',
  ),
  'remove': ('remove {x}', 'delete {x}', 'take {x} away', 'erase {x}'),
  'add': ('add {x}', 'put {x} on {x}', 'insert {x}', 'give {x} a {x}'),
  'recolour': ('make {x} {colour}', 'colour {x} {colour}', 'paint {x} {colour}'),
  'motion': ('make {x} {verb}', 'let {x} {verb}'),
  'replace': ('replace {x} with {x}', 'turn {x} into {x}', 'change {x} to {x}', 'swap {x} for {x}'),
}
_LONGEST = 200  # characters of an instruction


class Instruction(NamedTuple):
  """What is done to a clip, and what undoes it.

  Attributes:
    forward: what the model shall do with the clip.
    forward_task: its task, '' if none is known.
    backward: what leads from the edited clip back to it.
    backward_task: as `forward_task`.
    caption: of the clip.
    target: caption of the clip that `forward` makes.
  """

  forward: str
  forward_task: str
  backward: str
  backward_task: str
  caption: str
  target: str


# indices, samples of a source -> what to do with each; None where nobody knows.
Write = Callable[[Sequence[int], Sequence[Fields]], list[Instruction | None]]


def guess_task(instruction: str, tasks: Sequence[str]) -> str:
  """Returns the task that the grammar assigns to an instruction; '' if it is none of `tasks`."""
  text = ' '.join(instruction.lower().strip(' .!').split())
  for task, phrases in GRAMMAR.items():
    if task in tasks and any(_pattern(phrase).fullmatch(text) for phrase in phrases):
      return task
  return ''


def _pattern(phrase: str) -> re.Pattern[str]:
  parts = re.split(r'\{(\w+)\}', phrase)
  parts[1::2] = [_SLOTS.get(slot, '.+') for slot in parts[1::2]]
  parts[::2] = map(re.escape, parts[::2])
  return re.compile(''.join(parts))


def write_of_world(source: object) -> Write:
  """Returns what writes the instructions of a source of edits, from what its scenes are.

  Of a pair (before, after) only 'video', the clip after, is given: it is edited by what undoes the
  edit, and the instruction leads back. The clip before is never looked at. `source` is a synthetic
  dataset with `edits`; those that cannot be undone give nothing.
  """

  return lambda indices, samples: [_instruction(source, index) for index in indices]


def _instruction(source: Any, index: int) -> Instruction | None:
  back = source.edit(source.scene(index))
  forward = back.undone
  if forward is None:
    return None
  captions = back.target_caption, back.source_caption
  return Instruction(forward.instruction, forward.task, back.instruction, back.task, *captions)


_REQUEST = """A video shows: {caption}
Invent one edit of it, of the kind '{task}', such as: {examples}.
Answer with a JSON object of these strings:
"task": "{task}"
"instruction": what to do, in a few words, as a person would say it
"reverse": the instruction that turns the edited video back into this one; it must name what is to \
come back, as in 'make the car red' for a car that was red
"target": a caption of the edited video, as long as that above"""
_UNDONE = {'add': 'remove', 'remove': 'add', 'still': '', 'mark': '', 'nothing': ''}


def make_request(caption: str, task: str) -> str:
  """Returns what a language model is asked for a clip, to be read by `read_answer`."""
  examples = '; '.join(re.sub(r'\{\w+\}', '...', phrase) for phrase in GRAMMAR[task])
  return _REQUEST.format(caption=caption, task=task, examples=examples)


def read_answer(answer: Fields, tasks: Sequence[str] = tuple(GRAMMAR)) -> Instruction:
  """Makes an instruction, without a caption, of what a language model answered.

  Args:
    answer: the fields that `make_request` names.
    tasks: of which it may be.

  Raises:
    ValueError: it is not what was asked for, said so that the model can mend it.
  """
  for name in ('task', 'instruction', 'reverse', 'target'):
    if not isinstance(answer.get(name), str) or not answer[name].strip():
      raise ValueError(f'{name!r} is missing; expected a string')
  forward, backward, task = (answer[k].strip() for k in ('instruction', 'reverse', 'task'))
  if task not in tasks or not _UNDONE.get(task, task):
    raise ValueError(f"'task' is {task!r}; expected the one that was asked for")
  if len(forward) > _LONGEST or len(backward) > _LONGEST:
    raise ValueError(f'an instruction has over {_LONGEST} characters; say it shorter')
  if forward.lower() == backward.lower() and task != 'reverse':
    raise ValueError("'reverse' is the instruction itself; expected what undoes it")
  return Instruction(forward, task, backward, _UNDONE.get(task, task), '', answer['target'].strip())


def draw_task(tasks: Sequence[str], seed: int, index: int) -> str:
  """Draws what is done to clip `index`, each of some tasks as likely as the others.
  Raises ConfigError if there are none, the grammar does not have one, or nothing undoes it.
  """
  if not tasks:
    raise ConfigError("tasks is empty; expected some, as in ('recolour', 'replace')")
  if unknown := [task for task in tasks if task not in GRAMMAR or not _UNDONE.get(task, task)]:
    known = [task for task in GRAMMAR if _UNDONE.get(task, task)]
    raise ConfigError(f'tasks has {unknown[0]!r}; expected some of {", ".join(known)}')
  return tasks[np.random.default_rng((seed, index)).integers(len(tasks))]
