"""Servers that answer from a thread of this process."""

import contextlib
import threading


@contextlib.contextmanager
def serving(server):
  """Yields the server while it answers."""
  with server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
      yield server
    finally:
      server.shutdown()
      thread.join()
