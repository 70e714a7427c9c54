"""Which way packages import, and the habits that keep the repository readable.

A rule is a function of a folder that holds `mgjax/`, `launch/`, `configs/` and `tests/`; it returns
what breaks it, each as `path:line: what is wrong`. Every rule is tried on made-up trees as well.
"""

import ast
import collections
import functools
import pathlib
import re
from collections.abc import Iterator

import pytest

CHECKOUT = pathlib.Path(__file__).parent.parent

# A package may import those of earlier lines, never a neighbour on its own line. The picture in
# docs/explanation/architecture.md shows it. Packages with a dot stand on a line of their own, apart
# from the rest of the folder that they are in.
ORDER = (
  ('core', 'moved'),
  ('parallel',),
  ('nn', 'flow'),
  ('data.media', 'models.foreign_weights'),
  ('models.tae', 'models.text'),
  ('models.clip', 'models.codec'),
  ('models.conditioning',),
  ('models.backbone', 'models.wan'),
  ('models.flow_model',),
  ('data', 'training.monitoring'),
  ('training.checkpoints',),
  ('training',),
  ('sections.text', 'sections.autoencoder'),
  ('sections.clip',),
  ('sections.codec', 'sections.flow'),
  ('sections.video', 'sections.audio'),
  ('sections.upsampler', 'sections.personalization', 'sections.editing'),
  ('registry',),
  ('api',),
  ('lab.statistics',),
  ('lab.report', 'lab.worlds', 'lab.language_models'),
  ('lab.evaluation', 'lab.planning'),
  ('lab.curation', 'lab.benchmarks', 'lab.scaling'),
  ('apps',),
  ('experimental',),
)
PACKAGES = [package for line in ORDER for package in line]
ARROWS = {
  package: {lower for line in ORDER[:number] for lower in line}
  for number, line in enumerate(ORDER)
  for package in line
}
# Data and training know no model, whatever it is.
for package in ARROWS:
  if package.partition('.')[0] in ('data', 'training'):
    ARROWS[package] = {lower for lower in ARROWS[package] if not lower.startswith('models.')}
# A section of yours, a folder of sections/ that no line above names, stands beside video. The
# modules of a section know arrays; these files of it alone know data, disks and training.
BESIDE = 'sections.video'
FILES_OF_A_SECTION = ('section', 'settings', 'pipeline', 'files', 'requests', 'lora_files')
OUTSIDE = ('data', 'training')
# The library trains and samples. It imports nothing of what measures, serves or is still tried ...
OUTER = ('lab', 'apps', 'experimental')
# ... and names it in three strings, which are imported when somebody asks.
NAMED_LATE = {
  'mgjax.lab.worlds.rows:ROWS': 'mgjax/data/synthetic_datasets.py',  # rows of mgjax's own datasets
  # Kernels that no TPU has run yet.
  'mgjax.experimental.tpu_attention.forward': 'mgjax/nn/attention.py',
  'mgjax.experimental.tpu_attention.backward': 'mgjax/nn/attention.py',
}
# These stand above both tiers, import inside functions and name by strings.
LAZY = ('registry', 'api')
LIBRARY = ('mgjax',)
PROGRAM = ('mgjax', 'launch', 'configs')
EVERYTHING = (*PROGRAM, 'tests')
LINEN = {
  # What parameters, stacks and shardings need ...
  'Module',
  'compact',
  'scan',
  'remat',
  'broadcast',
  'unbox',
  'meta',
  'PARTITION_NAME',
  'with_logical_partitioning',
  'with_logical_constraint',
  'logical_axis_rules',
  'logical_to_mesh',
  'logical_to_mesh_axes',
  'logical_to_mesh_sharding',
  'get_partition_spec',
  'LogicallyPartitioned',
  # ... and the plain layers.
  'Dense',
  'DenseGeneral',
  'Conv',
  'Embed',
  'LayerNorm',
  'RMSNorm',
  'GroupNorm',
  'Dropout',
}
FLAX = {'flax.struct', 'flax.core.meta', *(f'flax.linen.{name}' for name in LINEN)}
MESHES = {'Mesh', 'make_mesh', 'create_device_mesh', 'create_hybrid_device_mesh'}
FLAGS = ('absl.flags', 'absl.app', 'ml_collections.config_flags')
# Grain reads a flag of its own, so outside absl's `app.run` flags have to count as parsed.
PARSED = (
  'absl.flags',
  *(f'absl.flags.FLAGS{end}' for end in ('', '.is_parsed', '.mark_as_parsed')),
)
VAGUE = {'util', 'utils', 'common', 'helper', 'helpers', 'misc'}
LONGEST = 600
MOST_FILES = 15  # of a folder of mgjax/
# A kind of a configuration, unlike that of a collective or of an entry of an archive.
KIND = r'(\w+\.)*(self|settings|data|captions|stage|suite|noise|world)\.kind'
# Who may take a configuration as it is: who reads, runs, plans or times one.
CONFIGURED = (
  'core',
  'registry',
  'api',
  'apps',
  'lab.planning',
  'lab.benchmarks',
  'lab.scaling',
)
TRAINED = 'mgjax/training/run.py'
ORBAX = 'mgjax/training/checkpoints/orbax_io.py'


