"""The plain engine: a few processes of this machine, and nothing to install or to start."""

import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

from mgjax.lab.curation.shards import Make, Seen, Worker


def run(jobs: Iterator[Any], make: Make, workers: int, seen: Seen) -> None:
  """Runs jobs in worker processes, each controlled by a thread; see `shards.Engine`.

  The first error ends all.
  """
  lock, over = threading.Lock(), threading.Event()

  def report(count: int) -> None:
    with lock:
      seen(count)

  def work(worker: Worker) -> None:
    while not over.is_set():
      with lock:
        job = next(jobs, None)
      if job is None:
        return
      worker(job)

  team = [make(report) for _ in range(workers)]
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    led = [pool.submit(work, worker) for worker in team]
    try:
      ended, _ = concurrent.futures.wait(led, return_when=concurrent.futures.FIRST_EXCEPTION)
    finally:
      over.set()
      for worker in team:
        worker.close()
  for future in ended:
    future.result()
