"""Waits for what another process does."""

import time


def wait_for(what, seconds=120):
  """Returns what `what()` is, once it is something."""
  deadline = time.monotonic() + seconds
  while not (found := what()):
    assert time.monotonic() < deadline, 'it did not come'
    time.sleep(0.02)
  return found
