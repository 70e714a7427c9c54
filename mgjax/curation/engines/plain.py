"""The plain engine: a few processes of this machine, and nothing to install or to start."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

from mgjax.curation.shards import Make, Seen, Worker


def run(jobs: Iterator[Any], make: Make, workers: int, seen: Seen) -> None:
  """Does jobs with worker processes, each led by a thread; see `shards.Engine`.

  The first error ends all.
  """
  lock, errors, over = threading.Lock(), queue.SimpleQueue(), threading.Event()

  def told(count: int) -> None:
    with lock:
      seen(count)

  team = [make(told) for _ in range(workers)]

  def work(worker: Worker) -> None:
    try:
      while not over.is_set():
        with lock:
          job = next(jobs, None)
        if job is None:
          return
        worker(job)
    except BaseException as error:
      over.set()
      errors.put(error)
    finally:
      ended.put(None)

  ended = queue.SimpleQueue()
  threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in team]
  try:
    for thread in threads:
      thread.start()
    for _ in threads:
      ended.get()
      if not errors.empty():
        break
  finally:
    over.set()
    for worker in team:
      worker.close()
    for thread in threads:
      thread.join()
  if not errors.empty():
    raise errors.get()
