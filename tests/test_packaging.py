"""What is installed is what is written down: metadata, exact versions, a complete wheel."""

import ast
import functools
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mgjax
from launch import command_line, moved
from mgjax.apps import doctor

CHECKOUT = pathlib.Path(__file__).parent.parent
TOPS = ('mgjax', 'configs', 'launch')
GROUPS = ('base', 'test', 'dev', 'docs', 'oracle')
OWNERS = functools.cache(importlib.metadata.packages_distributions)
PIN = re.compile(r'[a-z0-9-]+==[0-9][0-9a-z.]*')


@pytest.fixture
def metadata(monkeypatch):
  """The arguments that setup.py gives to setuptools."""
  given = {}
  monkeypatch.chdir(CHECKOUT)
  monkeypatch.setattr(setuptools, 'setup', lambda **arguments: given.update(arguments))
  runpy.run_path('setup.py')
  return given


def pins(group: str) -> dict[str, str]:
  """The versions of one requirements file and of those that it includes, by name."""
  found = {}
  for line in (CHECKOUT / 'requirements' / f'{group}.txt').read_text().splitlines():
    if line.startswith('-r '):
      found |= pins(line.removeprefix('-r ').removesuffix('.txt'))
    elif line and not line.startswith(('#', '--extra-index-url ')):
      assert PIN.fullmatch(line), f'{group}.txt: {line!r} is not name==version in lower case'
      name, version = line.split('==')
      found[name] = version
  return found


@pytest.fixture
def exact_environment():
  """Skips a test of what the exact versions need where others are installed."""
  for name, version in pins('test').items():
    try:
      installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      installed = 'missing'
    if installed != version:
      pytest.skip(f'{name} is {installed}, not the {version} of requirements/test.txt')


def needed_by(requirements: list[str]) -> set[str]:
  """All distributions that the requirements need on this machine, themselves included."""
  seen, waiting = set(), [Requirement(text) for text in requirements]
  while waiting:
    requirement = waiting.pop()
    name, extras = canonicalize_name(requirement.name), requirement.extras | {''}
    if (name, frozenset(extras)) in seen:
      continue
    seen.add((name, frozenset(extras)))
    for text in importlib.metadata.requires(name) or []:
      need = Requirement(text)
      if need.marker is None or any(need.marker.evaluate({'extra': extra}) for extra in extras):
        waiting.append(need)
  return {name for name, _ in seen}


