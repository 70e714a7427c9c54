"""Old names of commands, for one release: each prints the new command line and exits with 2."""

import os
import re
import shlex
import sys
from collections.abc import Sequence

MOVED = {  # old name -> the new command line, or what it begins with for those in RENAMED
  'checkpoints': 'weights',
  'completion': '--completion',
  'edit': "sample edit --workdir=runs/editing/paired --video=in.mp4 --prompt='make it red'",
  'encode': 'data encode',
  'personalize': "sample personalize --workdir=runs/people --reference=me.jpg --prompt='a person'",
  'provenance': 'data inspect --input=out.mp4',
  'quickstart': 'train --config=configs/quickstart.py --workdir=runs/quickstart',
  'recipe': 'train',
  'report': 'evaluate --workdir=runs/video',  # scores and samples; trackers have the curves
  'rewrite': 'data teach --input=prompts.txt --teacher=MODEL@URL --output=pairs.jsonl',
  'soundtrack': "sample audio --workdir=runs/sound/audio --video=in.mp4 --prompt='a dog barks'",
  'suite': 'sample suite --workdir=runs/video --suite=prompts.txt --out=videos/',
  'upsample': 'sample upsample --workdir=runs/upsampler --video=in.mp4 --out=out.mp4',
}
# Commands that take the flags they took -> those flags that have another name now.
RENAMED = {
  'checkpoints': {'--runs': '--input', '--weights': '--shares', '--greedy': '--shares=greedy'},
  'encode': {'--workdir': '--output'},
  'recipe': {},
}


def tell(name: str, arguments: list[str], program: str) -> None:
  """Prints the new command line of an old command, `program` first, and exits with 2."""
  line = MOVED[name]
  if name in RENAMED:
    words = [word.partition('=') for word in arguments]
    renamed = [RENAMED[name].get(flag, flag) + equals + value for flag, equals, value in words]
    line = shlex.join([*line.split(), *renamed])
  print(f'{program}{name} is now: {program}{line}', file=sys.stderr)
  sys.exit(2)


def tell_if_moved(module: str) -> None:
  """Does `tell` for `python -m launch.NAME`, before Python looks for the module `launch.NAME`."""
  package, _, name = module.rpartition('.')
  if name in MOVED:
    arguments = sys.orig_argv[sys.orig_argv.index('-m') + 2 :]
    tell(name, arguments, f'{os.path.basename(sys.orig_argv[0])} -m {package}.')


def tell_word(name: str, arguments: Sequence[str]) -> None:
  """Prints the new command line of a `launch.sample` without its first word, and exits with 2.

  Does nothing for a command that always had one.
  """
  if name != 'sample':
    return
  word, renamed = _word_of_sample(arguments)
  line = []
  for argument in arguments:
    match = re.match(r'--?(\w+)', argument)
    new = renamed.get(match[1], match[1]) if match else None
    if match and new:
      line.append(f'--{new}{argument[match.end() :]}')
    elif not match:
      line.append(argument)
  command = shlex.join([name, word, *line])
  print(f'{name} has first words now: python -m launch.{command}', file=sys.stderr)
  sys.exit(2)


def _word_of_sample(arguments: Sequence[str]) -> tuple[str, dict[str, str]]:
  """Returns the first word, and the renamed flags; '' for removed ones."""
  from mgjax.core.errors import MgjaxError
  from mgjax.registry import find_component
  from mgjax.training.checkpoints.workdir import read_config

  pairs = (re.match(r'--?(\w+)(?:=(.*))?', argument, re.DOTALL) for argument in arguments)
  values = {match[1]: match[2] for match in pairs if match}
  try:
    task = find_component(read_config(values.get('workdir') or '').component).sample_command
  except MgjaxError:  # which the new command line says as well
    task = ''
  if 'suite' in values:
    return 'suite', {'video': 'videos'}
  if 'strength' in values:
    return 'edit', {}
  if task in ('', 'video') and values.get('frames') == '1':
    return 'image', {'frames': ''}
  renamed = {'video': 'continue'} if task in ('', 'video', 'personalize') else {}
  return task or 'video', renamed | ({'scale': 'factor'} if task == 'upsample' else {})
