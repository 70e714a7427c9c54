"""The size of mgjax: what a reader pays, tokens and public names, package by package.

Lines, blank lines, docstrings and comments are free. BUDGETS says what a package had when its row
was last set; a change may add SHARE of that, or TOKENS, whichever is more. A change that needs more
sets the row anew, with the reason in its commit message. `python -m tests.test_size` prints the
table.
"""

import ast
import functools
import io
import pathlib
import tokenize
from typing import NamedTuple

import pytest

from tests.test_docs import flags_of_commands

CHECKOUT = pathlib.Path(__file__).parent.parent


class Size(NamedTuple):
  """What a package is: tokens of Python, functions and classes without an underscore, files."""

  tokens: int
  names: int
  files: int = 0


# A package of the first level, or of the second one in these folders.
INSIDE = ('models', 'sections', 'lab', 'apps', 'data', 'training')
BUDGETS = {
  '__init__': (162, 0),
  'api': (698, 6),
  'apps': (8434, 24),
  'apps.pairs': (7805, 16),
  'apps.serving': (26039, 51),
  'apps.weights': (10524, 26),
  'core': (11_100, 97),
  'data': (13903, 62),
  'data.ingest': (19241, 56),
  'data.media': (27799, 111),
  'data.records': (7476, 23),
  'experimental': (5649, 15),
  'flow': (16515, 66),
  'lab.benchmarks': (11041, 43),
  'lab.curation': (39504, 150),
  'lab.evaluation': (55812, 198),
  'lab.language_models': (4650, 9),
  'lab.planning': (38_400, 146),
  'lab.report': (5002, 13),
  'lab.scaling': (22817, 74),
  'lab.statistics': (4076, 23),
  'lab.worlds': (61920, 207),
  'models.backbone': (3301, 7),
  'models.clip': (5568, 16),
  'models.codec': (9347, 46),
  # With room for both files of docs/how_to/add_a_conditioning.md.
  'models.conditioning': (11_600, 34),
  'models.flow_model': (11964, 54),
  'models.foreign_weights': (8209, 32),
  'models.tae': (20724, 69),
  'models.text': (8080, 38),
  'models.wan': (3_700, 8),
  'moved': (826, 2),
  'nn': (22168, 86),
  'parallel': (11436, 61),
  'registry': (879, 7),
  'sections.audio': (13644, 31),
  'sections.autoencoder': (2576, 6),
  'sections.clip': (2585, 7),
  'sections.codec': (1083, 4),
  'sections.editing': (7159, 22),
  'sections.flow': (14263, 27),
  'sections.personalization': (2498, 7),
  'sections.text': (4365, 20),
  'sections.upsampler': (8677, 25),
  'sections.video': (6244, 13),
  'training': (12226, 60),
  'training.checkpoints': (18641, 83),
  'training.monitoring': (9430, 36),
  'training.optimizers': (3208, 21),
}
SHARE, TOKENS, NAMES = 0.03, 600, 5  # what may be added to a row
SHARE_OF_ALL = 0.01  # and to all rows together, so that a change of one is not the last one
OTHERS = Size(12_000, 60)  # of a package without a row, such as a section of yours
MOST_COMMANDS, MOST_FLAG_NAMES, MOST_FLAGS = 14, 145, 232
MOST_PACKED = 10  # `a, b = x, y` in a thousand lines of code
COUNTED = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
# An f-string is one token in Python 3.11, and many from 3.12 on; here it is one.
DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
F_START, F_END = (getattr(tokenize, f'FSTRING_{name}', None) for name in ('START', 'END'))


class Source(NamedTuple):
  """What a source is: names, operators, numbers and strings, without docstrings; lines of these."""

  tokens: int
  names: int
  lines: int
  packed: int  # assignments of several values to several names


def read(text: str) -> Source:
  tree = ast.parse(text)
  count, depth, lines = 0, 0, set()
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type in COUNTED:
      lines.add(token.start[0])
    if token.type == F_START:
      count += depth == 0
      depth += 1
    elif token.type == F_END:
      depth -= 1
    elif depth == 0:
      count += token.type in COUNTED
  docstrings, packed = 0, 0
  for node in ast.walk(tree):
    if isinstance(node, (ast.Module, *DEFINED)):
      docstrings += ast.get_docstring(node, clean=False) is not None
    sides = isinstance(node, ast.Assign) and (node.targets[0], node.value)
    packed += bool(sides) and all(isinstance(side, ast.Tuple) for side in sides)
  names = sum(isinstance(node, DEFINED) and not node.name.startswith('_') for node in tree.body)
  return Source(count - docstrings, names, len(lines), packed)


@functools.cache  # a process that tests one package reads no other
def read_file(path: pathlib.Path) -> Source:
  return read(path.read_text())


