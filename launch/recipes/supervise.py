r"""Starts a training again until it is done, on one host or on those of several that are there.

  python launch/recipes/supervise.py \
    python -m launch.train --config=configs/digits/video.py --workdir=runs/video

On several hosts each of them runs this, with a folder that all of them share and the numbers of
hosts that the run can go on with, which have to divide its batches:

  python launch/recipes/supervise.py --hosts=16,12,8 --meet=/shared/run/hosts \
    python -m launch.train --config=configs/digits/video.py --workdir=/shared/run

The run begins on 16 hosts. When one is lost, does not answer for --patience seconds or its process
ends, all processes are ended. Then 12 of the remaining hosts resume from the newest checkpoint at a
smaller data axis. When hosts come back, or new ones come, the run saves its step, ends and resumes
with more. A host whose supervisor gets SIGTERM or Ctrl-C, as a machine that is taken away does,
saves with all others and leaves. If all get it, the run ends.

What another start would not mend ends the run everywhere: exit codes 0, 2, 3, 4 and 5, which are
success, configuration, data, non-finite numbers and no good checkpoint. This needs only Python.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

FINAL = (0, 2, 3, 4, 5)
BEAT = 0.5  # seconds between two signs of life
ROUND = 'round.json'
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Meeting:
  """A folder where hosts meet: a file of each, and the round, which the first of them writes.

  A host is there while its file changes, as seen from here, so that clocks may differ.
  """

  def __init__(self, folder, patience):
    self.folder = pathlib.Path(folder)
    self.patience = patience
    self.seen = {}
    self.name = f'{socket.gethostname()}-{uuid.uuid4().hex[:8]}'
    self.folder.mkdir(parents=True, exist_ok=True)

  def hosts(self):
    """Returns the last report of every host that is alive or leaving, by name, in order."""
    alive = {}
    for path in sorted(self.folder.glob('*.host')):
      report = read(path)
      now = time.monotonic()
      before, since = self.seen.get(path.stem, (None, now))
      self.seen[path.stem] = report, since if report == before else now
      if report and (report['leaving'] or now - self.seen[path.stem][1] < self.patience):
        alive[path.stem] = report
      elif now - self.seen[path.stem][1] > 10 * self.patience:
        path.unlink(missing_ok=True)
    return alive

  def say(self, **fields):
    write(self.folder / f'{self.name}.host', {**fields, 'beat': time.time()})

  def forget(self, name):
    (self.folder / f'{name}.host').unlink(missing_ok=True)

  def round(self):
    return read(self.folder / ROUND) or {'number': 0, 'hosts': [], 'gentle': False}


def read(path):
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError):
    return None


def write(path, content):
  new = path.with_name(f'.{path.name}.{os.getpid()}')
  new.write_text(json.dumps(content))
  new.replace(path)


class Supervisor:
  """One host: its process, and its part in the rounds, each a number and the hosts of it."""

  def __init__(self, command, counts, meeting, restarts, pause, grace):
    self.command = command
    self.counts = sorted(counts, reverse=True)
    self.meeting = meeting
    self.restarts, self.pause, self.grace = restarts, pause, grace
    self.child = None
    self.number = 0
    self.state = 'waiting'
    self.code = None
    self.heard = []
    self.leaving = False
    self.kill_at = None
    self.failed_at = None
    self.began = time.monotonic()
    self.port = None
    self.arrived = meeting.round()['number']  # what ended before is another run of the same folder

  def run(self):
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, lambda number, frame: self.heard.append(number))
    while True:
      self.watch_child()
      heard = self.heard
      self.heard = []
      self.leaving = self.leaving or bool(heard)
      self.say()  # before the others see their processes end
      if self.leaving and self.child is None:
        return self.code or 0
      for number in heard:
        self.kill_at = self.kill_at or time.monotonic() + self.grace
        self.signal(number)
      hosts, now = self.meeting.hosts(), self.meeting.round()
      if self.meeting.name == next((name for name in hosts if not hosts[name]['leaving']), None):
        now = self.lead(hosts, now)
      if 'code' in now and now['number'] > self.arrived and self.child is None:
        return now['code']
      if now['number'] != self.number:
        self.follow(now)
      elif self.state == 'ready' and all(
        hosts.get(name, {}).get('number') == self.number for name in now['hosts']
      ):
        self.start(now['hosts'], hosts)
      time.sleep(BEAT)

  def say(self):
    self.meeting.say(
      number=self.number,
      state=self.state,
      code=self.code,
      address=self.address(),
      leaving=self.leaving,
    )

  def address(self):
    """Returns where others find the first process of a round, if it is on this host."""
    try:
      host = socket.gethostbyname(socket.gethostname())
    except OSError:
      host = '127.0.0.1'
    return f'{host}:{self.port}'

  def lead(self, hosts, now):
    """Returns the round; starts a new one if hosts or processes were lost, or hosts joined."""
    staying = [name for name, report in hosts.items() if not report['leaving']]
    count = next((count for count in self.counts if count <= len(staying)), 0)
    chosen = staying[:count]
    status = f'{len(staying)} of {self.counts[0]} hosts are there'
    if 'code' in now and now['number'] > self.arrived:
      return now
    if 'code' in now or not set(now['hosts']) & set(hosts):  # the first round of this run
      late = time.monotonic() - self.began > self.meeting.patience
      return self.begin(now, chosen, status) if count == self.counts[0] or (count and late) else now

    reports = {name: hosts[name] for name in now['hosts'] if name in hosts}
    codes = {
      name: report['code']
      for name, report in reports.items()
      if report['number'] == now['number'] and report['code'] is not None
    }
    leaving = [name for name, report in reports.items() if report['leaving']]
    if final := [code for code in codes.values() if code in FINAL and (code or not leaving)]:
      return self.end(now, max(final))
    lost = [name for name in now['hosts'] if name not in hosts]
    wrong = {name: code for name, code in codes.items() if code}
    if lost or wrong or (leaving and codes):
      self.failed_at = self.failed_at or time.monotonic()
      if not count or time.monotonic() - self.failed_at < self.pause:
        return now  # others may come, or be lost as well
      self.restarts -= not leaving
      if self.restarts < 0:
        return self.end(now, next(iter(wrong.values()), 1))
      for name in leaving:
        self.meeting.forget(name)
      why = [f'{name} is lost' for name in lost] + [f'{name} leaves' for name in leaving]
      why += [f'exit code {code} of {name}' for name, code in wrong.items()]
      # Where one leaves, the others may find it gone at their own end: what is not ended is saving.
      gentle = not lost and (0 in codes.values() or not wrong)
      return self.begin(now, chosen, '; '.join(why), gentle)
    if count > len(now['hosts']) and all(
      report['state'] == 'running' for report in reports.values()
    ):
      return self.begin(now, chosen, status, gentle=True)
    return now

  def begin(self, now, hosts, why, gentle=False):
    self.failed_at = None
    number = now['number'] + 1
    print(f'supervise.py: round {number} on {len(hosts)} host(s): {why}', file=sys.stderr)
    new_round = {'number': number, 'hosts': hosts, 'gentle': gentle}
    write(self.meeting.folder / ROUND, new_round)
    return new_round

  def end(self, now, code):
    last_round = {'number': now['number'] + 1, 'hosts': [], 'gentle': True, 'code': code}
    write(self.meeting.folder / ROUND, last_round)
    return last_round

  def follow(self, now):
    """Ends the process of an earlier round, then is ready for this one."""
    if self.child is not None:
      if not now['gentle']:
        self.signal(signal.SIGKILL)
      elif self.kill_at is None:
        self.kill_at = time.monotonic() + self.grace
        if 'code' not in now:
          self.signal(signal.SIGTERM)
      return
    with socket.socket() as free:
      free.bind(('', 0))
      self.port = free.getsockname()[1]
    self.number = now['number']
    self.code = None
    self.state = 'ready' if self.meeting.name in now['hosts'] else 'waiting'

  def start(self, names, hosts):
    environment = dict(os.environ)
    if self.counts[0] > 1:
      environment |= {
        'JAX_COORDINATOR_ADDRESS': hosts[names[0]]['address'],
        'JAX_NUM_PROCESSES': str(len(names)),
        'JAX_PROCESS_ID': str(names.index(self.meeting.name)),
      }
    self.state = 'running'
    self.kill_at = None
    self.child = subprocess.Popen(
      self.command, env=environment, start_new_session=True, preexec_fn=_die_with_parent
    )

  def watch_child(self):
    if self.child is None:
      return
    if self.kill_at is not None and time.monotonic() > self.kill_at:
      self.signal(signal.SIGKILL)
    code = self.child.poll()
    if code is not None:
      self.signal(signal.SIGKILL)  # what it has left behind
      self.child = None
      self.kill_at = None
      self.state = 'ended'
      self.code = code if code >= 0 else 128 - code

  def signal(self, number):
    with contextlib.suppress(OSError):  # there is none any more
      os.killpg(self.child.pid, number)


def _die_with_parent():  # where the system can
  getattr(ctypes.CDLL(None), 'prctl', lambda *_: None)(_DIE_WITH_PARENT, signal.SIGKILL)


def numbers(text):
  counts = [int(part) for part in text.split(',')]
  if min(counts) < 1:
    raise ValueError
  return counts


def main():
  usage, _, epilog = __doc__.partition('\n\n')
  parser = argparse.ArgumentParser(
    prog='supervise.py',
    description=usage,
    epilog=epilog,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--hosts', type=numbers, default=[1], help='numbers of hosts, as in 16,12,8')
  parser.add_argument('--meet', default='', help='a folder that all hosts share')
  parser.add_argument(
    '--patience', type=float, default=30, help='seconds until a host is lost (%(default)g)'
  )
  parser.add_argument(
    '--pause', type=float, default=5, help='seconds from a failure to a start (%(default)g)'
  )
  parser.add_argument(
    '--grace', type=float, default=300, help='seconds to save and end in (%(default)g)'
  )
  parser.add_argument('--restarts', type=int, default=100, help='failures, at most (%(default)g)')
  parser.add_argument('command', nargs=argparse.REMAINDER, metavar='COMMAND')
  arguments = parser.parse_args()
  if not arguments.command:
    parser.error('give the command, as in: supervise.py python -m launch.train --config=...')
  if max(arguments.hosts) > 1 and not arguments.meet:
    parser.error('several hosts need a folder that they share: give --meet=/shared/run/hosts')
  with tempfile.TemporaryDirectory() as alone:
    meeting = Meeting(arguments.meet or alone, arguments.patience)
    options = arguments.restarts, arguments.pause, arguments.grace
    return Supervisor(arguments.command, arguments.hosts, meeting, *options).run()


if __name__ == '__main__':
  sys.exit(main())
