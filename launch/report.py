"""Writes report.html, a page on a run, a recipe or a quickstart, finished or not.

python -m launch.report --workdir=runs/digits/video
"""

from absl import flags

from . import command_line

_WORKDIR = command_line.define_required(
  'workdir', 'runs/digits/video', 'Directory of a run, a recipe or a quickstart.'
)
_OUT = flags.DEFINE_string('out', None, 'The page; report.html in the directory.')


def main(_) -> None:
  from mgjax.runtime.report.write import write_report

  print(write_report(_WORKDIR.value, _OUT.value))


if __name__ == '__main__':
  command_line.run(main)
