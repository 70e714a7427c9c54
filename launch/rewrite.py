r"""Teaches a small language model to write prompts as training's captions are (Movie Gen §3.4.1).

python -m launch.rewrite teach --prompts=prompts.txt --teacher=llama-70b@http://127.0.0.1:8000/v1 \
  --pairs=runs/rewriting/pairs.jsonl
python -m launch.rewrite student --pairs=runs/rewriting/pairs.jsonl \
  --out=runs/rewriting/student.jsonl
teach has a large model, which is shown examples, write each prompt anew, and writes a line for each
with the reason why it is dropped, if it is. People look through that file, set "keep" or mend
"rewritten". student writes what they leave as chats, {"messages": [...]}, which trainers of chat
models read. Then launch.sample --rewrite=student.json, with "examples": [] in it, asks the student.
"""

import pathlib

from absl import flags

from mgjax.core.errors import printable

from . import command_line, flag_values

COMMANDS = _TEACH, _STUDENT = ('teach', 'student')

_PROMPTS = command_line.define_required(
  'prompts',
  'prompts.txt',
  'As people type them: one a line, or a .jsonl.',
  commands=(_TEACH,),
  define=lambda name, _, help: flag_values.define(name, flag_values.file(name), help),
)
_TEACHER = command_line.define_required(
  'teacher',
  'llama-70b@http://127.0.0.1:8000/v1',
  'MODEL@URL of a chat server, or a .json of settings; of student those that teach had, if any.',
  commands=(_TEACH,),
)
_PAIRS = command_line.define_required(
  'pairs', 'runs/rewriting/pairs.jsonl', 'Prompts and what the teacher made of them.'
)
_OUT = flags.DEFINE_string('out', None, 'A .jsonl of chats; student.jsonl beside --pairs.')


def main(arguments) -> None:
  from mgjax.text.rewriting import RewriteSettings, read_rewriter, teach, write_student_file
  from mgjax.video.files import read_requests

  pairs = pathlib.Path(_PAIRS.value)
  if arguments[1] == _TEACH:
    teacher = read_rewriter(_TEACHER.value, '--teacher')
    prompts, _ = read_requests(_PROMPTS.value)
    found = teach(prompts, teacher, pairs.parent / 'answers', pairs)
    print(f'{found["kept"]} pairs, and {found["dropped"]} dropped, in {printable(pairs)}')
    return
  teacher = read_rewriter(_TEACHER.value, '--teacher') if _TEACHER.value else RewriteSettings({})
  out = pathlib.Path(_OUT.value) if _OUT.value else pairs.parent / 'student.jsonl'
  print(f'{write_student_file(pairs, out, teacher)} chats in {printable(out)}')


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
