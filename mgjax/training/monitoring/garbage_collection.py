"""When Python looks for garbage."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
  """Does not look for garbage within its block, of imports or of tracing.

  Both make objects by the hundred thousand that stay; walks over them are a tenth of a first
  sample. Of threads that are in such blocks at once, the first to enter turns it on again.
  """
  collecting = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if collecting:
      gc.enable()
