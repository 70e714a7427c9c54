"""The size of mgjax: how many lines each package may have, and what else is counted.

A change that needs more raises a number here, with the reason beside it.
"""

import ast
import pathlib
import re

import pytest

from tests.test_docs import flags_of_commands

CHECKOUT = pathlib.Path(__file__).parent.parent

# Package -> lines of Python. A number that is raised gets its reason beside it.
BUDGETS = {
  'audio': 3350,  # how pictures move
  'backbone': 447,  # a discriminator of latents; kinds of products
  'benchmarks': 1630,  # the machine and the date stand in tables
  'checkpoints': 2590,  # fingerprints of what a model needs; adapters, in and out; files in int8
  'clip': 1160,  # states of patches, which a flow model may learn to tell
  'conditioning': 1330,
  'core': 2432,  # runs on the Hub and at URLs, asked for again; ranges; tables; wrapped sources
  'curation': 5365,
  'data': 5190,
  'editing': 1039,  # its base of sources is of core
  'evaluation': 7170,  # a diffusion classifier; sounds that are the best of several
  'flow': 2390,  # minimum SNR, preferences, students against data, mean velocities of steps
  'flow_models': 2710,  # likelihoods; alignment; experts by noise level; a sampler step by step
  'media': 3595,
  'nn': 2800,  # convolutions; tiles that heads choose, 140 an index of them; products of one byte
  'parallel': 1515,  # networks of chips: latencies, protocols, pods
  'personalization': 400,
  'planning': 5110,  # adapters; GPUs compiled; Muon's state and products; 820 rehearse runs
  'runtime': 3000,  # trackers; garbage, cache settings one by one, kept programs
  'scaling': 2730,  # arms in order; 300 are claims and verdicts
  'serving': 2515,  # an API of videos: routes, jobs, batches, uploads, limits, metrics
  'tae': 2420,  # an autoencoder answers to its fingerprints; a linear shortcut; 3D layers
  'text': 2135,
  'training': 2400,  # Muon, spread over the mesh, for convolutions too; adapters
  'upsampler': 1265,  # colours of the source are kept
  'video': 705,  # likelihoods of videos; sampling on shifted grids
  'workflows': 4255,  # cards are measured again and written, for the Hub too; a demo; runs varied
  'worlds': 7445,  # digits 2,700; solids: physics, ray caster, captions, sounds, judges, edits
}
OTHERS = 1500  # of a package without a row, such as a section of yours, which no sum counts
CORE = (
  'flow',
  'backbone',
  'conditioning',
  'flow_models',
  'video',
  'tae',
  'nn',
  'training',
  'parallel',
)
INSTRUMENTS = ('evaluation', 'planning', 'benchmarks', 'scaling')
MOST_OF_CORE, MOST_OF_ALL, MOST_OF_LAUNCH = 16_590, 79_000, 3_000
# 600 of the core are Muon, alignment, experts and adapters, 300 students against data and shifts,
# 40 latencies of networks, 130 derivatives forward and mean flow, 140 an index of tiles on TPUs.
# Of all, 1,500 are a service, 870 trackers, the Hub, URLs and front matter of cards;
# 3,800 are the world of solids and its judges, 600 fingerprints of models, and cards, 1,000 a
# rehearsal of long runs and networks with latencies.
# 53,000 was the aim; what is left are oracles, equalities, faults and kills. 800 hold the solids.
# 270 try a rehearsal where the answer is known. 270 of launch supervise hosts.
MOST_OF_TESTS = 62_000  # 1,500 of them try bad input; 480 hold the one file to the library
MOST_COMMANDS, MOST_NAMES = 14, 144  # one a first look, one a rehearsal; 6 names are of a service
MOST_FLAGS = 225  # over all commands; 42 are of six sections in sample; --strength of edits
MOST_WITH_CONFIG = 27  # 19 of sections: make_spec, outline, make_encode_plan; else the doors


def lines(folder: str) -> int:
  return sum(len(path.read_text().splitlines()) for path in (CHECKOUT / folder).rglob('*.py'))


def packages() -> list[str]:
  return sorted(path.parent.name for path in (CHECKOUT / 'mgjax').glob('*/__init__.py'))


@pytest.mark.parametrize('package', packages())
def test_a_package_keeps_its_budget(package):
  found, most = lines(f'mgjax/{package}'), BUDGETS.get(package, OTHERS)
  assert found <= most, f'mgjax/{package}: {found} lines of {most}; see the top of this file'


def test_all_packages_and_the_core_and_tests_and_commands_keep_theirs():
  assert set(BUDGETS) <= set(packages())
  own = [path for path in packages() if path not in BUDGETS]
  assert lines('mgjax') - sum(lines(f'mgjax/{path}') for path in own) <= MOST_OF_ALL
  assert sum(lines(f'mgjax/{package}') for package in CORE) <= MOST_OF_CORE
  assert lines('tests') <= MOST_OF_TESTS
  assert lines('launch') <= MOST_OF_LAUNCH


def test_the_core_imports_no_instrument():
  for package in CORE:
    for path in (CHECKOUT / 'mgjax' / package).rglob('*.py'):
      found = re.findall(rf'mgjax\.(?:{"|".join(INSTRUMENTS)})\b', path.read_text())
      assert not found, f'{path} knows {found[0]}'


def test_few_functions_take_a_configuration():
  """The others take what `task.py` and the top of a command unpacked of it."""
  found = []
  for path in (CHECKOUT / 'mgjax').rglob('*.py'):
    package = path.relative_to(CHECKOUT / 'mgjax').parts[0]
    if package in packages() and package not in BUDGETS:
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        notes = [ast.unparse(each.annotation) for each in arguments if each.annotation is not None]
        if any('ConfigDict' in note for note in notes):
          found.append(f'{path.relative_to(CHECKOUT)}:{node.lineno} {node.name}')
  assert len(found) <= MOST_WITH_CONFIG, '\n'.join(found)


def test_few_commands_and_flags():
  flags = flags_of_commands()
  assert len(flags) <= MOST_COMMANDS
  names = {name for each in flags.values() for name in each}
  assert len(names) <= MOST_NAMES, sorted(names)
  assert sum(map(len, flags.values())) <= MOST_FLAGS, flags
