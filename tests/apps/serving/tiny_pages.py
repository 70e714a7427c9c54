"""A study and a review of small videos, their server, and people as clients of it."""

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

from mgjax.apps.serving.annotation import make_server
from mgjax.apps.serving.annotation_queue import AnnotationQueue
from mgjax.data.ingest.inputs import Inputs
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.media.video import write_video
from mgjax.data.media.viewing import write_clip
from mgjax.lab.curation.review.candidates import write_candidates
from mgjax.lab.worlds.digits.clips import Digits

COLOURS = {'a': 'red', 'b': 'blue', 'c': 'green'}
SECONDS, FPS = 4.0, 8


def make_videos(folder: pathlib.Path, count: int, models: str = 'ab', frames: int = 12) -> None:
  """Writes `count` moving digits of each model, which has a colour of its own, and prompts.txt."""
  for model in models:
    (folder / model).mkdir(parents=True, exist_ok=True)
    clips = Digits(frames=frames, colours=(COLOURS[model],), captions='all', seed=ord(model))
    for index in range(count):
      write_clip(folder / model / f'{index:05d}.mp4', clips[index]['video'], 16)
  lines = [f'digit number {index} moves' for index in range(count)]
  (folder / 'prompts.txt').write_text('\n'.join(lines))


def make_raw(folder: pathlib.Path, count: int) -> Inputs:
  """Writes videos of noise that moves, with captions; the last one is none."""
  folder.mkdir(parents=True)
  for index in range(count):
    noise = np.random.default_rng(index).integers(0, 256, (48, 64, 3))
    frames = np.stack([np.roll(noise, 2 * step, 1) for step in range(int(SECONDS * FPS))])
    write_video(folder / f'{index}.mp4', frames.astype(np.uint8), FPS)
    (folder / f'{index}.txt').write_text(f'text {index}')
  (folder / f'{count}.mp4').write_text('no video')
  (folder / f'{count}.txt').write_text('broken')
  return open_inputs(str(folder))


def row(place: int, start: float = 0.5, end: float = 3.5) -> dict:
  return {
    'clip': f'{place}.mp4#0',
    'video': f'{place}.mp4',
    'place': place,
    'start': start,
    'end': end,
    'width': 64,
    'height': 48,
    'fps': float(FPS),
    'sound': False,
    'caption': f'text {place}',
    'camera_class': 'pan or truck right',
    'camera_confidence': 0.8,
  }


def begin_review(folder: pathlib.Path, inputs: Inputs, places) -> None:
  write_candidates(folder, [row(place) for place in places], inputs, (2.0, 16.0))


class Client:
  """One connection of a person to a server."""

  def __init__(self, port: int, token: str):
    self.port, self.token, self.path = port, token, f'/r/{token}'
    self._connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)

  def ask(self, path: str, method: str = 'GET', body: bytes | None = None, **headers):
    """Status, headers and body of an answer; JSON where it is that."""
    self._connection.request(method, path, body, headers)
    with self._connection.getresponse() as answer:
      data, names = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    if names.get('content-type', '').startswith('application/json'):
      data = json.loads(data)
    return answer.status, names, data

  def next(self, query: str = ''):
    """What is to be seen next, its videos and an answer to it that would count."""
    status, _, found = self.ask(f'{self.path}/next{query}')
    assert status == 200, found
    if (task := found['task']) is None:
      return found, {}, None
    videos = {side: self.ask(f'{self.path}/{name}')[2] for side, name in task['media'].items()}
    if found['kind'] == 'votes':
      sums = {side: zlib.crc32(videos[side]) for side in ('left', 'right')}
      return found, videos, {'id': task['id'], 'choice': 'left', 'milliseconds': 5, **sums}
    answer = {
      'id': task['id'],
      'keep': True,
      'reason': '',
      'from': 0.0,
      'to': task['seconds'],
      'caption': task['caption'],
      'labels': [],
    }
    return found, videos, answer

  def send(self, answer, path: str = 'answers', **changes):
    """Answers; returns the status and what was said."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer | changes).encode()
    status, _, said = self.ask(f'{self.path}/{path}', 'POST', body)
    return status, said

  def close(self):
    self._connection.close()


@contextlib.contextmanager
def served(queue: AnnotationQueue) -> Iterator[dict[str, Client]]:
  """Yields the people of a queue by name, while its server runs in a thread."""
  server = make_server(queue)
  listener = socket.create_server(('127.0.0.1', 0), backlog=1024)
  thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
  thread.start()
  while not server.started:
    time.sleep(0.01)
  port = listener.getsockname()[1]
  people = {name: Client(port, token) for token, name in queue.people.items()}
  try:
    yield people
  finally:
    for person in people.values():
      person.close()
    server.should_exit = True
    thread.join(10)
    listener.close()
    queue.close()
