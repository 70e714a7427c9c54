"""The binaries: `python -m launch.<name> --help`, or `mgjax-<name> --help` where it is installed.

They import what they run inside `main`, so that --help and a wrong flag answer at once.
"""

import os
import re
import sys

# Training on a CPU frees and takes back the same large buffers at every step. With huge pages from
# the C library that costs a fraction of the page faults: a step of the small models takes half the
# time (docs/performance.md). The library reads the setting when a process starts, so a binary
# starts itself once more, before anything slow is imported.
_SETTING = 'GLIBC_TUNABLES'
if sys.platform == 'linux' and _SETTING not in os.environ:
  _module = sys.orig_argv[1:2] == ['-m'] and sys.orig_argv[2].startswith('launch.')
  _console = re.fullmatch(r'mgjax(-\w+)?', os.path.basename(sys.argv[0]))
  if (_module or _console) and '--help' not in sys.orig_argv:
    os.environ[_SETTING] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, sys.orig_argv)
