"""The plain engine: a few processes of this machine, and nothing to install or to start."""

import concurrent.futures
import threading
from collections.abc import Iterator

from mgjax.lab.curation.shards import Make, Seen, Worker


def run(jobs: Iterator[object], make: Make, workers: int, seen: Seen) -> None:
  """Does jobs with worker processes, each led by a thread; see `shards.Engine`.

  The first error ends all.
  """
  lock, over = threading.Lock(), threading.Event()

  def told(count: int) -> None:
    with lock:
      seen(count)

  def work(worker: Worker) -> None:
    while not over.is_set():
      with lock:
        job = next(jobs, None)
      if job is None:
        return
      worker(job)

  team = [make(told) for _ in range(workers)]
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    led = [pool.submit(work, worker) for worker in team]
    try:
      ended, _ = concurrent.futures.wait(led, return_when=concurrent.futures.FIRST_EXCEPTION)
    finally:
      over.set()
      for worker in team:
        worker.close()
  for each in ended:
    each.result()
