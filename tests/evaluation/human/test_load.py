"""Many raters at once, and connections that do nothing, against a server in its own process."""

import itertools
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mgjax.evaluation.human.study import begin
from mgjax.evaluation.human.votes import read_votes
from tests.evaluation.human.test_page import Site
from tests.tiny_study import Client, make_videos

pytestmark = pytest.mark.slow
CLIENTS, SLOW = 200, 500


@pytest.fixture
def site(tmp_path):
  make_videos(tmp_path, 12)
  names = tuple(f'rater{number:03d}' for number in range(CLIENTS))
  models = {name: str(tmp_path / name) for name in 'ab'}
  begin(
    tmp_path / 'votes', models, str(tmp_path / 'prompts.txt'), 'video:overall,realness', names,
    each=50, repeats=0,
  )  # fmt: skip
  made = Site(tmp_path / 'votes')
  made.start()
  yield made
  made.kill()


def work(site, link):
  """Does all that one rater is asked; the seconds that each vote took."""
  client, token, seconds = Client(site.port), link.rpartition('/')[2], []
  while True:
    found, _, vote = client.next(token)
    if found['task'] is None:
      client.close()
      return seconds
    begun = time.monotonic()
    assert client.vote(token, vote)[0] == 200
    seconds.append(time.monotonic() - begun)


def test_two_hundred_raters_at_once_lose_nothing(site):
  begun = time.monotonic()
  with ThreadPoolExecutor(CLIENTS) as pool:
    seconds = sorted(itertools.chain(*pool.map(lambda link: work(site, link), site.links)))
  took = time.monotonic() - begun
  votes = read_votes(site.directory)
  assert len(votes) == len({vote.id for vote in votes}) == len(seconds) == 12 * 2 * 50
  middle, last = seconds[len(seconds) // 2], seconds[int(0.99 * len(seconds))]
  print(f'{len(votes)} votes of {CLIENTS} raters in {took:.1f} s; a vote {middle:.3f} s, '
        f'99 in 100 within {last:.3f} s')  # fmt: skip


def test_connections_that_trickle_do_not_keep_raters_out(site):
  token = site.links[0].rpartition('/')[2]
  slow = [socket.create_connection(('127.0.0.1', site.port)) for _ in range(SLOW)]
  begun = time.monotonic()
  for each in slow:
    each.sendall(b'GET /r/x HTTP/1.1\r\nX-A: ')
  waits, alive = [], len(slow)
  while alive and time.monotonic() < begun + 30:
    start = time.monotonic()
    client = Client(site.port)
    assert client.next(token)[0]['task']
    client.close()
    waits.append(time.monotonic() - start)
    alive = 0
    for each in slow:
      try:
        each.sendall(b'a')
        alive += 1
      except OSError:
        pass
    time.sleep(0.5)
  for each in slow:
    each.close()
  took = time.monotonic() - begun
  assert not alive and took < 20  # 10 s are allowed for a request
  print(f'{SLOW} trickling connections were gone after {took:.1f} s; meanwhile a rater waited '
        f'{max(waits):.3f} s at most')  # fmt: skip
