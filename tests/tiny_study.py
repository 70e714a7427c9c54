"""A study of small videos that people compare, and its server, as a client sees them."""

import contextlib
import http.client
import json
import pathlib
import socket
import threading
import time
import zlib
from collections.abc import Iterator

from mgjax.digits.clips import Digits
from mgjax.evaluation.human.desk import Desk
from mgjax.evaluation.human.server import make_server
from mgjax.media.viewing import write_clip

COLOURS = {'a': 'red', 'b': 'blue', 'c': 'green'}


def make_videos(folder: pathlib.Path, count: int, models: str = 'ab', frames: int = 12) -> None:
  """Writes `count` moving digits of each model, which has a colour of its own, and prompts.txt."""
  for model in models:
    (folder / model).mkdir(parents=True, exist_ok=True)
    clips = Digits(frames=frames, colours=(COLOURS[model],), captions='all', seed=ord(model))
    for index in range(count):
      write_clip(folder / model / f'{index:05d}.mp4', clips[index]['video'], 16)
  lines = [f'digit number {index} moves' for index in range(count)]
  (folder / 'prompts.txt').write_text('\n'.join(lines))


class Client:
  """One connection to a server."""

  def __init__(self, port: int):
    self._connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)

  def ask(self, path: str, method: str = 'GET', body: bytes | None = None, **headers):
    """Status, headers and body of an answer; JSON where it is that."""
    self._connection.request(method, path, body, headers)
    answer = self._connection.getresponse()
    data, names = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    if names.get('content-type', '').startswith('application/json'):
      data = json.loads(data)
    return answer.status, names, data

  def next(self, token: str, more: bool = False):
    """What a rater is to see next, its videos and a vote for it that would count."""
    status, _, found = self.ask(f'/r/{token}/next' + '?more' * more)
    assert status == 200, found
    task = found['task']
    if task is None:
      return found, {}, None
    videos = {side: self.ask(f'/r/{token}/{task[side]}')[2] for side in ('left', 'right')}
    sums = {side: zlib.crc32(video) for side, video in videos.items()}
    return found, videos, {'id': task['id'], 'choice': 'left', 'milliseconds': 5, **sums}

  def vote(self, token: str, vote):
    body = vote if isinstance(vote, bytes) else json.dumps(vote).encode()
    return self.ask(f'/r/{token}/votes', 'POST', body)

  def close(self):
    self._connection.close()


@contextlib.contextmanager
def served(directory: pathlib.Path) -> Iterator[tuple[Desk, int]]:
  """Yields the desk of a study and the port of its server, which runs in a thread."""
  desk = Desk(directory)
  server = make_server(desk)
  listener = socket.create_server(('127.0.0.1', 0), backlog=1024)
  thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
  thread.start()
  try:
    while not server.started:
      time.sleep(0.01)
    yield desk, listener.getsockname()[1]
  finally:
    server.should_exit = True
    thread.join(10)
    listener.close()
