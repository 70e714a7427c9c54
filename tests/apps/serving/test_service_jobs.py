"""Jobs outlive the process that has them: killed, ended, and with several workers."""

import base64
import contextlib
import json
import os
import pickle
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest

from tests.apps.serving.tiny_service import CHECKOUT, Server, postgres
from tests.waiting import wait_for

for package in ('dbos', 'prometheus_client', 'python_multipart'):
  pytest.importorskip(package, reason='needs the extra serve')
ALLOWED = '--limits=rate=100000,queue=20000,batch=4'


def survive(servers, clients, jobs, signals, pause):
  """Loads the first server while all get signals and start again; nothing is lost or twice."""
  load = subprocess.Popen(
    [
      sys.executable,
      'tests/apps/serving/load_videos.py',
      f'--url={servers[0].url}',
      f'--clients={clients}',
      f'--jobs={jobs}',
      '--patience=3000',
    ],
    stdout=subprocess.PIPE,
    text=True,
    cwd=CHECKOUT,
  )
  draw, ended = random.Random(0), []
  for number in signals:
    server = draw.choice(servers)
    time.sleep(pause * draw.uniform(0.7, 1.3))
    if number == signal.SIGTERM:  # which one that just starts has no handler for
      server.until_ready()
    ended.append(server.end(number))
    server.start(wait=len(servers) == 1)
  said, _ = load.communicate(timeout=3000)
  found = json.loads(said)
  print(found, ended)
  assert found['ids'] == found['completed'] == jobs
  seen, after = [], ''
  while True:
    _, _, page = servers[0].ask('GET', f'/v1/videos?limit=100&order=asc{after}')
    seen += page['data']
    if not page['has_more']:
      break
    after = f'&after={page["last_id"]}'
  assert sorted(each['seed'] for each in seen) == list(range(jobs))  # each once
  assert {each['status'] for each in seen} == {'completed'}
  assert all(
    code == (0 if sent == signal.SIGTERM else -9) for code, sent in zip(ended, signals, strict=True)
  )


def modes_in(folder):
  """Modes of a store and what is in it by name, but for its locks."""
  found = (path for path in (folder, *folder.rglob('*')) if path.suffix != '.lock')
  return {path.name: stat.filemode(path.stat().st_mode) for path in found}


def test_a_killed_server_loses_no_job_and_makes_none_twice(tmp_path):
  server = Server(tmp_path / 'out', ALLOWED).start()
  try:
    survive([server], 6, 24, [signal.SIGKILL, signal.SIGTERM], pause=2.0)
    modes = modes_in(tmp_path / 'out')
    assert {'jobs.sqlite', 'job.json', 'video.mp4'} <= modes.keys()
    assert set(modes.values()) == {'drwx------', '-rw-------'}  # prompts are nobody else's
  finally:
    server.end(signal.SIGKILL)


class Command:
  """Unpickled, it runs a command."""

  def __init__(self, command):
    self.command = command

  def __reduce__(self):
    return os.system, (self.command,)


def plant(store, inputs):
  """Copies a job that ended into a waiting one, of other inputs; returns its id."""
  id = f'video_{"0" * 32}'
  with contextlib.closing(sqlite3.connect(store, timeout=30)) as database, database:
    database.row_factory = sqlite3.Row
    found = database.execute("SELECT * FROM workflow_status WHERE status = 'SUCCESS'")
    status = {**dict(found.fetchone()), 'workflow_uuid': id, 'completed_at': None}
    status |= {'status': 'ENQUEUED', 'queue_name': 'videos', 'serialization': 'py_pickle'}
    given = {'workflow_uuid': id, 'inputs': inputs, 'retention_timestamp': status['created_at']}
    for table, row in (('workflow_input', given), ('workflow_status', status)):
      marks = ', '.join('?' * len(row))
      database.execute(f'INSERT INTO {table} ({", ".join(row)}) VALUES ({marks})', [*row.values()])
  return id


def test_the_store_is_json_and_a_planted_pickle_runs_nothing(tmp_path):
  store, ran = tmp_path / 'out' / 'jobs.sqlite', tmp_path / 'ran'
  server = Server(tmp_path / 'out', ALLOWED).start()
  try:
    made = server.make(seed=1)
    with contextlib.closing(sqlite3.connect(store)) as database:
      stored = {
        column: json.loads(database.execute(f'SELECT {column} FROM {table}').fetchone()[0])
        for table, column in (('workflow_input', 'inputs'), ('workflow_output', 'output'))
      }
      assert stored['inputs']['positionalArgs'][0]['seed'] == 1
      assert stored['output']['size'] == [32, 32]
      for table in ('workflow_status', 'operation_outputs'):
        formats = database.execute(f'SELECT DISTINCT serialization FROM {table}').fetchall()
        assert formats == [('portable_json',)]
    command = Command(f'touch {ran}')
    id = plant(store, base64.b64encode(pickle.dumps({'args': (command,), 'kwargs': {}})).decode())
    wait_for(lambda: 'is a pickle, which is not read' in server.log.read_text(), seconds=30)
    assert server.ask('GET', f'/v1/videos/{id}')[0] == 404
    assert server.make(seed=2)['status'] == 'completed'
    assert server.end() == 0
    # Started again, it finds what is there before anything reads it.
    server.start(wait=False)
    assert server.process.wait(100) == 2  # as for any wrong setting
    assert '--database: workflow_status has pickled rows (1)' in server.log.read_text()
    with contextlib.closing(sqlite3.connect(store)) as database, database:
      database.execute('DELETE FROM workflow_status WHERE workflow_uuid = ?', [id])
    server.start()
    assert server.ask('GET', f'/v1/videos/{made["id"]}')[2] == made
    assert server.ask('GET', f'/v1/videos/{made["id"]}/content')[0] == 200
  finally:
    server.end(signal.SIGKILL)
  assert not ran.exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('workers', [1, 2])
def test_500_jobs_survive_five_kills_and_two_ends(workers, tmp_path):
  signals = [signal.SIGKILL, signal.SIGTERM, *[signal.SIGKILL] * 3, signal.SIGTERM, signal.SIGKILL]
  if workers == 1:
    servers = [Server(tmp_path / 'out', ALLOWED).start()]
    survive_all(servers, signals)
    return
  with postgres() as url:
    flags = [ALLOWED, f'--database={url}']
    servers = [Server(tmp_path / 'out', *flags, f'--worker=w{each}') for each in range(workers)]
    threads = [threading.Thread(target=each.start) for each in servers]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    survive_all(servers, signals)


def survive_all(servers, signals):
  try:
    survive(servers, 50, 500, signals, pause=12.0)
  finally:
    for server in servers:
      server.end(signal.SIGKILL)


@pytest.mark.slow
def test_what_a_dead_worker_had_is_made_by_another(tmp_path):
  with postgres() as url:
    flags = ['--limits=batch=1', f'--database={url}']
    one, two = (
      Server(tmp_path / 'out', *flags, f'--worker=w{each}', model='digits/video').start()
      for each in range(2)
    )
    try:
      fields = {'prompt': 'the red digit 7', 'num_inference_steps': 100}
      ids = [one.ask('POST', '/v1/videos', fields)[2]['id'] for _ in range(8)]
      while not any(one.ask('GET', f'/v1/videos/{id}')[2]['status'] == 'in_progress' for id in ids):
        time.sleep(0.05)
      one.end(signal.SIGKILL)
      assert {two.wait(id)['status'] for id in ids} == {'completed'}
    finally:
      two.end(signal.SIGKILL)
