"""The commands: `python -m launch.<name> --help`, or `mgjax-<name> --help` where it is installed.

They import what they run inside `main`, so that --help and a wrong flag answer at once.
"""

import os
import re
import sys

from . import moved

# What `python -m` was asked for: while it looks for that, its own option stands for the program.
_module = ''
if sys.argv[0] == '-m' and '-m' in sys.orig_argv:
  _module = sys.orig_argv[sys.orig_argv.index('-m') + 1]
  if _module.startswith(f'{__name__}.'):
    moved.tell_if_moved(_module)

# Training on a CPU frees and takes back the same large buffers at every step. With huge pages from
# the C library, and memory kept rather than given back, that costs a fraction of the page faults: a
# step of the small models takes half the time (docs/experiments/cpu_optimizations.md). The library
# reads the setting when a process starts, so a command starts itself once more, before anything
# slow is imported.
_SETTING = 'GLIBC_TUNABLES'
_KEPT = ('mmap_max=0', f'trim_threshold={2**34}', 'arena_max=1')  # up to 16 GiB, of all threads
_VALUE = ':'.join(f'glibc.malloc.{tunable}' for tunable in ('hugetlb=1', *_KEPT))
if sys.platform == 'linux' and _SETTING not in os.environ and '--help' not in sys.orig_argv:
  if _module.startswith('launch.') or re.fullmatch(r'mgjax(-\w+)?', os.path.basename(sys.argv[0])):
    os.environ[_SETTING] = _VALUE
    os.execv(sys.executable, sys.orig_argv)
