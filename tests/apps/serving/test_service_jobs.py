"""Jobs outlive the process that has them: killed, ended, and with several workers."""

import json
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.apps.serving.tiny_service import CHECKOUT, Server, postgres

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


def test_a_killed_server_loses_no_job_and_makes_none_twice(tmp_path):
  server = Server(tmp_path / 'out', ALLOWED).start()
  try:
    survive([server], 6, 24, [signal.SIGKILL, signal.SIGTERM], pause=2.0)
  finally:
    server.end(signal.SIGKILL)


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
