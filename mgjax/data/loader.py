"""Iterates over batches with one integer, the step, as its state; detects data that changed."""

import hashlib
import json
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.data.batch_order import REPLACED, ShapeBucket, make_ordered_batches

MOVING_WORLDS = ('Digits(', 'Signs(')  # how the content of a source of moving digits begins


class StepIterator:
  """Iterates over batches from a step on, prepared ahead in threads or in worker processes.

  The state is `step`, the index of the batch that comes next. To resume, make another iterator with
  `start_step=step`, with as many threads or workers as you like: the batches are the same. A batch
  that raises does not advance `step`; the next call asks for it again.

  Threads are enough for decoding video (PyAV releases the interpreter lock) and start at once.
  Workers are for samples made in Python and take seconds to start. They import the main module
  again, which therefore needs `if __name__ == '__main__'`. Use as a context manager, or `close`.

  Attributes:
    step: of the batch that comes next.
    replaced: how many samples of the batches so far, on this host, stand for broken ones.
  """

  def __init__(
    self, batches: grain.MapDataset, start_step: int = 0, *, threads: int = 16, workers: int = 0
  ):
    """Makes the iterator; nothing is read before the first batch is asked for.

    Args:
      batches: step -> batch, from `make_batches`.
      threads: that prepare one batch each, so as many batches are held in memory; 0 reads in the
        calling thread. With workers, the threads of each worker.
      workers: processes; 0 for none.
    """
    self._batches = batches
    self._threads = threads
    self._workers = workers
    self._running = []  # Grain's iterator while there is one
    self._stop = None
    self._closed = False
    self.replaced = 0
    self.seek(start_step)

  def __iter__(self) -> 'StepIterator':
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._closed:
      raise ValueError('this StepIterator is closed; make another one')
    try:
      if self._stop is None:
        self._start()
      batch = next(self._running[0])
    except BaseException:
      self._halt()
      raise
    self.step += 1
    if self._workers:
      # Out of the shared memory of the worker, which must be released before the interpreter ends.
      batch = {name: np.array(value) for name, value in batch.items()}
    self.replaced += int(np.sum(batch.pop(REPLACED, 0)))
    return batch

  def seek(self, step: int) -> None:
    if step < 0:
      raise ValueError(f'step {step} must not be negative')
    self._halt()
    self.step = step

  def close(self) -> None:
    """Stops the threads and the worker processes; may be called twice."""
    self._halt()
    self._closed = True

  def __enter__(self) -> 'StepIterator':
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def _start(self) -> None:
    options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
    dataset = self._batches[self.step :].to_iter_dataset(options)
    if self._workers:
      if not flags.FLAGS.is_parsed():  # Grain reads a flag of its own, outside absl's app.run too
        flags.FLAGS.mark_as_parsed()
      dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
    self._running = [iter(dataset)]
    # Also runs when this object is forgotten and at interpreter exit, where Grain's own clean-up
    # comes too late for its shared memory.
    self._stop = weakref.finalize(self, lambda running: running.pop().close(), self._running)

  def _halt(self) -> None:
    if self._stop is not None:
      self._stop()
      self._stop = None


def validation_batches(
  bucket: ShapeBucket, count: int, *, host: int = 0, hosts: int = 1, threads: int = 16
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the first `count` batches of a bucket, unshuffled: the same at every call.
  Raises ConfigError if the bucket has fewer than `count` whole batches.
  """
  batches = make_ordered_batches(bucket, count, host=host, hosts=hosts)
  return _iterate(batches, threads)


def _iterate(batches: grain.MapDataset, threads: int) -> Iterator[dict[str, np.ndarray]]:
  with StepIterator(batches, threads=threads) as iterator:
    yield from iterator


def data_hash(description: JSON) -> str:
  """Returns 16 hex digits that name a data configuration; the order of its keys does not matter.
  Raises ConfigError if a value that JSON cannot hold, whose text might differ from run to run.
  """
  try:
    text = json.dumps(description, sort_keys=True)
  except TypeError as error:
    raise ConfigError(
      f'a description of the data holds plain numbers, strings, lists and dicts only: {error}'
    ) from error
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_worlds(description: JSON) -> JSON:
  """Returns what `describe_data` said before moving digits named their fields.

  Nothing told apart two of its sources then; runs that began so go on.
  """
  buckets = [
    bucket | {'content': None} if str(bucket['content']).startswith(MOVING_WORLDS) else bucket
    for bucket in description['buckets']
  ]
  return description | {'buckets': buckets}


def continue_orders(
  orders: Sequence[Sequence[Any]], step: int, new: str, *, before: str = '', allow: bool = False
) -> list[tuple[int, str]]:
  """Returns the orders of the data of a run that goes on at `step`: (first step, hash) of each.

  The first batch of an order is its batch 0: of a step, the data's own is `step` minus the first.

  Args:
    orders: those in the checkpoint, the last one in force.
    before: the same from `without_worlds`, which runs of earlier versions have.
    allow: whether a new order may begin here.

  Raises:
    ConfigError: the data are others, and that is not allowed.
  """
  orders = [(int(first), name) for first, name in orders]
  if orders[-1][1] in (new, before):
    return orders
  if not allow:
    raise ConfigError(
      f'the data have changed: the checkpoint of step {step} was trained on {orders[-1][1]}, this '
      f'run describes {new}, so its step no longer says which samples were seen; restore the '
      'buckets (names, samples, batch sizes, weights), the files and the seed, or accept that a '
      'new order of the data begins here with --new_data'
    )
  return [*(order for order in orders if order[0] < step), (step, new)]