def package_of(path: pathlib.PurePath) -> str:
  """Returns the row of BUDGETS for a file below mgjax/."""
  folders = path.parts[:-1]
  if not folders:
    return path.stem
  if folders[0] in INSIDE:
    return '.'.join(folders[:2]) if folders[1:] else folders[0]
  return folders[0]


def files_of_packages(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Returns the files of each package of the folder mgjax/."""
  found: dict[str, list[pathlib.Path]] = {}
  for path in sorted(root.rglob('*.py')):
    if path.stat().st_size:
      found.setdefault(package_of(path.relative_to(root)), []).append(path)
  return found


def measure(package: str) -> Size:
  """Returns the size of a package of mgjax."""
  sources = [read_file(path) for path in FILES[package]]
  return add(Size(0, 0), *(Size(each.tokens, each.names, 1) for each in sources if each.tokens))


def add(*parts: Size) -> Size:
  """Returns the sum of sizes."""
  return Size(*map(sum, zip(*parts, strict=True)))


def excess(package: str, found: Size) -> list[str]:
  """Returns what a package has too much of, in sentences."""
  most = OTHERS
  if package in BUDGETS:
    row = Size(*BUDGETS[package])
    tokens = row.tokens + max(TOKENS, SHARE * row.tokens)
    most = Size(int(tokens), int(row.names + max(NAMES, SHARE * row.names)))
  limits = zip(('tokens', 'public names'), found, most, strict=False)
  return [f'{package}: {count} {what} of {limit}' for what, count, limit in limits if count > limit]


FILES = files_of_packages(CHECKOUT / 'mgjax')


@pytest.mark.parametrize('package', sorted(FILES))
def test_a_package_keeps_its_budget(package):
  assert not excess(package, measure(package))


def test_the_whole_keeps_its_budget_and_no_row_is_left_over():
  assert set(BUDGETS) <= {package for package in FILES if measure(package).tokens}
  whole = add(*(measure(package) for package in FILES if package in BUDGETS))
  most = most_of_all()
  assert whole.tokens <= most.tokens
  assert whole.names <= most.names


def most_of_all() -> Size:
  rows = add(*(Size(*row) for row in BUDGETS.values()))
  return Size(*(int((1 + SHARE_OF_ALL) * count) for count in rows))


def test_a_change_that_its_package_has_room_for_fits_into_the_whole():
  rows = add(*(Size(*row) for row in BUDGETS.values()))
  for row in BUDGETS.values():
    most = add(rows, Size(int(max(TOKENS, SHARE * row[0])), int(max(NAMES, SHARE * row[1]))))
    assert most.tokens <= most_of_all().tokens and most.names <= most_of_all().names


SNIPPET = '''
"""Free."""
def f(a, *, b=1):  # free
  """Free."""

  text = f'{a!r:>{b}} {f"{b}"}' 'more'
  return (
    text,
    a @ b,
  )
'''


def test_the_counter_counts_tokens_and_neither_layout_nor_docstrings():
  # def f ( a , * , b = 1 ) : | text = f'' 'more' | return ( text , a @ b , )
  assert read(SNIPPET).tokens == 12 + 4 + 9
  assert read(SNIPPET.replace('\n    ', ' ').replace('\n\n', '\n')).tokens == 12 + 4 + 9
  assert read(SNIPPET + 'def _g(): pass\nclass C: pass\nX = 1\n').names == 2


def test_nothing_is_hidden_from_the_formatter():
  paths = [
    path
    for top in ('mgjax', 'launch', 'configs', 'examples', 'tests', 'docs', 'notebooks')
    for path in (CHECKOUT / top).rglob('*.py')
  ]
  assert len(paths) > 500
  texts = {path: path.read_text() for path in paths}
  for path, text in texts.items():
    tokens = tokenize.generate_tokens(io.StringIO(text if 'fmt:' in text else '').readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    assert not any('fmt:' in comment for comment in comments), path


def test_few_assignments_are_packed():
  sources = [read_file(path) for paths in FILES.values() for path in paths]
  packed, lines = sum(each.packed for each in sources), sum(each.lines for each in sources)
  assert 1000 * packed <= MOST_PACKED * lines, f'{packed} in {lines} lines'


def test_few_commands_and_flags():
  flags = flags_of_commands()
  assert len(flags) <= MOST_COMMANDS
  names = {name for each in flags.values() for name in each}
  assert len(names) <= MOST_FLAG_NAMES + NAMES, sorted(names)
  assert sum(map(len, flags.values())) <= MOST_FLAGS + NAMES, flags


if __name__ == '__main__':
  found = {package: size for package in FILES if (size := measure(package)).tokens}
  for package, size in found.items():
    print(f'  {package!r}: ({size.tokens}, {size.names}),  # {size.files} files')
  print('sum', *add(*found.values()))
