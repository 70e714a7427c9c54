"""A review of small clips, and its server, as a client sees them."""

import contextlib
import json
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np

from mgjax.curation.review.candidates import write_candidates
from mgjax.curation.review.desk import Desk
from mgjax.curation.review.server import make_server
from mgjax.data.ingest.inputs import Inputs
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.media.video import write_video
from tests.tiny_study import Client

SECONDS, FPS = 4.0, 8


def make_videos(folder: pathlib.Path, count: int) -> Inputs:
  """Videos of noise that moves, with captions; the last one is none."""
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
    'clip': f'{place}.mp4#0', 'video': f'{place}.mp4', 'place': place, 'start': start, 'end': end,
    'width': 64, 'height': 48, 'fps': float(FPS), 'sound': False, 'caption': f'text {place}',
    'camera_class': 'pan or truck right', 'camera_confidence': 0.8,
  }  # fmt: skip


def begin(folder: pathlib.Path, inputs: Inputs, rows: list[dict]) -> None:
  write_candidates(folder, rows, inputs, (2.0, 16.0))


class Person:
  """Somebody with a link."""

  def __init__(self, port: int, token: str):
    self.client, self.path = Client(port), f'/r/{token}'

  def next(self, back: int = 0):
    status, _, found = self.client.ask(f'{self.path}/next' + (f'?back={back}' if back else ''))
    assert status == 200, found
    return found

  def send(self, task, **changes):
    """Decides; returns the status and what was answered."""
    fields = {
      'id': task['id'], 'keep': True, 'reason': '', 'from': 0.0, 'to': task['seconds'],
      'caption': task['caption'], 'labels': [], **changes,
    }  # fmt: skip
    return self.post('decisions', fields)

  def post(self, path, fields):
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    status, _, answer = self.client.ask(f'{self.path}/{path}', 'POST', body)
    return status, answer

  def media(self, name):
    return self.client.ask(f'{self.path}/{name}')


@contextlib.contextmanager
def served(
  folder: pathlib.Path, inputs: Inputs, people: tuple[str, ...] = ()
) -> Iterator[dict[str, Person]]:
  """Yields those who look at clips, by name, while a server runs in a thread."""
  with contextlib.closing(Desk(folder, inputs, people)) as desk:
    server = make_server(desk)
    listener = socket.create_server(('127.0.0.1', 0), backlog=64)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    there = {}
    try:
      while not server.started:
        time.sleep(0.01)
      port = listener.getsockname()[1]
      there = {name: Person(port, token) for token, name in desk.people.items()}
      yield there
    finally:
      for person in there.values():
        person.client.close()
      server.should_exit = True
      thread.join(10)
      listener.close()
