"""Progress for people: a bar on a terminal, elsewhere plain lines, by time and not by step."""

import collections
import contextlib
import contextvars
import datetime
import io
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax

from mgjax.core.configuration.keys import Fields

T = TypeVar('T')

FIRST, OFTEN = 3.0, 10.0  # seconds until the first line, and between two of them
_BAR = 0.5  # seconds between two looks of a bar
_PATIENCE = 2.0  # seconds that something may take before it is told what it is
_STAGE: contextvars.ContextVar[str] = contextvars.ContextVar('stage', default='')


@contextlib.contextmanager
def in_stage(number: int, total: int) -> Iterator[None]:
  """Shows in every bar of this block which of several stages it is of, from 1 on."""
  token = _STAGE.set(f'{number}/{total}: ')
  try:
    yield
  finally:
    _STAGE.reset(token)


class Progress:
  """Shows how far something is, on the first of several hosts alone.

  Report as often as you like: a bar on a terminal moves twice a second; elsewhere there is a line
  after some seconds, then one every ten, and one at the end. The speed is measured since the first
  report, over at most the last 32 that were shown, without what was `waiting`. Lines also have the
  gradient norm, which does not fit into a bar of 80 columns.
  """

  def __init__(
    self,
    steps: int,
    start: int = 0,
    stream: io.TextIOBase | None = None,
    clock: Callable[[], float] = time.monotonic,
    unit: str = 'step',
  ):
    """Begins at step `start` of `steps`, on standard error by default.

    A `clock` that stands still while programs compile keeps that out of the speed. With another
    `unit` than 'step', such as row or file, the speed counts these.
    """
    shown = stream or sys.stderr
    self._steps, self._clock, self._unit = steps, clock, unit
    self._marks: collections.deque[tuple[int, float]] = collections.deque(maxlen=32)
    self._waited, self._next = 0.0, 0.0
    self._notes: list[str] = []
    self._unseen: tuple[int, Fields] | None = None
    self._validated: dict[str, float] = {}
    self._stream = shown if jax.process_index() == 0 else None
    self._bar = None
    if self._stream is not None and shown.isatty():
      import tqdm

      layout = '{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}'
      self._bar = tqdm.tqdm(
        total=steps,
        initial=start,
        file=shown,
        bar_format=layout,
        dynamic_ncols=True,
        desc=_STAGE.get(),
      )

  def due(self) -> bool:
    """Whether a report would be shown now, so that others need not be made."""
    return self._stream is not None and (not self._marks or self._now() >= self._next)

  def report(self, step: int, metrics: Fields | None = None) -> None:
    """Tells that `step` steps are done; shows loss and gradient_norm of the metrics with it."""
    if self._stream is None:
      return
    now = self._now()
    metrics = metrics or {}
    if not self._marks:
      self._marks.append((step, now))
      self._next = now + (0.0 if self._bar is not None else FIRST)
    self._unseen = step, metrics
    if step >= self._steps or now >= self._next:
      self._show(step, metrics, now)

  def validated(self, step: int, metrics: Fields) -> None:
    """Shows the losses among validation metrics, and whether they are better than the last."""
    names = [name for name in metrics if name.startswith('validation/') and name.endswith('/loss')]
    losses = {name.split('/', 1)[1].removesuffix('/loss'): float(metrics[name]) for name in names}
    if not losses:
      return
    self.say(self._compared(step, losses))
    self._validated = losses
    self._notes.clear()

  def say(self, text: str) -> None:
    """Shows a line of its own."""
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    elif self._stream is not None:
      print(text, file=self._stream, flush=True)

  @contextlib.contextmanager
  def waiting(self, what: str) -> Iterator[None]:
    """Shows what a block does, as 'compiling ...', if it takes long; nothing if `what` is ''."""
    if self._stream is None or not what:
      yield
      return
    announced = threading.Event()
    began = time.monotonic()
    before = self._clock()

    def tell() -> None:
      announced.set()
      if self._bar is None:
        self.say(f'{what} ...')
      else:
        self._bar.set_postfix_str(f'{what} ...')

    timer = threading.Timer(_PATIENCE, tell)
    timer.daemon = True
    timer.start()
    try:
      yield
    finally:
      timer.cancel()
      timer.join()
      self._waited += self._clock() - before
      if announced.is_set():
        self._notes.append(f'{what} took {time.monotonic() - began:.0f} s')

  def close(self) -> None:
    """Shows the last report, if it was not, and leaves the bar as it stands."""
    if self._unseen is not None and self._unseen[0] > self._marks[0][0]:
      self._show(*self._unseen, self._now())
    if self._bar is not None:
      self._bar.close()

  def _now(self) -> float:
    return self._clock() - self._waited

  def _show(self, step: int, metrics: Fields, now: float) -> None:
    self._next = now + (OFTEN if self._bar is None else _BAR)
    self._unseen = None
    if step > self._marks[-1][0]:
      self._marks.append((step, now))
    parts = self._parts(step, metrics)
    if self._bar is not None:
      self._bar.n = step
      texts = (text for name, text in parts.items() if name != 'gradient_norm')
      self._bar.set_postfix_str(', '.join(texts))
    elif self._steps > 1 or metrics:  # of a single thing it is no progress
      text = ', '.join([f'{self._unit} {step}/{self._steps}', *parts.values()])
      notes = f' ({", ".join(self._notes)})' if self._notes else ''
      self._notes.clear()
      print(f'{text}{notes}', file=self._stream, flush=True)

  def _parts(self, step: int, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns the parts of a step's progress line, by name."""
    names = [name for name in ('loss', 'gradient_norm') if name in metrics]
    parts = {name: f'{name} {float(metrics[name]):.4g}' for name in names}
    first, began = self._marks[0]
    last, now = self._marks[-1]
    if last > first and now > began:
      pace = (now - began) / (last - first)
      fast = 1 / pace
      rate = f'{fast:,.0f}' if fast >= 100 else f'{fast:.3g}'
      parts['pace'] = (
        f'{pace:.3g} s/step' if self._unit == 'step' else f'{rate} {_plural(self._unit)}/s'
      )
      if step < self._steps:
        remaining = pace * (self._steps - step)
        parts['eta'] = f'ETA {datetime.timedelta(seconds=round(remaining))}'
    return parts

  def _compared(self, step: int, losses: Mapping[str, float]) -> str:
    def compared(name: str, loss: float) -> str:
      if name not in self._validated:
        return f'{name} {loss:.4g}'
      return f'{name} {loss:.4g} ({"" if loss < self._validated[name] else "not "}better)'

    texts = ', '.join(compared(name, loss) for name, loss in losses.items())
    return f'validation loss at step {step}: {texts}'


def track(items: Iterable[T], total: int, unit: str, first: str = '') -> Iterator[T]:
  """Yields items and shows how many are done; `first` says what the first one waits for."""
  with contextlib.closing(Progress(total, unit=unit)) as progress:
    for done, item in enumerate(items, 1):
      with progress.waiting(first if done == 1 else ''):
        yield item
      progress.report(done)


class Counted:
  """Shows how far something is whose total is known only with the first report."""

  def __init__(self, unit: str, patience: float = 0.0):
    """Says nothing of what is done before `patience` seconds are over."""
    self._unit = unit
    self._progress = None
    self._begins = time.monotonic() + patience

  def __call__(self, done: int, total: int) -> None:
    """Tells that `done` of `total` are done."""
    if not total or (self._progress is None and time.monotonic() < self._begins):
      return
    self._progress = self._progress or Progress(total, done, unit=self._unit)
    self._progress.report(done)

  def close(self) -> None:
    """Shows the last of it."""
    if self._progress is not None:
      self._progress.close()


def counted(total: int, unit: str, patience: float = 5.0) -> Iterator[int]:
  """Yields 0 to `total` - 1 and, if that takes longer than `patience`, shows how far it is."""
  with contextlib.closing(Counted(unit, patience)) as show:
    for done in range(total):
      yield done
      show(done + 1, total)


def _plural(unit: str) -> str:
  return f'{unit}es' if unit.endswith('ch') else f'{unit}s'