def package_of(module: str) -> str | None:
  """The package of a dotted name in mgjax; None of mgjax itself and of everything else."""
  top, *inside = module.split('.')
  if top != 'mgjax' or not inside or inside == ['__init__']:
    return None
  if (dotted := '.'.join(inside[:2])) in PACKAGES or (inside[0] == 'sections' and inside[1:]):
    return dotted
  return inside[0]


class File:
  """One parsed source file."""

  def __init__(self, root: pathlib.Path, path: pathlib.Path):
    self.path = path.relative_to(root)
    self.text = path.read_text()
    self.tree = ast.parse(self.text)
    self.top = self.path.parts[0]
    self.package = package_of('.'.join(self.path.with_suffix('').parts))

  def at(self, node: ast.AST | int, message: str) -> str:
    line = node if isinstance(node, int) else node.lineno
    return f'{self.path.as_posix()}:{line}: {message}'

  @functools.cached_property
  def nodes(self) -> list[ast.AST]:
    return list(ast.walk(self.tree))

  @functools.cached_property
  def imports(self) -> list[tuple[ast.AST, str, str | None]]:
    """Node, absolute dotted name and the local name that it is bound to."""
    return list(self._imports())

  def _imports(self) -> Iterator[tuple[ast.AST, str, str | None]]:
    package = self.path.parts[:-1]
    for node in self.nodes:
      if isinstance(node, ast.Import):
        for alias in node.names:
          yield node, alias.name, alias.asname
      elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = '.'.join((*base, *filter(None, [node.module])))
        for alias in node.names:
          yield node, f'{module}.{alias.name}', alias.asname or alias.name
      elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = dotted(node.func).split('.')[-1]
        if called in ('import_module', '__import__', 'Late', 'Later') and isinstance(
          node.args[0].value, str
        ):
          yield node, node.args[0].value.replace(':', '.'), None

  @functools.cached_property
  def uses(self) -> list[tuple[ast.AST, str]]:
    """Every imported name and every dotted name that starts with one, spelt in full."""
    bound = {}
    for _, name, local in self.imports:
      top = name.split('.')[0]
      bound[local or top] = name if local else top
    found = [(node, name) for node, name, _ in self.imports]
    for node in self.nodes:
      if isinstance(node, ast.Attribute | ast.Name):
        first, *rest = dotted(node).split('.')
        if first in bound:
          found.append((node, '.'.join((bound[first], *rest))))
    return found


def dotted(node: ast.AST) -> str:
  """Returns 'a.b.c' of such an expression, and of another one what stands behind it alone."""
  if isinstance(node, ast.Attribute):
    return f'{dotted(node.value)}.{node.attr}'
  return node.id if isinstance(node, ast.Name) else ''


