"""Drives a Chromium that is installed, over its pipe for debuggers; needs no package."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

EXECUTABLE = shutil.which('chromium') or shutil.which('chromium-browser')
_CODES = {' ': 'Space', ',': 'Comma', '.': 'Period', '?': 'Slash'}
_FLAGS = (
  '--headless=new',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--remote-debugging-pipe',
  '--autoplay-policy=user-gesture-required',
  '--hide-scrollbars',
)


# Chromium reads from descriptor 3 and writes to 4. A `preexec_fn` would fork this process, of which
# JAX warns as soon as a backend runs.
_TAKE_THE_PIPE = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 5) for each in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
  """One tab, with storage of its own."""

  def __init__(self, browser: '_Browser', url: str, width: int, height: int, dark: bool):
    self._browser = browser
    context = browser.call('Target.createBrowserContext')['browserContextId']
    target = browser.call('Target.createTarget', url='about:blank', browserContextId=context)
    attached = browser.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)
    self._session = attached['sessionId']
    self.call('Page.enable')
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
    self.call('Emulation.setEmulatedMedia', features=[scheme])
    self.call('Page.navigate', url=url)
    self.wait('document.readyState === "complete" && location.protocol === "http:"')

  def call(self, method: str, **parameters):
    return self._browser.call(method, self._session, **parameters)

  def evaluate(self, script: str):
    """What an expression is, once promises are kept."""
    found = self.call(
      'Runtime.evaluate',
      expression=script,
      returnByValue=True,
      awaitPromise=True,
      replMode=True,
    )
    if 'exceptionDetails' in found:
      raise AssertionError(f'{script}: {found["exceptionDetails"]}')
    return found['result'].get('value')

  def wait(self, script: str, seconds: float = 20.0):
    """What an expression is, once it is something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
      with contextlib.suppress(AssertionError, RuntimeError):  # while a page is being replaced
        if found := self.evaluate(script):
          return found
      time.sleep(0.02)
    raise AssertionError(f'{script} was not so within {seconds} s; {self.text()}')

  def text(self) -> str:
    return self.evaluate('document.body.innerText')

  def press(self, *keys: str) -> None:
    """Presses keys one after another, as a keyboard would."""
    for key in keys:
      typed = {' ': ' ', 'Enter': '\r'}.get(key, key if len(key) == 1 else '')
      named = {'key': key, 'code': _CODES.get(key, f'Key{key.upper()}' if len(key) == 1 else key)}
      numbers = {'Enter': 13, 'Tab': 9, ' ': 32, 'ArrowLeft': 37, 'ArrowRight': 39, 'ArrowDown': 40}
      if key in numbers:
        named['windowsVirtualKeyCode'] = numbers[key]
      self.call('Input.dispatchKeyEvent', type='keyDown', text=typed, **named)
      self.call('Input.dispatchKeyEvent', type='keyUp', **named)

  def reload(self) -> None:
    self.evaluate('window.old = true')
    self.call('Page.reload')
    self.wait('document.readyState === "complete" && !window.old')


class _Browser:
  def __init__(self, folder: str):
    ours, theirs = os.pipe(), os.pipe()  # their input, their output
    self._process = subprocess.Popen(
      [
        *(sys.executable, '-c', _TAKE_THE_PIPE, str(ours[0]), str(theirs[1])),
        *(EXECUTABLE, *_FLAGS, f'--user-data-dir={folder}', 'about:blank'),
      ],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=(ours[0], theirs[1]),
      start_new_session=True,
    )
    os.close(ours[0])
    os.close(theirs[1])
    self._out, self._in = os.fdopen(ours[1], 'wb'), os.fdopen(theirs[0], 'rb')
    self._number, self._rest = 0, b''

  def call(self, method: str, session: str | None = None, **parameters):
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': parameters}
    message |= {'sessionId': session} if session else {}
    self._out.write(json.dumps(message).encode() + b'\0')
    self._out.flush()
    while True:
      while b'\0' not in self._rest:
        data = self._in.read1(1 << 20)
        assert data, 'the browser has ended'
        self._rest += data
      line, _, self._rest = self._rest.partition(b'\0')
      answer = json.loads(line)
      if answer.get('id') == self._number:
        if 'error' in answer:
          raise RuntimeError(f'{method}: {answer["error"]["message"]}')
        return answer['result']

  def open(self, url: str, width: int = 1280, height: int = 800, dark: bool = False) -> Page:
    return Page(self, url, width, height, dark)

  def close(self) -> None:
    with contextlib.suppress(OSError, AssertionError, RuntimeError):
      self.call('Browser.close')
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._out.close()
    self._in.close()


@contextlib.contextmanager
def browser() -> Iterator[_Browser]:
  """Yields a headless Chromium whose `open(url)` is a `Page`."""
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    started = _Browser(folder)
    try:
      yield started
    finally:
      started.close()
