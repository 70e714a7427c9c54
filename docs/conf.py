"""Settings of Sphinx for the documentation site; `make docs` builds it into docs/_build/html.

Sphinx reads the Markdown files as they are, so what is not Markdown stands here: the lists of
links of docs/index.md become the side bar, paths of code become links to the reference, and the
reference is made from the docstrings, a page a folder of mgjax/, and docs/reference/commands.md
from what commands say of themselves.
"""

import pathlib
import re
import subprocess
import sys

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.ext.autodoc._dynamic import _signatures
from sphinx.transforms import SphinxTransform

CHECKOUT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(CHECKOUT))

import mgjax  # noqa: E402

project = 'mgjax'
author = 'the authors of mgjax'
version = release = mgjax.__version__
extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
  'sphinx_copybutton',
]
root_doc = 'docs/index'
include_patterns = [
  'docs/**',
  'notebooks/*.ipynb',
  'CONTRIBUTING.md',
  'mgjax/weights/**/README.md',
]
exclude_patterns = ['docs/_build', '**.ipynb_checkpoints']

smartquotes = False  # two dashes are a flag
highlight_language = 'none'  # of blocks that name none: what commands print
nb_execution_mode = 'off'  # notebooks come with their outputs, by `make notebooks`
myst_heading_anchors = 4
myst_enable_extensions = ['dollarmath']
suppress_warnings = ['ref.python']  # a field called bytes makes the type of that name ambiguous

toc_object_entries = False  # hundreds a page
autodoc_inherit_docstrings = False  # those of Flax are markup of another kind
autodoc_member_order = 'bysource'
autodoc_mock_imports = ['dbos', 'python_multipart', 'starlette', 'uvicorn']  # of the extra serve
autodoc_preserve_defaults = True
autodoc_typehints_format = 'short'
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # or every field of a dataclass would be described twice

html_theme = 'sphinx_book_theme'
html_title = f'mgjax {version}'
html_theme_options = {'show_navbar_depth': 1, 'use_download_button': False, 'navbar_persistent': []}
html_context = {'default_mode': 'auto'}  # light or dark, as the reader's system
html_math_renderer = 'mathml'  # of `show_formula`
html_favicon = 'images/favicon.svg'
html_show_sourcelink = html_copy_source = False


class CodeLinks(SphinxTransform):
  """Leads from every path of code, `mgjax/flow/path.py`, to that module in the reference."""

  default_priority = 400  # before links to files are collected as downloads

  def apply(self):
    for node in [*self.document.findall(addnodes.download_reference)]:
      if module := _module(self._from_root(node['reftarget'])):
        node.replace_self(_link(module, *node.children))
    for node in [*self.document.findall(nodes.literal)]:
      if not _inside_a_link(node) and (module := _module(node.astext())):
        node.replace_self(_link(module, node.deepcopy()))

  def _from_root(self, target):
    return self.env.relfn2path(target.partition('#')[0], self.env.docname)[0]


def _module(path):
  """The module at a path from the root of the checkout, or None."""
  found = CHECKOUT / path
  inside = re.fullmatch(r'mgjax(/\w+)+(\.py)?/?', path)
  if not inside or not (found.is_file() or (found / '__init__.py').exists()):
    return None  # mgjax/weights holds no code
  return path.strip('/').removesuffix('.py').removesuffix('/__init__').replace('/', '.')


def _inside_a_link(node):
  while node := node.parent:
    if isinstance(node, nodes.reference | addnodes.pending_xref | nodes.title):
      return True
  return False


def _link(module, *children):
  options = {'refdomain': 'py', 'reftype': 'mod', 'reftarget': module, 'refexplicit': True}
  return addnodes.pending_xref('', *children, **options, refwarn=True)


def prepare(app, name, source):
  """Makes a toctree of every list of the first page, and text of links to folders."""
  text = source[0]
  if name == root_doc:
    sections = re.split(r'^## ', text, flags=re.MULTILINE)
    for number, section in enumerate(sections[1:], 1):
      pages = re.findall(r'^- .*?\]\((?!http)([^)#]+)\)', section, re.MULTILINE)
      pages = [page + '*' * page.endswith('/') for page in pages if not page.endswith('.py')]
      lines = ['```{toctree}', f':caption: {section.splitlines()[0]}', ':hidden:', ':glob:', *pages]
      sections[number] += '\n'.join(['', *lines, '```', '', ''])
    text = '## '.join(sections)
  if name == 'docs/reference/commands':
    text += ''.join(map(_help, sorted((CHECKOUT / 'launch').glob('*.py'))))
  if name == 'docs/reference/python':
    text += '\n```{toctree}\n:maxdepth: 1\n:glob:\n\n../api/*\n```\n'
  source[0] = re.sub(r'\[([^]]+)\]\([^)]+/\)', r'\1', text)


