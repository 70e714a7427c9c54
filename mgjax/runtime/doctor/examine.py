"""All that is looked at, in the order in which one thing needs another."""

import os
from collections.abc import Callable, Iterator

from mgjax.core.errors import first_line
from mgjax.runtime.doctor.codecs import look_at_codecs
from mgjax.runtime.doctor.finding import Finding, wrong
from mgjax.runtime.doctor.machine import (
  look_at_cache,
  look_at_clock,
  look_at_devices,
  look_at_disks,
  look_at_memory,
)
from mgjax.runtime.doctor.packages import look_at_packages


def examine(workdir: str | os.PathLike[str]) -> Iterator[Finding]:
  """Yields what is found, line by line; nothing that goes wrong ends it.

  Args:
    workdir: where work directories will lie; it need not be there.
  """
  looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ('packages', look_at_packages),
    ('devices', look_at_devices),
    ('memory', look_at_memory),
    ('disk', lambda: look_at_disks(workdir)),
    ('codecs', look_at_codecs),
    ('cache', look_at_cache),
    ('clock', lambda: look_at_clock(workdir)),
  )
  for what, look in looks:
    try:
      yield from look()
    except Exception as error:  # a package that does not import, say: the others are still told of
      advice = 'install mgjax again; the packages are told of above'
      yield wrong(what, f'{type(error).__name__}: {first_line(error)}', advice)
