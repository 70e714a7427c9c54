"""The example of docs/language_models.md, asked of a server on this machine."""

import pathlib
import re

import numpy as np

from mgjax.media.video import write_video
from tests.runtime.chat_server import Server

PAGE = pathlib.Path(__file__).parent.parent.parent / 'docs/language_models.md'
(BLOCK,) = re.findall(r'^```python\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('MODEL_KEY', 'f00d' * 8)
  for name in 'ab':
    shade = 80 + 80 * (name == 'b')
    write_video(f'clips/{name}.mp4', np.full((24, 32, 32, 3), shade, np.uint8), 8)
  with Server(lambda _: '{"caption": "a grey square"}') as server:
    assert 'http://127.0.0.1:8000/v1' in BLOCK
    names = {}
    exec(compile(BLOCK.replace('http://127.0.0.1:8000/v1', server.url), PAGE.name, 'exec'), names)
    assert names['captions'] == ['a grey square'] * 2
    ((_, body, _), _) = server.asked[names['ASK']]
    kinds = [part['type'] for part in body['messages'][0]['content']]
    assert kinds == ['image_url'] * 4 + ['text']
