"""A first look: one command makes every file that its page shows."""

import json
import re

import pytest

from mgjax.core.errors import ConfigError
from mgjax.media.audio import probe_audio
from mgjax.media.video import probe
from mgjax.workflows.demo import PAGE, make_demo
from tests import binaries

PROMPT, EDIT = 'the green digit 3 moves left', 'make the digit red'


def test_a_prompt_becomes_videos_sound_and_a_page_of_them(tmp_path):
  out = tmp_path / 'new' / 'demo'
  done = binaries.finish('demo', f'--prompt={PROMPT}', f'--edit={EDIT}', f'--out={out}')
  told = done.stdout.split()
  assert told[0] == str(out / PAGE) and {path.name for path in out.iterdir()} == {
    path.rpartition('/')[2] for path in told
  }
  sizes = {
    name: probe(out / f'{name}.mp4') for name in ('small', 'large', 'edited', 'edited_large')
  }
  assert {name: (each.frames, each.height, each.width) for name, each in sizes.items()} == {
    'small': (16, 32, 32), 'edited': (16, 32, 32),
    'large': (16, 64, 64), 'edited_large': (16, 64, 64),
  }  # fmt: skip
  assert probe_audio(out / 'large_sound.mp4').seconds == pytest.approx(2, abs=0.1)
  page = (out / PAGE).read_text()
  shown = re.findall(r'src="([^"]+)"', page)
  assert len(shown) == 6 and all((out / name).is_file() for name in shown)
  assert PROMPT in page and EDIT in page
  assert json.loads((out / 'demo.json').read_text())['seed'] == 0


def test_what_nobody_can_make_is_refused(tmp_path):
  with pytest.raises(ConfigError, match="no demo of the world 'digit'; expected digits"):
    make_demo(tmp_path, world='digit')
  (tmp_path / 'file').write_text('')
  done = binaries.run('demo', f'--out={tmp_path}/file')
  assert done.returncode == 3 and 'Traceback' not in done.stderr and 'choose another' in done.stderr
