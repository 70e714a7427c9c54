"""The examples of four pages of docs/, run in their order."""

import re

import numpy as np

from mgjax.data.media.video import write_video
from tests.lab.language_models.chat_server import Server
from tests.tiny import CHECKOUT


def run(page, capsys, change=lambda code: code):
  """Runs the blocks of a page; returns its text, what they printed and their names."""
  text, names = (CHECKOUT / 'docs' / page).read_text(), {}
  for number, block in enumerate(re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)):
    exec(compile(change(block), f'docs/{page}, block {number}', 'exec'), names)
  return text, capsys.readouterr().out, names


def test_models_print_what_the_page_says(capsys):
  text, said, _ = run('reference/model_variants.md', capsys)
  printed = said.split()
  for count in (printed[1], printed[3]):
    assert f'{int(count):,}' in text
  mean, deviation = map(float, printed[-2:])
  # Three standard errors of 10,000 draws, and what 50 steps of Euler leave.
  assert abs(mean - 2) < 0.03 and abs(deviation - 0.5) < 0.03


def test_the_synthetic_data_has_its_ceilings_and_floors(capsys):
  _, said, names = run('reference/digits.md', capsys)
  assert 'the red digit' in said and 'digit 7' in said
  plain, textured = map(float, re.search(r'([\d.]+) dB, ([\d.]+) dB', said).groups())
  assert plain > 43 and textured < 26
  assert names['ceiling']['texture'] == 1 and names['ceiling']['digit'] > 0.85
  assert names['floor']['texture'] < 0.5 and names['floor']['all'] < 0.1
  assert (names['known']['truth'] == 1).all() and names['known']['pasted reference'][0] > 0.8
  assert names['known']['other handwriting'][1] < 0.4
  assert 'make the digit' in said and 'the edit is right: True, the source is: False' in said


def test_the_judge_reads_what_the_page_draws(capsys):
  _, said, names = run('reference/solids.md', capsys)
  scene, reading = names['scene'], names['reading']
  assert {solid.colour: solid.shape for solid in scene.solids} == {
    colour: solid.shape for colour, solid in reading.solids.items()
  }
  assert reading.camera == scene.camera.move and names['sample']['caption'] in said
  assert (names['again']['video'] != names['sample']['video']).any()


def test_a_language_model_is_asked_at_an_address(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('MODEL_KEY', 'f00d' * 8)
  address = 'http://127.0.0.1:8000/v1'
  for name, shade in (('a', 80), ('b', 160)):
    write_video(f'clips/{name}.mp4', np.full((24, 32, 32, 3), shade, np.uint8), 8)
  with Server(lambda _: '{"caption": "a grey square"}') as server:
    change = lambda code: code.replace(address, server.url)  # noqa: E731
    text, _, names = run('how_to/use_language_models.md', capsys, change)
    assert address in text and names['captions'] == ['a grey square'] * 2
    ((_, body, _), _) = server.requests[names['ASK']]
  kinds = [part['type'] for part in body['messages'][0]['content']]
  assert kinds == ['image_url'] * 4 + ['text']
