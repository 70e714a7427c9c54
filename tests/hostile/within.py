"""Runs a command in a folder of its own, under conditions that no command expects.

python -m tests.hostile.within '{"folder": "/tmp/x", "clock": -3600}' sample --workdir=...
Conditions: `folder` to stand in, `clock` (seconds by which the time of day jumps at every look, to
and fro), `user` (one who is not root),
`file` (of Python, which takes the command's place), `audit` (end where a file outside of the folder
and the installation is opened, or a connection is). With no command: prints all flags.
"""

import ctypes
import importlib
import itertools
import json
import os
import pathlib
import resource
import runpy
import sys
import time
from typing import Any

ESCAPED = 99  # the exit code where the audit ends the command
SKIPPED = 77  # the exit code where no disk may be mounted
MEMORY = 12 << 30  # bytes of addresses, beyond which a command would cost others theirs


def list_flags() -> dict[str, dict[str, str]]:
  """Returns command -> flag -> the type of its values, as the command defines them."""
  from absl import flags

  from launch import command_line

  found = {}
  for command in command_line.binaries():
    module = importlib.import_module(f'launch.{command}')
    own = list(flags.FLAGS.get_key_flags_for_module(module))
    found[command] = {flag.name: type(flag.parser).__name__ for flag in own}
    for name in {'config', 'print_config', *found[command]} & set(flags.FLAGS):
      delattr(flags.FLAGS, name)
  return found


def _jumping(seconds: float) -> Any:
  true, far = time.time, itertools.cycle((0.0, seconds, -seconds, seconds / 2))
  return lambda: true() + next(far)


def _mount(place: str, size: str = '') -> None:
  """Puts a small empty disk in a place, or makes what is there read-only, for this process."""
  libc, private, recursive, bind, remount, read_only = (
    ctypes.CDLL(None, use_errno=True),
    1 << 18,
    16384,
    4096,
    32,
    1,
  )
  user, group = os.geteuid(), os.getegid()
  failed = libc.unshare(0x20000 | (0x10000000 if user else 0))  # of mounts, and of users
  if user:
    pathlib.Path('/proc/self/setgroups').write_text('deny')
    pathlib.Path('/proc/self/uid_map').write_text(f'0 {user} 1')
    pathlib.Path('/proc/self/gid_map').write_text(f'0 {group} 1')
  failed |= libc.mount(None, b'/', None, private | recursive, None)
  if size:
    failed |= libc.mount(b'none', place.encode(), b'tmpfs', 0, f'size={size}'.encode())
  else:
    failed |= libc.mount(place.encode(), place.encode(), None, bind, None)
    failed |= libc.mount(None, place.encode(), None, bind | remount | read_only, None)
  if failed:
    sys.exit(SKIPPED)


def _audit(folder: str) -> None:
  own = [folder, sys.prefix, sys.base_prefix, str(pathlib.Path(__file__).parents[2])]
  own += [str(pathlib.Path.home() / '.cache'), '/proc', '/sys', '/dev', '/usr', '/lib', '/tmp/tmp']
  own += ['/etc/localtime', '/etc/mime.types', '/etc/fonts']
  here = tuple(os.path.realpath(each) for each in own)

  def watch(event: str, arguments: tuple[Any, ...]) -> None:
    told = ''
    if event == 'open' and isinstance(arguments[0], str | bytes):
      path = os.path.realpath(os.fsdecode(arguments[0]))
      told = '' if path.startswith(here) else path
    elif event in ('socket.connect', 'socket.getaddrinfo'):
      told = str(arguments)
    if told:
      print(f'escaped: {event} {told}', file=sys.stderr, flush=True)
      os._exit(ESCAPED)

  sys.addaudithook(watch)


def run(conditions: dict[str, Any], command: str, words: list[str]) -> None:
  """Runs a command as `python -m launch.command words...` would."""
  if clock := conditions.get('clock'):
    time.time = _jumping(clock)
    nanoseconds = _jumping(clock)
    time.time_ns = lambda: int(nanoseconds() * 1e9)
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
  os.chdir(conditions.get('folder', '.'))
  if disk := conditions.get('disk'):
    _mount(**disk)
  if conditions.get('user') and ctypes.CDLL(None).unshare(0x10000000):  # of users: root no more
    sys.exit(SKIPPED)
  if conditions.get('audit'):
    _audit(os.getcwd())
  sys.argv[1:] = words
  if file := conditions.get('file'):
    runpy.run_path(file, run_name='__main__')
  else:
    runpy.run_module(f'launch.{command}', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  if len(sys.argv) < 2:
    print(json.dumps(list_flags()))
  else:
    run(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])