def files(root: pathlib.Path, tops: tuple[str, ...]) -> list[File]:
  return [file for top in tops for file in _files_of(root, top)]


@functools.lru_cache(maxsize=16)  # parsed once for all rules of a tree
def _files_of(root: pathlib.Path, top: str) -> list[File]:
  return [File(root, path) for path in sorted((root / top).rglob('*.py'))]


def within(name: str, modules) -> bool:
  return any(name == module or name.startswith(f'{module}.') for module in modules)


def packages_import_along_the_arrows(root):
  sections = {
    f'sections.{path.parent.name}' for path in (root / 'mgjax/sections').glob('*/section.py')
  } - set(ARROWS)
  for file in files(root, LIBRARY):
    package = file.package
    if package is None or file.path.stem == '__init__':
      continue
    if package not in ARROWS and package not in sections:
      yield file.at(1, f'{package} has no place among the arrows; give it one in this test')
      continue
    allowed = {package} | ARROWS[package if package in ARROWS else BESIDE]
    allowed |= sections if BESIDE in allowed else set()
    outermost = {id(node) for node in file.tree.body}
    for node, name, _ in file.imports:
      other = package_of(name)
      known = other in ARROWS or (other and (root / 'mgjax' / other.replace('.', '/')).is_dir())
      late = isinstance(node, ast.Call) and name in NAMED_LATE
      late |= package in LAZY and id(node) not in outermost
      if known and other not in allowed and not late:
        yield file.at(node, f'{package} must not import {other}')


def the_library_names_what_uses_it_in_few_strings(root):
  outer = re.compile(rf'mgjax\.({"|".join(OUTER)})(\.\w+)+(:\w+)?')
  for file in files(root, LIBRARY):
    if file.package is None or file.package.partition('.')[0] in (*OUTER, *LAZY):
      continue
    for node in file.nodes:
      text = getattr(node, 'value', None) if isinstance(node, ast.Constant) else None
      if isinstance(text, str) and outer.fullmatch(text):
        if NAMED_LATE.get(text) != file.path.as_posix():
          yield file.at(node, f'the library must not name {text}')


def no_files_import_each_other(root):
  """Imports inside functions count: they hide a circle, they do not undo it."""
  library = {
    '.'.join(file.path.with_suffix('').parts).removesuffix('.__init__'): file
    for file in files(root, LIBRARY)
  }
  reached: dict[str, set[str]] = {}
  for name, file in library.items():
    found = {each for _, each, _ in file.imports}
    reached[name] = {each if each in library else each.rpartition('.')[0] for each in found}
    reached[name] &= library.keys() - {'mgjax'}  # which imports all others when they are asked for
  for middle in library:
    for name in library:
      if middle in reached[name]:
        reached[name] = reached[name] | reached[middle]
  for name, file in library.items():
    circle = sorted(each for each in reached[name] if name in reached[each])
    if circle and name == circle[0] and len(circle) > 1:
      yield file.at(1, f'imports itself by way of {", ".join(circle[1:])}')


def kinds_are_chosen_by_tables(root):
  """A kind of a configuration leads to its maker by a dictionary, so that a new one is a row."""
  for file in files(root, LIBRARY):
    for node in file.nodes:
      tests = ast.walk(node.test) if isinstance(node, ast.If | ast.IfExp) else ()
      for test in (each for each in tests if isinstance(each, ast.Compare)):
        sides = [test.left, *test.comparators]
        kind = any(re.fullmatch(KIND, dotted(side)) for side in sides)
        word = any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in sides)
        if kind and word and isinstance(test.ops[0], ast.Eq):  # `!=` refuses other kinds
          yield file.at(node, f'{ast.unparse(test)}: choose by a dictionary of kinds')


