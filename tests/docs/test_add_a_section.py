"""The exercise of docs/add_a_section.md, done as it is written."""

import math
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import configs.digits
import mgjax
from mgjax import registry
from mgjax.core.config_files import load_config
from tests import tiny

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/add_a_section.md').read_text()
BLOCKS = re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
FILES = {title: body for title, body in BLOCKS if title}
COPIED = (
  'mgjax', 'launch', 'configs', 'tests', 'docs', 'notebooks', 'pyproject.toml', 'README.md',
  'CONTRIBUTING.md', 'CHANGELOG.md', 'Makefile', 'setup.py',
)  # fmt: skip
ROW, LOOK = [body for title, body in BLOCKS if not title]
# Beside what the exercise says: a model and a run that are small enough for a test.
SMALL = {
  'model.dim': 16,
  'model.depth': 1,
  'model.heads': 2,
  'model.mlp_dim': 32,
  'buckets.image.batch_size': 8,
  'data.threads': 1,
  'optimizer.warmup': 1,
  'train.steps': 3,
  'train.log_every': 1,
  'train.validation_batches': 1,
  'sample.steps': 2,
}


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """The folder with the written files, which can be imported, and the row in the registry."""
  folder = tmp_path_factory.mktemp('written')
  with pytest.MonkeyPatch.context() as patch:
    for title, body in FILES.items():
      (folder / title).parent.mkdir(parents=True, exist_ok=True)
      (folder / title).write_text(body)
    patch.setattr(mgjax, '__path__', [*mgjax.__path__, str(folder / 'mgjax')])
    place = str(folder / 'configs/digits')
    patch.setattr(configs.digits, '__path__', [*configs.digits.__path__, place])
    for name, row in eval(f'{{{ROW}}}', vars(registry)).items():
      patch.setitem(registry.SECTIONS, name, row)
    yield folder
  for name in [name for name in sys.modules if 'tiny_digits' in name]:
    del sys.modules[name]


def test_the_exercise_names_every_file_that_it_asks_for():
  assert sorted(FILES) == [
    'configs/digits/tiny_digits.py',
    'mgjax/tiny_digits/__init__.py',
    'mgjax/tiny_digits/pipeline.py',
    'mgjax/tiny_digits/task.py',
  ]
  for title in FILES:
    assert f'`{title}`' in TEXT


def test_with_the_folder_and_the_row_nothing_else_changes(tmp_path):
  """The files and the row are really added to a copy, which must pass the tests of the tree."""
  for name in COPIED:
    copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
    copy(CHECKOUT / name, tmp_path / name)
  for title, body in FILES.items():
    (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / title).write_text(body)
  path = tmp_path / 'mgjax/registry.py'
  path.write_text(path.read_text().replace('SECTIONS = {\n', f'SECTIONS = {{\n{ROW}', 1))
  tests = ('tests/test_architecture.py', 'tests/test_registry.py', 'tests/test_size.py')
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *tests]
  command.append('tests/docs/test_architecture_page.py')
  done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout
  assert 'tiny_digits' in path.read_text()


def test_it_trains_and_samples(written, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = load_config(str(written / 'configs/digits/tiny_digits.py'), SMALL)
  workdir = pathlib.Path(re.search(r'--workdir=(\S+)', TEXT)[1])
  mgjax.train(config, workdir)
  losses = [row['loss'] for row in tiny.metrics(workdir) if 'loss' in row]
  assert len(losses) == 3
  assert all(map(math.isfinite, losses))

  exec(compile(LOOK, 'docs/add_a_section.md', 'exec'), names := {})
  assert names['images'].shape == (40, 1, 16, 16, 3)
  assert pathlib.Path('runs/tiny_digits/digits.png').exists()
  pipeline = names['digits']
  np.testing.assert_array_equal(pipeline.generate(2, first=3), names['images'][3:5])
  assert pathlib.Path('out/sheet.png') in pipeline.save('out', 2)


def test_it_counts_its_parameters(written):
  config = load_config(str(written / 'configs/digits/tiny_digits.py'))
  from mgjax.workflows.dry_run import dry_run

  table = dry_run(config, 'runs/nowhere')
  total = re.search(r'counts ([\d,]+) parameters', TEXT)[1]
  assert re.search(rf'^total\s+{total}\s', table, re.MULTILINE)