def imports(path: pathlib.Path) -> tuple[set[str], set[str]]:
  """The top-level modules that a file imports: when it is imported itself, and only later."""
  found = set(), set()

  def visit(node: ast.AST, late: bool) -> None:
    late |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if isinstance(node, ast.Import):
      found[late].update(alias.name.split('.')[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
      found[late].add(node.module.split('.')[0])
    for child in ast.iter_child_nodes(node):
      if not isinstance(child, ast.expr):  # an import is a statement
        visit(child, late)

  visit(ast.parse(path.read_text()), False)
  ours = {*sys.stdlib_module_names, *TOPS}
  return found[0] - ours, found[1] - ours


def distributions(modules: set[str]) -> set[str]:
  """The distributions that modules come from; a module that is not installed stands for itself."""
  owners = OWNERS()
  return {canonicalize_name(name) for module in modules for name in owners.get(module, [module])}


def names(requirements: list[str]) -> set[str]:
  return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_metadata_says_name_version_and_python(metadata):
  assert metadata['name'] == 'mgjax'
  assert re.fullmatch(r'\d+\.\d+\.\d+', metadata['version'])
  supported = SpecifierSet(metadata['python_requires'])
  assert [minor for minor in range(9, 16) if f'3.{minor}.0' in supported] == [11, 12, 13]


def test_every_folder_with_code_is_a_package(metadata):
  files = [path for top in TOPS for path in (CHECKOUT / top).rglob('*.py')]
  folders = {'.'.join(path.parent.relative_to(CHECKOUT).parts) for path in files}
  folders = {name if name.startswith('mgjax') else f'mgjax.{name}' for name in folders}
  assert folders <= set(metadata['packages']), 'an __init__.py is missing'


@pytest.mark.parametrize('group', GROUPS)
def test_requirements_are_exact(group):
  assert pins(group)


@pytest.mark.parametrize('group', GROUPS)
def test_exact_versions_are_within_the_ranges_of_setup(metadata, group):
  wanted = metadata['install_requires'] + metadata['extras_require'].get(group, [])
  for requirement in map(Requirement, wanted):
    version = pins(group)[canonicalize_name(requirement.name)]
    assert version in requirement.specifier, f'{requirement} against {group}.txt: {version}'


@pytest.mark.usefixtures('exact_environment')
def test_base_holds_what_mgjax_needs_and_nothing_else(metadata):
  assert set(pins('base')) == needed_by(metadata['install_requires']) | {'setuptools'}


@pytest.mark.usefixtures('exact_environment')
def test_test_holds_what_tests_need_and_nothing_else(metadata):
  wanted = needed_by(metadata['install_requires'] + metadata['extras_require']['test'])
  assert set(pins('test')) == wanted | {'setuptools'}


def test_every_extra_has_a_purpose(metadata):
  assert set(doctor.PURPOSES) == set(metadata['extras_require'])


# A folder that is imported with an extra alone, after a question whether it is there.
WHOLE_WITH = {'mgjax/apps/serving/videos': 'serve'}


def test_every_import_is_declared(metadata):
  required = names(metadata['install_requires'])
  groups = metadata['extras_require'].items()
  ours = (texts for group, texts in groups if group not in ('test', 'oracle', 'dev', 'docs'))
  optional = names([*itertools.chain(*ours)])
  for top in TOPS:
    for path in (CHECKOUT / top).rglob('*.py'):
      at_once, later = map(distributions, imports(path))
      extra = WHOLE_WITH.get(path.parent.relative_to(CHECKOUT).as_posix())
      at_once -= names(metadata['extras_require'][extra]) if extra else set()
      assert at_once <= required, f'{path}: declare {at_once - required} in install_requires'
      undeclared = later - required - optional
      assert not undeclared, f'{path}: declare {undeclared} in setup.py'


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """A folder into which the wheel was installed, as pip would into an environment."""
  folder = tmp_path_factory.mktemp('wheel')
  source, site = folder / 'source', folder / 'site'
  skip = shutil.ignore_patterns('.*', '__pycache__', 'build', 'dist', '*.egg-info', 'runs')
  shutil.copytree(CHECKOUT, source, ignore=skip)
  pip = (sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check')
  build = ('wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', folder, source)
  subprocess.run([*pip, *build], check=True, cwd=folder)
  (wheel,) = folder.glob('*.whl')
  subprocess.run([*pip, 'install', '--no-deps', '--target', site, wheel], check=True, cwd=folder)
  return site


def outside(site, *command):
  """Runs a command where no checkout is to be seen; its standard output."""
  environment = {**os.environ, 'PYTHONPATH': str(site), 'PYTHONSAFEPATH': '1'}
  words = [str(word) for word in command]
  done = subprocess.run(words, cwd=site.parent, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
def test_a_wheel_brings_mgjax_alone_with_binaries_and_configurations(installed):
  assert {path.name for path in installed.iterdir()} - {'bin'} == {
    'mgjax',
    *(path.name for path in installed.glob('*.dist-info')),
  }
  modules = {
    '.'.join(path.relative_to(installed).with_suffix('').parts).removesuffix('.__init__')
    for path in (installed / 'mgjax').rglob('*.py')
  }
  in_checkout = {path for top in TOPS for path in (CHECKOUT / top).rglob('*.py')}
  assert len(modules) == len(in_checkout)
  code = f"""
import importlib
for name in {sorted(modules)!r}:
  if not name.startswith('mgjax.launch.'):  # their flags have the same names
    module = importlib.import_module(name)
    assert module.__file__.startswith({str(installed)!r}), module.__file__
"""
  outside(installed, sys.executable, '-c', code)
  for path in (CHECKOUT / 'mgjax').rglob('*'):
    if path.suffix in ('.html', '.css', '.js'):
      assert (installed / path.relative_to(CHECKOUT)).exists(), f'{path} is not in package_data'


@pytest.mark.slow
def test_console_commands_find_configurations_by_name(installed):
  binaries = {f'mgjax-{name}' for name in (*command_line.binaries(), *moved.MOVED)}
  assert {path.name for path in (installed / 'bin').iterdir()} == {'mgjax', *binaries}
  for words in (['mgjax', 'doctor'], ['mgjax-doctor']):
    program = installed / 'bin' / words[0]
    told = outside(installed, sys.executable, program, *words[1:], '--help')
    assert '--workdir' in told
  train = installed / 'bin' / 'mgjax-train'
  assert 'python -m launch.train' in outside(installed, sys.executable, train, '--help')
  arguments = ('--config=video/t2iv_256:30b', '--print_config')
  config = json.loads(outside(installed, sys.executable, train, *arguments))
  assert config['model']['dim'] == 6144


@pytest.mark.slow
def test_the_readme_works_from_a_wheel_alone(installed):
  (code,) = re.findall(r'^```python\n(.*?)^```$', (CHECKOUT / 'README.md').read_text(), re.M | re.S)
  outside(installed, sys.executable, '-c', code)
  assert list((installed.parent / 'out').glob('clips*'))
  program = installed / 'bin' / 'mgjax'
  outside(installed, sys.executable, program, 'demo', '--world=digits', '--out=demo')
  assert (installed.parent / 'demo/index.html').read_text().count('<video') == 5
  assert mgjax.__version__ in outside(installed, sys.executable, program, '--version')


def test_importing_mgjax_imports_no_jax():
  code = "import sys, mgjax; assert not {'jax', 'numpy', 'flax'} & set(sys.modules); mgjax.flow"
  subprocess.run([sys.executable, '-c', code], check=True, cwd=CHECKOUT)
