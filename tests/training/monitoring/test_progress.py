"""Progress: lines by time, an honest pace from the first line on, bars that fit a terminal."""

import concurrent.futures
import io
import os
import pty
import re
import subprocess
import sys
import termios
import time

import jax

from mgjax.training.monitoring import progress as module
from mgjax.training.monitoring.progress import Progress, in_stage, track
from tests.tiny import CHECKOUT


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  """Goes on when it is told to."""

  now = 0.0

  def __call__(self):
    return self.now


def report(stream, seconds, steps=100, stop=None, **options):
  """Reports every step, each of which takes so many seconds; returns the lines."""
  clock = Clock()
  progress = Progress(steps, stream=stream, clock=clock, **options)
  for step in range((stop or steps) + 1):
    clock.now = step * seconds
    progress.report(step, {'loss': 0.25, 'gradient_norm': 1.5, 'other': 1.0} if step else {})
  progress.close()
  return stream.getvalue().splitlines()


def test_lines_come_by_time_and_not_by_step():
  for seconds, expected in ((0.1, 2), (1.0, 11), (2.0, 21), (20.0, 100)):
    lines = report(io.StringIO(), seconds)
    assert len(lines) == expected, seconds
    assert lines[-1] == f'step 100/100, loss 0.25, gradient_norm 1.5, {seconds:.3g} s/step'


def test_the_first_line_comes_soon_and_has_a_pace():
  first, second, *_ = report(io.StringIO(), 0.5)
  assert first == 'step 6/100, loss 0.25, gradient_norm 1.5, 0.5 s/step, ETA 0:00:47'
  assert second.startswith('step 26/100')


def test_where_it_stopped_is_told_though_no_line_was_due():
  assert report(io.StringIO(), 0.01, stop=50) == [
    'step 50/100, loss 0.25, gradient_norm 1.5, 0.01 s/step, ETA 0:00:00'
  ]


def test_with_another_unit_the_speed_is_a_rate():
  assert 'row 6144/6144, loss 0.25, gradient_norm 1.5, 1,600 rows/s' in (
    report(io.StringIO(), 1 / 1600, steps=6144, unit='row')
  )


def test_of_what_is_long_a_line_is_shown_and_its_time_is_in_no_pace(monkeypatch):
  monkeypatch.setattr(module, '_PATIENCE', 0.05)
  stream, clock = io.StringIO(), Clock()
  progress = Progress(100, stream=stream, clock=clock)
  progress.report(0)
  with progress.waiting('loading'):
    clock.now += 1
  with progress.waiting('compiling the step of video 2 x 16'):
    time.sleep(0.3)
    clock.now += 600
  clock.now += 20
  progress.report(10)
  assert stream.getvalue().splitlines() == [
    'compiling the step of video 2 x 16 ...',
    'step 10/100, 2 s/step, ETA 0:03:00 (compiling the step of video 2 x 16 took 0 s)',
  ]


def test_validation_losses_are_told_by_name_and_whether_they_are_better():
  stream = io.StringIO()
  progress = Progress(100, stream=stream)
  for step, (image, video) in enumerate([(0.5, 0.25), (0.25, 0.5)], 1):
    found = {'validation/image/loss': image, 'validation/video/loss': video}
    progress.validated(step, found | {'validation/video/psnr': 30.0})
  progress.validated(3, {'validation/video/psnr': 30.0})
  assert stream.getvalue().splitlines() == [
    'validation loss at step 1: image 0.5, video 0.25',
    'validation loss at step 2: image 0.25 (better), video 0.5 (not better)',
  ]


def test_a_bar_fits_80_columns_without_the_gradient_norm():
  with in_stage(2, 4):
    shown = report(Terminal(), 0.5, steps=400_000, stop=1000)[-1].split('\r')
  assert re.search(
    r'2/4:   0%\|.* 1000/400000, loss 0.25, 0.5 s/step, ETA 2 days, 7:25:00', shown[-1]
  )
  shown = report(Terminal(), 0.5, steps=40_000, stop=40)[-1].split('\r')
  assert re.search(r'  0%\|.+\| 40/40000, loss 0.25, 0.5 s/step, ETA 5:33:00', shown[-1])


def test_other_hosts_say_nothing(monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  for stream in (io.StringIO(), Terminal()):
    assert not report(stream, 1.0)
    progress = Progress(10, stream=stream)
    progress.validated(1, {'validation/video/loss': 1.0})
    assert not stream.getvalue() and not progress.due()


def test_items_are_counted(capsys):
  assert list(track('abc', 3, 'clip')) == ['a', 'b', 'c']
  assert capsys.readouterr().err.startswith('clip 3/3')


PROGRAM = """
import logging, time
from launch import command_line

def main(_):
  from mgjax.training.monitoring.progress import Progress
  progress = Progress(100)
  for step in range(100):
    progress.report(step, {'loss': 0.5})
    if step == 50:
      logging.getLogger('mgjax').info('something happened')
      progress.validated(step, {f'validation/{i}/loss': 0.5 for i in range(20)})
    time.sleep(0.02)
  progress.report(100)
  progress.close()

command_line.run(main)
"""


def test_lines_of_the_log_stand_above_the_bar_of_a_terminal():
  ours, theirs = pty.openpty()
  termios.tcsetwinsize(theirs, (24, 80))
  process = subprocess.Popen([sys.executable, '-c', PROGRAM], cwd=CHECKOUT, stderr=theirs)
  os.close(theirs)
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pieces = pool.submit(lambda: list(iter(lambda: _read(ours), b'')))
    assert process.wait(timeout=120) == 0
  os.close(ours)
  rows = _screen(b''.join(pieces.result()).decode())
  at = rows.index('something happened')
  assert rows[at + 1].startswith('validation loss at step 50: 0 0.5, 1 0.5')
  assert rows[at + 2].startswith('100%|') and '| 100/100' in rows[at + 2]
  assert not rows[at + 3 :] and len(rows[at + 2]) <= 80


def _read(terminal):
  try:
    return os.read(terminal, 4096)
  except OSError:  # nobody is left at the other end
    return b''


def _screen(text):
  """What a terminal shows: a carriage return goes back, what is written next covers what was."""
  rows = []
  for line in text.replace('\r\n', '\n').split('\n'):
    row = ''
    for piece in line.split('\r'):
      row = piece + row[len(piece) :]
    rows.append(row.rstrip())
  while rows and not rows[-1]:
    rows.pop()
  return rows
