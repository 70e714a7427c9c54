"""What the documents say exists: files, links, sections, sizes, commands with their flags."""

import ast
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from configs.video.sizes import SIZES
from launch import command_line
from mgjax.core.configuration.config_files import load_config
from mgjax.core.configuration.keys import flatten

CHECKOUT = pathlib.Path(__file__).parent.parent
DOCUMENTS = sorted(
  [
    *(CHECKOUT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
    *(path for path in (CHECKOUT / 'docs').rglob('*.md') if '_build' not in path.parts),
  ]
)
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# Files that every section has are spoken of without their folder.
OF_A_SECTION = ('section.py', 'settings.py', 'pipeline.py', 'requests.py', 'files.py')
SPAN = re.compile(r'`([^`\n]+)`')
LINK = re.compile(r'\]\(([^)\s]+)\)')
OURS = re.compile(r'(mgjax|launch|configs|tests|docs|requirements)/[\w./-]*|[\w./-]+\.(py|md)')
COMMAND = re.compile(r'python -m (launch\.\w+)([^\n`]*)')
MADE = re.compile(r'make (?!(?:the|it) )(\w+)((?: [A-Z]+=\S+)*)')  # not what editors are told
CITATION = re.compile(r'§\d[\d.]*\d|§\d|Table \d+')

# Asks every binary for its flags in one process, taking each binary's away before the next.
ASK = """
import importlib, json, sys
from absl import flags
found = {}
for name in sys.argv[1:]:
  module = importlib.import_module(name)
  key = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)}
  found[name] = sorted(key | {'config', 'print_config'} & set(flags.FLAGS))
  for flag in found[name]:
    delattr(flags.FLAGS, flag)
print(json.dumps(found))
"""


def named(path):
  return path.relative_to(CHECKOUT).as_posix()


def prose(text):
  return FENCE.sub('', text)


def written_by(text):
  """The files that a document asks its reader to write: path -> contents."""
  return {title: body for _, title, body in FENCE.findall(text) if title}


def told():
  """Yields (where, text, files to be written) of all that shows commands."""
  for path in DOCUMENTS:
    yield named(path), path.read_text(), written_by(path.read_text())
  for folder in ('configs', 'launch'):
    for path in sorted((CHECKOUT / folder).rglob('*.py')):
      yield named(path), ast.get_docstring(ast.parse(path.read_text())) or '', {}


def commands():
  return [
    pytest.param(module, rest, written, id=f'{where}: {module}{rest}')
    for where, text, written in told()
    for module, rest in COMMAND.findall(re.sub(r'\\\n\s*', ' ', text))
  ]


def flags_of_commands():
  """The flags of each command: module -> names."""
  modules = [f'launch.{name}' for name in command_line.binaries()]
  asked = [sys.executable, '-c', ASK, *modules]
  return json.loads(subprocess.check_output(asked, cwd=CHECKOUT, text=True).splitlines()[-1])


@pytest.fixture(scope='module')
def flags():
  return flags_of_commands()


def test_there_are_documents_and_commands():
  assert len(DOCUMENTS) > 5
  assert len(commands()) > 10


@pytest.mark.parametrize('document', DOCUMENTS, ids=named)
def test_paths_exist(document):
  text = document.read_text()
  written = written_by(text)
  for span in SPAN.findall(prose(text)):
    if OURS.fullmatch(span) and span not in (*written, *OF_A_SECTION):
      assert (CHECKOUT / span).exists(), f'{named(document)} speaks of {span}'


@pytest.mark.parametrize('document', DOCUMENTS, ids=named)
def test_links_resolve(document):
  for link in LINK.findall(prose(document.read_text())):
    if not re.match(r'https?:', link):
      target = document.parent / link.partition('#')[0]
      assert target.exists(), f'{named(document)} links to {link}'


@pytest.mark.parametrize(('module', 'rest', 'written'), commands())
def test_commands_would_run(module, rest, written, flags, tmp_path, monkeypatch):
  assert module in flags, f'there is no {module}'
  given = [word[2:].partition('=')[::2] for word in shlex.split(rest) if word.startswith('--')]
  known = set()
  if config := dict(given).get('config'):
    path, colon, argument = config.partition(':')
    if path in written:
      monkeypatch.syspath_prepend(CHECKOUT)
      (tmp_path / 'written.py').write_text(written[path])
      path = str(tmp_path / 'written.py')
    known = set(flatten(load_config(f'{path}{colon}{argument}').to_dict()))
  for name, value in given:
    if name.startswith('config.'):
      assert name.removeprefix('config.') in known, f'{config} has no {name}'
    else:
      assert name in flags[module], f'{module} has no --{name}'
    if value.startswith('tests/'):
      assert (CHECKOUT / value).exists(), f'there is no {value}'


@pytest.mark.parametrize('document', DOCUMENTS, ids=named)
def test_make_has_what_it_is_asked_for(document):
  makefile = (CHECKOUT / 'Makefile').read_text()
  text = document.read_text()
  code = [body for _, title, body in FENCE.findall(text) if not title] + SPAN.findall(prose(text))
  for target, variables in MADE.findall('\n'.join(code)):
    assert re.search(rf'^{target}:', makefile, re.MULTILINE), f'make {target}'
    for variable in re.findall(r'([A-Z]+)=', variables):
      assert f'$({variable})' in makefile, f'make {target} {variable}='


def rows():
  """The rows of the map that name a section: (sections, file)."""
  for line in (CHECKOUT / 'docs/reference/map.md').read_text().splitlines():
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    if len(cells) == 5 and CITATION.match(cells[0]):
      yield cells[0], cells[2].strip('`')


def test_what_cites_the_paper_is_on_the_map():
  mapped = {file for _, file in rows()}
  for path in (CHECKOUT / 'mgjax').rglob('*.py'):
    if path.name != '__init__.py' and CITATION.search(path.read_text()):
      assert named(path) in mapped, (
        f'{named(path)} cites the paper and is not in docs/reference/map.md'
      )


def test_what_is_on_the_map_cites_the_paper():
  for section, file in rows():
    cited = CITATION.findall((CHECKOUT / file).read_text())
    assert section in cited, (
      f'docs/reference/map.md has {file} under {section}; the file cites {set(cited)}'
    )


def test_sizes_are_those_of_the_golden_files():
  guide = (CHECKOUT / 'docs/reference/model_variants.md').read_text()
  for name, sizes in SIZES.items():
    row = re.search(rf'^\| `{name}` \|(.*)\|$', guide, re.MULTILINE)[1].replace(',', '').split('|')
    assert [int(cell) for cell in row] == [*sizes.values(), golden_total(name)], name
  assert f'{golden_total("tae"):,}' in guide


def golden_total(name):
  text = (CHECKOUT / f'tests/golden/parameters_{name}.txt').read_text()
  return int(re.search(r'^total\s+([\d,]+)$', text, re.MULTILINE)[1].replace(',', ''))
