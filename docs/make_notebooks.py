"""Makes the .ipynb of every notebook, with its outputs, for GitHub, Colab and the documentation.

python docs/make_notebooks.py
python docs/make_notebooks.py notebooks/flow_matching.py

The sources are notebooks/*.py, in jupytext's percent format. Two cells are put before theirs: a
badge that opens the notebook in Colab, and what Colab needs before anything else.
"""

import base64
import io
import os
import pathlib
import re
import sys

CHECKOUT = pathlib.Path(__file__).parent.parent
# Where people find this repository, as https://github.com/OWNER/NAME; '' while that is not known.
REPOSITORY = ''
BRANCH = 'main'

BADGE = (
  '[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]'
  '(https://colab.research.google.com/github/{name}/blob/{branch}/notebooks/{notebook}.ipynb)'
)
FIRST = """\
# Run this first. In Colab it installs mgjax; elsewhere it goes to the root of the checkout.
import os
import sys

REPOSITORY = '{repository}'
if 'google.colab' in sys.modules and not os.path.exists('mgjax'):
  !git clone --quiet --depth=1 {{REPOSITORY}} checkout && pip install --quiet './checkout[plots]'
  os.chdir('checkout')
elif os.path.basename(os.getcwd()) == 'notebooks':
  os.chdir('..')"""


def sources() -> list[pathlib.Path]:
  """Returns the notebooks, as jupytext's .py."""
  return sorted((CHECKOUT / 'notebooks').glob('*.py'))


def read(path: pathlib.Path):
  """Reads a .py as a notebook without outputs, the first cells included."""
  import jupytext
  from nbformat.v4 import new_code_cell, new_markdown_cell

  notebook = jupytext.read(path)
  first = [new_code_cell(FIRST.format(repository=REPOSITORY or 'URL of this repository'))]
  if REPOSITORY:
    name = REPOSITORY.removeprefix('https://github.com/')
    badge = BADGE.format(name=name, branch=BRANCH, notebook=path.stem)
    first.insert(0, new_markdown_cell(badge))
  # Below the title, which is that of a page of the documentation.
  notebook.cells[1:1] = first
  for number, cell in enumerate(notebook.cells):
    cell.id = f'cell-{number}'
  notebook.metadata = {
    'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
  }
  return notebook


def run(notebook, folder: pathlib.Path, seconds: int = 900):
  """Runs all cells in a folder, and leaves their outputs in them."""
  from nbclient import NotebookClient

  client = NotebookClient(
    notebook,
    timeout=seconds,
    kernel_name='python3',
    coalesce_streams=True,
    resources={'metadata': {'path': str(folder)}},
  )
  # JAX says on stderr what other devices it has looked for.
  client.execute(env=os.environ | {'PYTHONPATH': str(CHECKOUT), 'JAX_PLATFORMS': 'cpu'})
  for cell in notebook.cells:
    if cell.cell_type != 'code':
      continue
    cell.metadata.pop('execution', None)  # times, which would make every run a change
    # Progress and what libraries say of this machine; no page needs it.
    cell.outputs = [each for each in cell.get('outputs', ()) if each.get('name') != 'stderr']
    for output in cell.outputs:
      if 'text' in output:
        output['text'] = output['text'].replace(f'{folder}/', '')
      if picture := output.get('data', {}).get('image/png'):
        output['data']['image/png'] = _smaller(picture)
      if 'image/webp' in (page := output.get('data', {}).get('text/html', '')):
        output['data']['text/html'] = re.sub(r'(?<=base64,)[^"]+', _smaller_animation, page)


def _smaller(picture: str) -> str:
  """Returns a PNG, in base64, with 256 colours, a third of its size."""
  from PIL import Image

  buffer = io.BytesIO()
  image = Image.open(io.BytesIO(base64.b64decode(picture))).convert('RGB')
  image.quantize(256, dither=Image.Dither.NONE).save(buffer, 'PNG', optimize=True)
  return min(picture, base64.b64encode(buffer.getvalue()).decode(), key=len)


def _smaller_animation(found: re.Match[str]) -> str:
  """Returns a WebP, in base64, compressed with loss."""
  from PIL import Image, ImageSequence

  image, buffer = Image.open(io.BytesIO(base64.b64decode(found[0]))), io.BytesIO()
  pages, ends = [], []
  for page in ImageSequence.Iterator(image):
    pages.append(page.convert('RGB'))
    ends.append(page.info['duration'])
  pages[0].save(
    buffer,
    'WEBP',
    save_all=True,
    append_images=pages[1:],
    duration=ends,
    loop=0,
    quality=50,
    method=6,
  )
  return min(found[0], base64.b64encode(buffer.getvalue()).decode(), key=len)


def main(arguments: list[str]) -> None:
  import nbformat

  for path in [CHECKOUT / name for name in arguments] or sources():
    notebook = read(path)
    run(notebook, CHECKOUT)
    nbformat.write(notebook, path.with_suffix('.ipynb'))
    print(f'{path.with_suffix(".ipynb").name}: {path.with_suffix(".ipynb").stat().st_size:,} bytes')


if __name__ == '__main__':
  main(sys.argv[1:])
