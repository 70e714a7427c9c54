"""Old names of commands, for one release: each prints the new command line and exits with 2."""

import os
import shlex
import sys

MOVED = {  # old name -> the new command line, or what it begins with for those in RENAMED
  'checkpoints': 'weights',
  'completion': '--completion',
  'edit': "sample --workdir=runs/editing/paired --video=in.mp4 --prompt='make it red'",
  'encode': 'data encode',
  'personalize': "sample --workdir=runs/people --reference=face.jpg --prompt='a person dances'",
  'provenance': 'data inspect --input=out.mp4',
  'quickstart': 'train --config=configs/quickstart.py --workdir=runs/quickstart',
  'recipe': 'train',
  'report': 'evaluate --workdir=runs/video',  # scores and samples; trackers have the curves
  'rewrite': 'data teach --input=prompts.txt --teacher=MODEL@URL --output=pairs.jsonl',
  'soundtrack': "sample --workdir=runs/sound/audio --video=in.mp4 --prompt='a dog barks'",
  'suite': 'sample --workdir=runs/video --suite=prompts.txt --out=videos/',
  'upsample': 'sample --workdir=runs/upsampler --video=in.mp4 --out=out.mp4',
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
    given = [RENAMED[name].get(flag, flag) + equals + value for flag, equals, value in words]
    line = shlex.join([*line.split(), *given])
  print(f'{program}{name} is now: {program}{line}', file=sys.stderr)
  sys.exit(2)


def tell_if_moved(module: str) -> None:
  """Does `tell` for `python -m launch.NAME`, before Python looks for the module `launch.NAME`."""
  package, _, name = module.rpartition('.')
  if name in MOVED:
    arguments = sys.orig_argv[sys.orig_argv.index('-m') + 2 :]
    tell(name, arguments, f'{os.path.basename(sys.orig_argv[0])} -m {package}.')
