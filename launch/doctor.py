"""Says whether this machine has what mgjax needs; each line is right, or says what to do.

python -m launch.doctor
python -m launch.doctor --workdir=/data/runs
It looks at Python and the versions of packages against what mgjax asks for, at devices (each
multiplies matrices), memory, space on disks, H.264 and AAC (a second is encoded and decoded). What
is optional and missing is listed with its purpose. The exit code is 0 if all that is needed is
right, 1 otherwise.
"""

import sys

from absl import flags

from . import command_line

_WORKDIR = flags.DEFINE_string('workdir', 'runs', 'Where work directories will lie.')


def main(_) -> None:
  from mgjax.apps import doctor

  wrong = 0
  for finding in doctor.examine(_WORKDIR.value):
    print(command_line.printable(str(finding)), flush=True)
    wrong += finding.state == doctor.WRONG
  print(f'{wrong} wrong; see above what to do.' if wrong else 'All that is needed is right.')
  sys.exit(1 if wrong else 0)


if __name__ == '__main__':
  command_line.run(main)
