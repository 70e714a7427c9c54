"""The notebook notebooks/sample.py, run as a script on small runs."""

import pathlib
import re
import runpy
import shutil

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
NOTEBOOK = CHECKOUT / 'notebooks/sample.py'


def test_it_runs_as_a_script(tiny_runs, tmp_path, monkeypatch):
  shutil.copytree(tiny_runs, tmp_path / 'runs/quickstart')
  monkeypatch.chdir(tmp_path)
  names = runpy.run_path(str(NOTEBOOK))
  assert names['clips'].shape == (4, 4, 16, 16, 3)
  assert names['again'].shape == names['clips'].shape
  assert (tmp_path / 'mgjax_show.png').exists()
  assert len(list((tmp_path / 'out/samples').glob('*.mp4'))) == 4


def test_it_is_made_of_cells():
  cells = re.split(r'^# %%', NOTEBOOK.read_text(), flags=re.MULTILINE)[1:]
  markdown = [cell for cell in cells if cell.startswith(' [markdown]\n')]
  assert len(cells) == 2 * len(markdown)  # every cell of code is explained by the one before
  for cell in markdown:
    assert all(line.startswith('#') for line in cell.splitlines()[1:] if line)