def _help(path):
  """A section with what a command says of itself; '' of a module that is none."""
  if '__main__' not in path.read_text():
    return ''
  command = f'launch.{path.stem}'
  asked = [sys.executable, '-m', command, '--help']
  said = subprocess.run(asked, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
  return f'\n## {command}\n\n```text\n{said.strip()}\n```\n'


def write_reference(app):
  """Writes docs/api/, a page a folder of mgjax/ with all of its modules."""
  folder = CHECKOUT / 'docs/api'
  folder.mkdir(exist_ok=True)
  pages = set()
  for package in sorted((CHECKOUT / 'mgjax').rglob('__init__.py')):
    modules = [package.parent, *sorted(package.parent.glob('[!_]*.py'))]
    name = '.'.join(package.parent.relative_to(CHECKOUT).parts)
    text = f'{name}\n{"=" * 80}\n'
    for path in modules:
      module = '.'.join(path.relative_to(CHECKOUT).with_suffix('').parts)
      if path != package.parent:
        text += f'\n{path.name}\n{"-" * 80}\n'
      text += f'\n.. automodule:: {module}\n'
      text += '   :members:\n' if path != package.parent or module == 'mgjax' else ''
    pages.add(folder / f'{name}.rst')
    _write(folder / f'{name}.rst', text)
  for left_over in set(folder.glob('*.rst')) - pages:
    left_over.unlink()


def _write(path, text):
  if not path.exists() or path.read_text() != text:  # or all pages would be built again
    path.write_text(text)


def as_rst(app, what, name, subject, options, lines):
  """Makes reStructuredText of our docstrings: plain text, `code`, formulas that are indented."""
  text = re.sub(r'^Alias for field number \d+$', '', '\n'.join(lines))
  prose, sections = re.split(r'^(?=[A-Z]\w+:$)|\Z', text, maxsplit=1, flags=re.MULTILINE)
  parts = re.split(r'(^- .*(?:\n  .*)*|(?:^ .*(?:\n|\Z))+)', prose, flags=re.MULTILINE)
  made = [f'\n::\n\n{part}\n' if part.startswith(' ') else _inline(part) for part in parts]
  lines[:] = [*''.join(made).split('\n'), *_inline(sections).split('\n')]


def shorten(app, what, name, subject, options, signature, returned):
  """Writes types as the code does: `Float[Array, 'b n d']`."""
  return tuple(
    text and re.sub(r'jaxlib\._jax\.(?=Array)|numpy\.(?=ndarray)', '', text)
    for text in (signature, returned)
  )


_read_defaults = _signatures.update_default_value


def read_defaults(subject, bound_method):
  """Reads defaults as the source has them, but of functions that name their own signature.

  Sphinx counts the defaults of the source, and the pipelines' methods have further arguments.
  """
  if not hasattr(subject, '__signature__'):
    _read_defaults(subject, bound_method)


def _inline(text):
  def mark(found):
    code, other = found.groups()
    return rf'\ ``{code}``\ ' if code else f'\\{other}'

  return re.sub(r'`([^`]+)`|([*|`\\]|(?<=\w)_(?!\w))', mark, text)


def show_formula(translator, node):
  """Writes a formula as MathML, which browsers show without a script."""
  translator.body.append(tex2mathml(node.astext(), isinstance(node, nodes.math_block)))
  raise nodes.SkipNode


def lead_from_the_root(app, exception):
  """Lets `html/index.html` lead to the first page."""
  if exception is None and app.builder.name == 'html':
    to = '<meta http-equiv="refresh" content="0; url=docs/index.html">'
    (pathlib.Path(app.outdir) / 'index.html').write_text(to)


def setup(app):
  _signatures.update_default_value = read_defaults
  app.add_transform(CodeLinks)
  app.add_html_math_renderer('mathml', (show_formula, None), (show_formula, None))
  app.connect('builder-inited', write_reference)
  app.connect('source-read', prepare)
  app.connect('autodoc-process-docstring', as_rst, priority=100)  # before napoleon
  app.connect('autodoc-process-signature', shorten)
  app.connect('build-finished', lead_from_the_root)
