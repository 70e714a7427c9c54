"""The examples of docs/how_to/use_from_python.md, run in their order."""

import pathlib
import re
import shutil

import numpy as np
import pytest

import mgjax
from mgjax.models.conditioning import kinds
from tests import tiny

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/how_to/use_from_python.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
SLOW = ("mgjax.load('runs/sound/", 'mgjax.evaluate(', 'run_sweep(')  # what takes many seconds
# As the runs that the page loads, and nothing in between.
SMALL = tiny.VIDEO | {
  'train.save_every': 8,
  'train.evaluate_every': 8,
  'train.validation_batches': 0,
}


@pytest.fixture
def place(tiny_runs, tiny_sound_runs, tmp_path, monkeypatch):
  """A working directory with the runs that the page loads, small ones, and small configurations."""
  for runs, name in ((tiny_runs, 'quickstart'), (tiny_sound_runs, 'sound')):
    shutil.copytree(runs, tmp_path / 'runs' / name)
  monkeypatch.chdir(tmp_path)
  real = mgjax.config
  monkeypatch.setattr(mgjax, 'config', lambda name, **changes: real(name, **(changes | SMALL)))
  yield tmp_path
  kinds._registered.pop('digit_label', None)


def run(blocks):
  names = {}
  for number, block in enumerate(blocks):
    exec(compile(block, f'docs/how_to/use_from_python.md, block {number}', 'exec'), names)
  return names


@pytest.mark.slow
def test_the_examples_run(place):
  names = run(BLOCKS)
  assert names['again'].shape == names['sounds'].shape
  written = {path.relative_to(place).as_posix() for path in place.rglob('*')}
  assert [len(row['scores']['colour']) for row in names['read_rows']('runs/rates')] == [2] * 6
  assert {'out/sounds/0000.wav', 'out/again/samples.json', 'runs/deeper/evaluation.json'} <= written


def test_the_quick_examples_run(place):
  names = run(block for block in BLOCKS if not any(word in block for word in SLOW))
  assert names['clips'].shape == (2, 4, 16, 16, 3)
  assert names['frames'].shape == (2, 4, 16, 16, 3)
  np.testing.assert_allclose(names['x'], 3, rtol=1e-5)
  for file in ('mgjax_show.png', 'out/clips/0001.mp4', 'out/clips/sheet.png', 'runs/deeper'):
    assert (place / file).exists(), file


def test_every_part_of_the_front_door_is_shown():
  code = '\n'.join(BLOCKS)
  for name in ('load', 'config', 'train', 'evaluate', 'plan', 'save', 'show'):
    assert f'mgjax.{name}(' in code