def worlds_are_asked_through_their_table(root):
  """A new world is a folder and a row: `mgjax/data/synthetic_datasets.py` leads to it."""
  for file in files(root, LIBRARY):
    if file.package == 'lab.worlds':
      continue
    for node, name, _ in file.imports:
      if re.match(r'mgjax\.lab\.worlds\.(?!judging\b|onsets\b)\w', name):
        yield file.at(node, f'imports {name}; ask mgjax.data.synthetic_datasets')


def modules_of_a_section_know_arrays(root):
  for file in files(root, LIBRARY):
    section = '.'.join(file.path.parts[1:-1])
    has_class = (root / file.path.parent / 'section.py').exists()
    if has_class and file.path.stem not in FILES_OF_A_SECTION:
      for node, name, _ in file.imports:
        if within(name, [f'mgjax.{each}' for each in OUTSIDE]):
          yield file.at(node, f'{file.path.stem} of {section} must not import {package_of(name)}')


def configurations_are_unpacked_once(root):
  """Below these files nothing takes a ConfigDict: settings are dataclasses with checks."""
  for file in files(root, LIBRARY):
    may = file.package in CONFIGURED or file.path.stem == 'section'
    for node in () if may or file.path.as_posix() == TRAINED else file.nodes:
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        notes = [ast.unparse(each.annotation) for each in arguments if each.annotation is not None]
        if any('ConfigDict' in note for note in notes):
          yield file.at(node, f'{node.name} takes a ConfigDict; unpack it in section.py')


def folders_are_small(root):
  folders = collections.Counter(
    file.path.parent for file in files(root, LIBRARY) if file.path.stem != '__init__'
  )
  for folder, count in folders.items():
    if count > MOST_FILES:
      yield f'{folder.as_posix()}: {count} files, more than {MOST_FILES}: make a folder of some'


def flow_is_mathematics_on_arrays(root):
  for file in files(root, LIBRARY):
    for node, name, _ in file.imports:
      if file.package == 'flow' and within(name, ['flax']):
        yield file.at(node, 'flow must not import flax')


def library_is_below_its_users(root):
  above = {
    'mgjax': {'configs', 'launch', 'tests'},
    'configs': {'launch', 'tests'},
    'launch': {'tests'},
  }
  for file in files(root, PROGRAM):
    for node, name, _ in file.imports:
      if name.split('.')[0] in above[file.top]:
        yield file.at(node, f'{file.top} must not import {name.split(".")[0]}')


def only_launch_reads_flags(root):
  for file in files(root, ('mgjax', 'configs')):
    for node, name in file.uses:
      if within(name, FLAGS) and name not in PARSED:
        yield file.at(node, f'only launch/ reads flags: {name}')


def only_one_file_knows_orbax(root):
  for file in files(root, PROGRAM):
    for node, name, _ in file.imports:
      if within(name, ['orbax']) and file.path.as_posix() != ORBAX:
        yield file.at(node, f'only {ORBAX} imports orbax')


def meshes_are_made_in_one_place(root):
  for file in files(root, PROGRAM):
    called = {id(node.func) for node in file.nodes if isinstance(node, ast.Call)}
    for node, name in file.uses:
      made = id(node) in called and within(name, ['jax']) and name.split('.')[-1] in MESHES
      if made and file.path.as_posix() != 'mgjax/parallel/mesh.py':
        yield file.at(node, f'only mgjax/parallel/mesh.py makes a mesh: {name}')


def only_the_stable_core_of_flax(root):
  for file in files(root, PROGRAM):
    for node, name in file.uses:
      on_the_way = any(within(module, [name]) for module in FLAX)
      if within(name, ['flax']) and not on_the_way and not within(name, FLAX):
        yield file.at(node, f'not in the stable core of Linen: {name}')


def names_say_what_is_inside(root):
  for file in files(root, EVERYTHING):
    for part in (*file.path.parts[:-1], file.path.stem):
      if part in VAGUE:
        yield file.at(1, f'{part} says nothing about what is inside')


