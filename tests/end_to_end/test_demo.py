"""A first look: one command makes every file that its page shows."""

import json
import re
import shutil
import subprocess

import pytest

from mgjax.apps.demo import PAGE
from mgjax.data.media.audio import probe_audio
from mgjax.data.media.video import probe
from tests import binaries

WORLDS = {
  'solids': ('a red ball rolls left and hits a blue cube', 'make the red ball yellow', 64),
  'digits': ('the green digit 3 moves left', 'make the digit red', 32),
}
CHROMIUM = shutil.which('chromium')


@pytest.mark.parametrize('world', WORLDS)
def test_a_prompt_becomes_videos_sound_and_a_page_of_them(world, tmp_path):
  out, (prompt, edit, side) = tmp_path / 'new' / 'demo', WORLDS[world]
  options = [f'--prompt={prompt}', f'--edit={edit}', f'--out={out}']
  done = binaries.finish('demo', f'--world={world}', *options)
  told = done.stdout.split()
  assert told[0] == str(out / PAGE) and {path.name for path in out.iterdir()} == {
    path.rpartition('/')[2] for path in told
  }
  sides = {'small': side, 'large': 2 * side, 'edited': side, 'edited_large': 2 * side}
  for name, wanted in sides.items():
    found = probe(out / f'{name}.mp4')
    assert (found.frames, found.height, found.width) == (16, wanted, wanted)
  assert probe_audio(out / 'large_sound.mp4').seconds == pytest.approx(2, abs=0.1)
  page = (out / PAGE).read_text()
  shown = re.findall(r'src="([^"]+)"', page)
  assert len(shown) == len(sides) + 2 and all((out / name).is_file() for name in shown)
  assert prompt in page and edit in page
  about = json.loads((out / 'demo.json').read_text())
  assert (about['seed'], about['prompt'], about['edit']) == (0, prompt, edit)
  # What was asked stands beside the models, whose own examples are not what was asked.
  assert all(name.startswith(f'{world}/') for name in about['models'].values())
  if CHROMIUM:  # which has nothing to say on its console
    words = '--headless --no-sandbox --disable-gpu --disable-background-networking --dump-dom'
    command = [CHROMIUM, *words.split(), '--enable-logging=stderr', f'--user-data-dir={tmp_path}/c']
    seen = subprocess.run(
      [*command, '--virtual-time-budget=2000', (out / PAGE).as_uri()],
      capture_output=True,
      text=True,
      check=True,
      timeout=120,
    )
    assert 'CONSOLE' not in seen.stderr and seen.stdout.count('<video') == len(
      re.findall('<video', page)
    )
