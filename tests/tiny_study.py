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

import numpy as np

from mgjax.evaluation.human.desk import Desk
from mgjax.evaluation.human.server import make_server
from mgjax.media.viewing import write_clip

COLOURS = {'a': (230, 80, 60), 'b': (60, 160, 230), 'c': (90, 200, 90), 'spoilt': (20, 20, 20)}


def make_videos(folder: pathlib.Path, count: int, models: str = 'ab', frames: int = 12) -> None:
  """Writes `count` videos of each model, a square that moves, and prompts.txt."""
  for model in models:
    (folder / model).mkdir(parents=True, exist_ok=True)
    for index in range(count):
      draw = np.random.default_rng([index, ord(model)])
      (y, x), (down, right) = draw.integers((8, 8), (40, 90)), draw.integers(-2, 3, 2)
      video = np.full((frames, 72, 128, 3), 90, np.uint8)
      for time_, frame in enumerate(video):
        top, left = (y + time_ * down) % 56, (x + time_ * right) % 112
        frame[top : top + 16, left : left + 16] = COLOURS[model]
      write_clip(folder / model / f'{index:05d}.mp4', video, 16)
  lines = [f'square {index} drifts across a grey sky' for index in range(count)]
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
