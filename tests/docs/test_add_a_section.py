"""The exercise of docs/how_to/add_a_section.md, done as it is written."""

import math
import pathlib
import re
import shutil

import pytest

from tests import tiny
from tests.binaries import python, start, succeeded

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/how_to/add_a_section.md').read_text()
BLOCKS = re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
FILES = {title: body for title, body in BLOCKS if title}
COPIED = (
  '.ci',
  'mgjax',
  'launch',
  'configs',
  'tests',
  'docs',
  'notebooks',
  'examples',
  'requirements',
  'pyproject.toml',
  'setup.py',
  'Makefile',
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'CITATION.cff',
  'LICENSE',
)
ROW, LOOK = [body for title, body in BLOCKS if not title]
COMMANDS = re.findall(r'^python -m (launch.+)$', TEXT, re.MULTILINE)
# Tests of the whole tree, which a new section must pass as it is.
TESTS = (
  'test_architecture.py',
  'test_registry.py',
  'test_size.py',
  'test_docs.py',
  'docs/test_architecture_page.py',
  'docs/test_site.py',
)
# Beside what the exercise says: a model and a run that are small enough for a test.
SMALL = {
  'model.dim': 16,
  'model.depth': 1,
  'model.heads': 2,
  'model.mlp_dim': 32,
  'sample.steps': 2,
  'buckets.image.batch_size': 8,
  'data.threads': 1,
  'optimizer.warmup': 1,
  'train.steps': 3,
  'train.log_every': 1,
  'train.validation_batches': 1,
}


# After what the exercise looks at: what it is, of this copy of mgjax.
LOOKED = """
import pathlib
import numpy as np
assert pathlib.Path(mgjax.__file__).is_relative_to(pathlib.Path.cwd())
assert images.shape == (40, 1, 16, 16, 3) and images.dtype == np.uint8
np.testing.assert_array_equal(digits.generate(2, first=3), images[3:5])
assert pathlib.Path('out/sheet.png') in digits.save('out', 2)
"""


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
  """A copy of the checkout with the files and the row of the exercise, and no other change."""
  folder = tmp_path_factory.mktemp('copy')

  skip = shutil.ignore_patterns('__pycache__', '_build')
  for name in COPIED:
    if (CHECKOUT / name).is_dir():
      shutil.copytree(CHECKOUT / name, folder / name, ignore=skip)
    else:
      shutil.copy(CHECKOUT / name, folder / name)
  for path in (folder / 'tests').rglob('test_*.py'):  # which no section changes; pages name them
    if path.relative_to(folder / 'tests').as_posix() not in TESTS:
      path.write_text('def test_nothing():\n  pass\n')
  for title, body in FILES.items():
    (folder / title).parent.mkdir(parents=True, exist_ok=True)
    (folder / title).write_text(body)
  registry = folder / 'mgjax/registry.py'
  registry.write_text(
    registry.read_text().replace('COMPONENTS = {\n', f'COMPONENTS = {{\n{ROW}', 1)
  )
  return folder


def run(copy, module, *arguments):
  """Runs a module of the copy; returns what it printed."""
  return succeeded(start(module, *arguments, timeout=280, checkout=copy)[0]).stdout


def test_the_exercise_names_every_file_that_it_asks_for():
  assert sorted(FILES) == [
    'configs/digits/tiny_digits.py',
    'mgjax/sections/tiny_digits/__init__.py',
    'mgjax/sections/tiny_digits/pipeline.py',
    'mgjax/sections/tiny_digits/section.py',
  ]
  for title in FILES:
    assert f'`{title}`' in TEXT


def test_with_the_folder_and_the_row_nothing_else_changes(copy):
  tests = [f'tests/{each}' for each in TESTS]
  others = 'not commands_would_run and not test_rule'  # of other sections and of other trees
  options = ('-v', '-p', 'no:cacheprovider', '-k', others)
  told = python('-m', 'pytest', *options, *tests, cwd=copy).stdout
  assert 'test_what_a_row_names_is_there[tiny_digits] PASSED' in told
  assert 'test_a_package_keeps_its_budget[sections.tiny_digits] PASSED' in told


def test_its_commands_count_the_parameters_train_and_sample(copy):
  dry, train = (command.split() for command in COMMANDS[-2:])
  total = re.search(r'counts ([\d,]+) parameters', TEXT)[1]
  assert re.search(rf'^total\s+{total}\s', run(copy, *dry), re.MULTILINE)
  run(copy, *train, *(f'--config.{name}={value}' for name, value in SMALL.items()))
  losses = [row['loss'] for row in tiny.metrics(copy / 'runs/tiny_digits') if 'loss' in row]
  assert len(losses) == 3
  assert all(map(math.isfinite, losses))
  (copy / 'look.py').write_text(LOOK + LOOKED)
  run(copy, 'look')
  assert (copy / 'runs/tiny_digits/digits.png').exists()


def test_a_plan_of_it_asks_for_the_sizes_of_its_samples(copy):
  words = ('--config=configs/digits/tiny_digits.py', '--topology=v5p:1x1x1')
  done, _ = start('launch.plan', *words, timeout=280, checkout=copy)
  assert done.returncode == 2
  assert 'outline of this section has no sizes of samples' in done.stderr
