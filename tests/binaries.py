"""Runs `python -m launch.x` in a fork of a process that has imported what every binary imports.

An interpreter with JAX, Orbax and Grain in it takes two seconds of a processor to start, and the
tests start some eighty. A fork has the arguments, the streams and the exit code of a process of
its own; only the imports it does not do again.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time

CHECKOUT = pathlib.Path(__file__).parent.parent
IMPORTED = ('data.ingest.convert', 'lab.evaluation.quickstart', 'apps.weights.import_export')


def run(name, *arguments, timeout=280) -> subprocess.CompletedProcess:
  """What `python -m launch.name arguments...` printed and how it ended."""
  done, _ = start(f'launch.{name}', *arguments, timeout=timeout)
  assert done.returncode is not None, f'{done.args} took more than {timeout} s'
  return done


def finish(name, *arguments, timeout=280) -> subprocess.CompletedProcess:
  """The same of what has to end well."""
  return succeeded(run(name, *arguments, timeout=timeout))


def python(*words, **options) -> subprocess.CompletedProcess:
  """What an interpreter of its own printed, which has to end well."""
  options = {'cwd': CHECKOUT, 'timeout': 600} | options
  return succeeded(
    subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)
  )


def succeeded(done) -> subprocess.CompletedProcess:
  """What is given, if it ended well."""
  assert done.returncode == 0, done.stderr
  return done


def start(
  module, *arguments, timeout, checkout=CHECKOUT
) -> tuple[subprocess.CompletedProcess, float]:
  """What a module printed, with None as code if it ran out of time, and since when it is silent."""
  with tempfile.TemporaryDirectory() as folder:
    streams = [pathlib.Path(folder, stream) for stream in ('out', 'err')]
    words = [str(argument) for argument in arguments]
    code = _Server(checkout).call(
      module=module,
      arguments=words,
      streams=[str(path) for path in streams],
      environment=dict(os.environ),
      timeout=timeout,
    )
    told = [path.stat().st_mtime for path in streams if path.exists()]
    said = (path.read_text(errors='replace') if path.exists() else '' for path in streams)
    done = subprocess.CompletedProcess([module, *words], code, *said)
    return done, time.time() - max(told, default=0)


class Background:
  """A module that runs until it ends or gets a signal, like `subprocess.Popen`.

  Args:
    module: what `python -m` would run.
    arguments: of the command line.
    log: file that its output is appended to.
    imported: modules that the process which forks imports before, so that no fork has to.
  """

  def __init__(self, module, arguments, log, imported):
    self._server, self.returncode = _Server(CHECKOUT), None
    self.pid = self._server.call(
      module=module,
      arguments=[str(argument) for argument in arguments],
      streams=[str(log)] * 2,
      environment=dict(os.environ),
      timeout=None,
      imported=imported,
    )

  def poll(self):
    if self.returncode is None:
      self.returncode = self._server.call(poll=self.pid)
    return self.returncode

  def wait(self, timeout):
    deadline = time.monotonic() + timeout
    while self.poll() is None:
      if time.monotonic() > deadline:
        raise subprocess.TimeoutExpired(str(self.pid), timeout)
      time.sleep(0.01)
    return self.returncode

  def send_signal(self, number):
    if self.poll() is None:
      os.kill(self.pid, number)


@functools.cache
class _Server:
  def __init__(self, checkout):
    self._lock = threading.Lock()
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'tests.binaries'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      cwd=checkout,
    )
    atexit.register(self._process.communicate)  # it ends with its input

  def call(self, **request):
    with self._lock:
      print(json.dumps(request), file=self._process.stdin, flush=True)
      answer = self._process.stdout.readline()
    assert answer, 'the process that forks binaries is gone'
    return json.loads(answer)


def _serve():
  """Answers requests with exit codes; in a child, returns the request that is its to do."""
  for name in IMPORTED:
    importlib.import_module(f'mgjax.{name}')
  gc.freeze()
  for line in sys.stdin:
    request = json.loads(line)
    if 'poll' in request:
      answer = _code(request['poll'])
    else:
      for name in request.get('imported', ()):
        importlib.import_module(name)
      child = os.fork()
      if not child:
        return request
      timeout = request['timeout']
      answer = child if timeout is None else _wait(child, time.monotonic() + timeout)
    print(json.dumps(answer), flush=True)


def _code(child):
  """How a child ended; None while it runs."""
  pid, status = os.waitpid(child, os.WNOHANG)
  return os.waitstatus_to_exitcode(status) if pid else None


def _wait(child, deadline):
  while time.monotonic() < deadline:
    if (code := _code(child)) is not None:
      return code
    time.sleep(0.01)
  os.kill(child, signal.SIGKILL)
  os.waitpid(child, 0)


if __name__ == '__main__' and (request := _serve()):
  os.environ.clear()
  os.environ.update(request['environment'])
  for number, path in enumerate((os.devnull, *request['streams'])):
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(opened, number)
    os.close(opened)
  sys.argv[1:] = request['arguments']
  runpy.run_module(request['module'], run_name='__main__', alter_sys=True)
