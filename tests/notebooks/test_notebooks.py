"""The notebooks: each .ipynb is its .py with outputs, and each .py runs as a script."""

import json
import os
import pathlib
import re

import pytest

from tests.binaries import python

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((CHECKOUT / 'notebooks').glob('*.py'))
MOST = 500_000  # bytes of an .ipynb
QUICK = ('scaling_law', 'sharding')


def cells(path):
  """The cells of a percent file: (kind, text)."""
  found = []
  for part in re.split(r'^# %%', path.read_text(), flags=re.MULTILINE)[1:]:
    head, _, text = part.partition('\n')
    if head.strip() == '[markdown]':
      text = re.sub(r'^# ?', '', text, flags=re.MULTILINE)
      found.append(('markdown', text.strip()))
    else:
      found.append(('code', text.strip()))
  return found


def notebook(path):
  return json.loads(path.with_suffix('.ipynb').read_text())


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_the_ipynb_is_the_py_has_run_and_explains_and_shows_what_it_does(path):
  made = [(cell['cell_type'], ''.join(cell['source'])) for cell in notebook(path)['cells']]
  written = cells(path)
  first = [cell for cell in made if cell not in written]
  assert [cell for cell in made if cell in written] == written, 'make notebooks'
  assert first[-1][0] == 'code' and 'google.colab' in first[-1][1] and len(first) <= 2
  (kind, title), *rest = written
  assert kind == 'markdown' and title.startswith('# ')
  assert sum(kind == 'markdown' for kind, _ in rest) >= 4

  code = [cell for cell in notebook(path)['cells'] if cell['cell_type'] == 'code']
  assert all(cell['execution_count'] for cell in code if cell['source'])
  outputs = [output for cell in code for output in cell['outputs']]
  assert all(output['output_type'] != 'error' for output in outputs)
  assert any('image/png' in output.get('data', {}) for output in outputs)
  text = path.with_suffix('.ipynb').read_text()
  assert len(text) < MOST
  assert str(CHECKOUT) not in text and '/tmp/' not in text


def run(path, folder):
  """Runs a notebook as `python notebooks/name.py` in a folder that has docs/ and runs/."""
  environment = {**os.environ, 'PYTHONPATH': str(CHECKOUT), 'MPLBACKEND': 'agg'}
  environment.pop('JAX_NUM_CPU_DEVICES', None)  # notebooks say themselves what they need
  environment.pop('JAX_NUMPY_RANK_PROMOTION', None)
  (folder / 'docs').symlink_to(CHECKOUT / 'docs')
  return python(path, cwd=folder, env=environment, timeout=None).stdout


@pytest.mark.parametrize('name', QUICK)
def test_the_short_ones_run(name, tmp_path):
  said = run(CHECKOUT / f'notebooks/{name}.py', tmp_path)
  if name == 'sharding':
    errors = [float(error) for error in re.findall(r'off by ([\d.e-]+)', said)]
    assert len(errors) == 5 and max(errors) < 5e-6
  else:
    assert '6 of 7 losses lie in their intervals' in said


@pytest.mark.slow
@pytest.mark.parametrize(
  'path', [path for path in NOTEBOOKS if path.stem not in QUICK], ids=lambda path: path.stem
)
def test_the_others_run(path, tmp_path):
  said = run(path, tmp_path)
  if path.stem == 'checkpoints':
    assert 'loaded instead: step 150' in said and 'equal bit by bit: True' in said
  elif path.stem == 'flow_matching':
    assert float(re.search(r'last 100 steps: ([\d.]+)', said)[1]) < 1.4
  elif path.stem == 'soundtrack':
    assert (tmp_path / 'out/soundtrack/3.mp4').exists()