def files_are_short(root):
  for file in files(root, EVERYTHING):
    length = len(file.text.splitlines())
    if length > LONGEST:
      yield file.at(length, f'{length} lines, more than {LONGEST}')


def what_is_public_has_a_docstring(root):
  for file in files(root, LIBRARY):
    for node in file.tree.body:
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        if not node.name.startswith('_') and not ast.get_docstring(node):
          yield file.at(node, f'{node.name} has no docstring')


def what_is_experimental_says_why_and_until_when(root):
  for file in files(root, ('mgjax/experimental',)):
    said = ast.get_docstring(file.tree) or ''
    for line in ('Owner: ', 'Expires: ') if file.path.stem != '__init__' else ():
      if f'\n{line}' not in said:
        yield file.at(1, f'its docstring lacks a line "{line}..."')


RULES = (
  packages_import_along_the_arrows,
  the_library_names_what_uses_it_in_few_strings,
  no_files_import_each_other,
  kinds_are_chosen_by_tables,
  worlds_are_asked_through_their_table,
  modules_of_a_section_know_arrays,
  configurations_are_unpacked_once,
  folders_are_small,
  flow_is_mathematics_on_arrays,
  library_is_below_its_users,
  only_launch_reads_flags,
  only_one_file_knows_orbax,
  meshes_are_made_in_one_place,
  only_the_stable_core_of_flax,
  names_say_what_is_inside,
  files_are_short,
  what_is_public_has_a_docstring,
  what_is_experimental_says_why_and_until_when,
)


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps(rule):
  broken = sorted(set(rule(CHECKOUT)))
  assert not broken, '\n'.join(broken)


GOOD = {
  'mgjax/__init__.py': "__version__ = '0'\nfrom mgjax import core\n",
  'mgjax/core/tree.py': 'import numpy as np\n\ndef size(tree):\n  "Counts."\n',
  'mgjax/flow/path.py': 'from mgjax import __version__\nfrom ..core import tree\n',
  'mgjax/nn/linear.py': (
    'import flax.linen as nn\nfrom flax import struct\nfrom jax.sharding import Mesh\n'
    'def _build(mesh: Mesh):\n  return nn.scan(nn.Dense)\n@struct.dataclass\nclass _Row: pass\n'
  ),
  'mgjax/nn/attention.py': 'Later("mgjax.experimental.tpu_attention.forward")\n',
  'mgjax/parallel/mesh.py': 'import jax\nmesh = jax.make_mesh((8,), ("data",))\n',
  'mgjax/training/checkpoints/orbax_io.py': (
    'import orbax.checkpoint\nfrom mgjax.parallel import mesh\n'
  ),
  'mgjax/data/loader.py': 'from absl import flags\nflags.FLAGS.mark_as_parsed()\n',
  'mgjax/data/synthetic_datasets.py': "PROVIDER = 'mgjax.lab.worlds.rows:ROWS'\n",
  'mgjax/models/tae/autoencoder.py': '',
  'mgjax/sections/autoencoder/section.py': (
    'from mgjax.data import loader\ndef _f(c: ConfigDict): pass\n'
  ),
  'mgjax/sections/own/section.py': 'from mgjax.sections.flow import section\n',
  'mgjax/sections/flow/section.py': 'from mgjax.models.flow_model import build\n',
  'mgjax/sections/video/section.py': '',
  'mgjax/apps/encode.py': 'from mgjax.sections.own import section\nsettings.kind == "a"\n',
  'mgjax/lab/statistics/intervals.py': '',
  'mgjax/lab/evaluation/metrics/audio.py': 'from mgjax.lab.statistics import intervals\n',
  'mgjax/lab/evaluation/judge.py': 'from mgjax.lab.evaluation.metrics import audio\n',
  'mgjax/registry.py': 'Late("mgjax.lab.evaluation.judge:evaluate")\n',
  'mgjax/api.py': 'def f():\n  "."\n  from mgjax.lab.evaluation import judge\n',
  'mgjax/lab/scaling/fit.py': 'from mgjax.parallel.mesh import make_mesh\nmake_mesh((8,))\n',
  'mgjax/experimental/tpu_attention/forward.py': (
    '"""A.\n\nOwner: b\nExpires: c\n"""\nfrom mgjax.nn import linear\n'
  ),
  'launch/train.py': 'from absl import app\nfrom mgjax.training import run\nimport configs.tae\n',
  'configs/tae.py': 'import ml_collections\n',
}
ARROW, ARRAYS = packages_import_along_the_arrows, modules_of_a_section_know_arrays
SETTINGS, WORLDS = configurations_are_unpacked_once, worlds_are_asked_through_their_table
STRINGS = the_library_names_what_uses_it_in_few_strings
UNPROVEN = what_is_experimental_says_why_and_until_when
BAD = (
  (ARROW, 'mgjax/core/a.py', '\nimport mgjax.parallel.mesh', 2),
  (ARROW, 'mgjax/core/a.py', 'from .. import nn', 1),
  (ARROW, 'mgjax/models/tae/a.py', 'from mgjax.models import conditioning', 1),
  (ARROW, 'mgjax/models/tae/a.py', 'from ..backbone.block import Block', 1),
  (ARROW, 'mgjax/models/tae/a.py', 'from mgjax.data.loader import batches', 1),
  (ARROW, 'mgjax/flow/a.py', 'import mgjax.nn.linear as linear', 1),
  (ARROW, 'mgjax/data/a.py', 'from mgjax.training import step', 1),
  (ARROW, 'mgjax/data/a.py', 'from mgjax.models.tae.autoencoder import Autoencoder', 1),
  (ARROW, 'mgjax/training/a.py', 'from mgjax.sections.video import section', 1),
  (ARROW, 'mgjax/training/a.py', 'from mgjax.models.tae import autoencoder', 1),
  (ARROW, 'mgjax/training/a.py', 'def f():\n  from mgjax.lab.evaluation import judge', 2),
  (ARROW, 'mgjax/sections/video/a.py', 'from mgjax.apps import encode', 1),
  (ARROW, 'mgjax/lab/statistics/a.py', 'from mgjax.lab.evaluation import judge', 1),
  (ARROW, 'mgjax/lab/evaluation/a.py', 'from mgjax.apps import encode', 1),
  (ARROW, 'mgjax/sections/audio/a.py', 'def f():\n  import mgjax.sections.editing', 2),
  (ARROW, 'mgjax/nn/a.py', 'import_module("mgjax.training.step")', 1),
  (ARROW, 'mgjax/nn/a.py', 'Late("mgjax.training.step:make_step")', 1),
  (ARROW, 'mgjax/nn/a.py', 'from mgjax.experimental.tpu_attention import backward', 1),
  (ARROW, 'mgjax/registry.py', 'from mgjax.api import load', 1),
  (ARROW, 'mgjax/registry.py', 'from mgjax.lab.evaluation import judge', 1),
  (ARROW, 'mgjax/train/a.py', '', 1),
  (ARROW, 'mgjax/sections/autoencoder/a.py', 'from mgjax.sections.own import section', 1),
  (ARROW, 'mgjax/sections/digits/section.py', 'from mgjax.sections.video import section', 1),
  (STRINGS, 'mgjax/training/a.py', "A = 'mgjax.lab.evaluation.judge:evaluate'", 1),
  (STRINGS, 'mgjax/sections/a.py', "f('mgjax.lab.worlds.rows:ROWS')", 1),
  (no_files_import_each_other, 'mgjax/core/tree.py', 'def f():\n  import mgjax.flow.path', 1),
  (WORLDS, 'mgjax/lab/a.py', 'from mgjax.lab.worlds.solids.clips import Solids', 1),
  (kinds_are_chosen_by_tables, 'mgjax/models/a.py', 'if data.kind == "digits":\n  pass', 1),
  (ARRAYS, 'mgjax/sections/own/a.py', 'from mgjax.data.loader import batches', 1),
  (ARRAYS, 'mgjax/sections/video/weights.py', 'from mgjax.training.checkpoints import workdir', 1),
  (ARRAYS, 'mgjax/sections/video/weights.py', 'from mgjax.data.media import video', 1),
  (SETTINGS, 'mgjax/models/a.py', 'def f(a, config: ConfigDict): pass', 1),
  (SETTINGS, 'mgjax/training/a.py', '\ndef f(c: Mapping | ConfigDict | None): pass', 2),
  (flow_is_mathematics_on_arrays, 'mgjax/flow/a.py', 'from flax import struct', 1),
  (library_is_below_its_users, 'mgjax/nn/a.py', 'from configs.video import t2iv_256', 1),
  (library_is_below_its_users, 'mgjax/nn/a.py', 'import launch.train', 1),
  (library_is_below_its_users, 'launch/a.py', 'from tests.oracles import path', 1),
  (only_launch_reads_flags, 'mgjax/nn/a.py', 'from absl import flags\nflags.FLAGS.seed', 2),
  (only_launch_reads_flags, 'mgjax/nn/a.py', 'from absl.flags import DEFINE_string', 1),
  (only_launch_reads_flags, 'configs/a.py', 'from ml_collections import config_flags', 1),
  (only_one_file_knows_orbax, 'mgjax/training/a.py', 'import orbax.checkpoint as ocp', 1),
  (only_one_file_knows_orbax, 'launch/a.py', 'from orbax import checkpoint', 1),
  (meshes_are_made_in_one_place, 'mgjax/nn/a.py', 'import jax\njax.make_mesh((8,), ("d",))', 2),
  (meshes_are_made_in_one_place, 'launch/a.py', 'from jax.sharding import Mesh as M\nM([], ())', 2),
  (only_the_stable_core_of_flax, 'mgjax/nn/a.py', 'from flax import nnx', 1),
  (only_the_stable_core_of_flax, 'mgjax/nn/a.py', 'from flax.linen import vmap', 1),
  (only_the_stable_core_of_flax, 'mgjax/nn/a.py', 'from flax import linen\nlinen.gelu(1)', 2),
  (only_the_stable_core_of_flax, 'mgjax/nn/a.py', 'import flax\nflax.linen.initializers.ones', 2),
  (names_say_what_is_inside, 'mgjax/nn/utils.py', '', 1),
  (names_say_what_is_inside, 'tests/helpers/a.py', '', 1),
  (files_are_short, 'mgjax/nn/a.py', 'x = 1\n' * 601, 601),
  (what_is_public_has_a_docstring, 'mgjax/nn/a.py', 'def _f(): pass\ndef f(): pass', 2),
  (what_is_public_has_a_docstring, 'mgjax/nn/a.py', 'class Linear: pass', 1),
  (UNPROVEN, 'mgjax/experimental/a.py', '"""A.\n\nOwner: b\n"""', 1),
)


def _build(root: pathlib.Path, sources: dict[str, str]) -> None:
  for path, source in sources.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source)


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_rule_passes_a_good_tree(rule, tmp_path):
  _build(tmp_path, GOOD)
  assert not list(rule(tmp_path))


@pytest.mark.parametrize(('rule', 'path', 'source', 'line'), BAD)
def test_rule_finds_what_breaks_it(rule, path, source, line, tmp_path):
  _build(tmp_path, GOOD | {path: source})
  broken = list(rule(tmp_path))
  assert broken
  assert all(message.startswith(f'{path}:{line}: ') for message in broken)


def test_a_folder_of_many_files_is_found(tmp_path):
  _build(tmp_path, GOOD | {f'mgjax/flow/a{number}.py': '' for number in range(MOST_FILES)})
  (broken,) = folders_are_small(tmp_path)
  assert broken.startswith('mgjax/flow: 16 files')
