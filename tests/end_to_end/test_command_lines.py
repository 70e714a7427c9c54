"""What every binary says: help, configurations and sentences instead of tracebacks."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests import binaries
from tests.tiny import CHECKOUT

BINARIES = sorted(
  path.stem
  for path in (CHECKOUT / 'launch').glob('*.py')
  if path.stem not in ('__init__', 'command_line', 'flag_values')
)
VIDEO = '--config=configs/digits/video.py'
# name: (arguments, exit code, what is printed). `{tmp}` is an empty directory.
PLAN = '--config=configs/video/t2iv_768.py:30b'
CASES = {
  'no topology': (['plan', PLAN], 2, r'^plan\.py: --topology is missing; for example --topology='),
  'mesh off the torus': (
    ['plan', PLAN, '--topology=v5p:8x8x8', '--mesh=fsdp=32,context=16'],
    2,
    r'^plan\.py: context = 16 is no product of axes of the 8x8x8 torus; 8, 64 and 512 are$',
  ),
  'misspelt key': (
    ['train', VIDEO, '--config.model.dmi=1', '--workdir={tmp}/w'],
    2, r'^train\.py: unknown key model\.dmi; did you mean model\.dim\?$',
  ),
  'misspelt key, path apart': (
    ['train', '--config', 'configs/digits/video.py', '--config.model.dmi', '1'],
    2, r'^train\.py: unknown key model\.dmi; did you mean model\.dim\?$',
  ),
  'wrong type': (
    ['train', VIDEO, '--config.model.dim=wide', '--workdir={tmp}/w'], 2, r'^train\.py: .*wide',
  ),
  'no such file': (
    ['train', '--config=configs/none.py', '--workdir={tmp}/w'], 2,
    r'^train\.py: .*configs/none\.py',
  ),
  'unknown flag': (
    ['train', VIDEO, '--workdri={tmp}/w'], 2, r"^train\.py: .*'workdri'. Did you mean: workdir",
  ),
  'no configuration': (
    ['train', '--workdir={tmp}/w'], 2,
    r'^train\.py: --config is missing; for example --config=configs/\S+\.py, or --replay$',
  ),
  'no work directory': (
    ['train', VIDEO], 2,
    r'^train\.py: --workdir is missing; for example --workdir=\S+, or --replay$',
  ),
  'work directory is a file': (
    ['train', VIDEO, '--workdir={tmp}/file'], 2, r'^train\.py: cannot use .*file.*: \w+',
  ),
  'stray argument': (
    ['train', 'configs/digits/video.py'], 2,
    r"^train\.py: unexpected argument 'configs/digits/video\.py'; flags start with --$",
  ),
  'unknown argument of a configuration': (
    ['train', '--config=configs/digits/long.py:sound', '--workdir={tmp}/w'], 2,
    r"^train\.py: part 'sound': expected",
  ),
  'no clips': (
    ['train', '--config=configs/clips/autoencoder.py:{tmp}/empty', '--workdir={tmp}/w'], 3,
    r'^train\.py: no usable clip in .*empty: 0 rejected; give videos of at least \d',
  ),
  'no folder of clips': (
    ['quickstart', '--clips={tmp}/nowhere', '--workdir={tmp}/w'], 3,
    r"^quickstart\.py: --clips: there is no file '.*nowhere'$",
  ),
  'no path of clips': (
    ['train', '--config=configs/clips/autoencoder.py', '--workdir={tmp}/w'], 2,
    r'^train\.py: config\.data\.path is empty; name a folder',
  ),
  'no autoencoder': (
    ['encode', VIDEO, '--workdir={tmp}/w', '--config.autoencoder={tmp}/empty'], 2,
    r"^encode\.py: .*empty' is not a work directory of launch\.train.*; train first",
  ),
  'encode a pixel model': (
    ['encode', '--config=configs/digits/autoencoder.py', '--workdir={tmp}/w'], 2,
    r"^encode\.py: the component 'autoencoder' is not one that learns from latents",
  ),
  'no prompt': (
    ['sample', '--workdir={tmp}/w'], 2,
    r"^sample\.py: --prompt is missing; for example --prompt='the .*', or --prompts, or",
  ),
  'sample from nothing': (
    ['sample', '--workdir={tmp}/empty', '--prompt=a'], 2, r'^sample\.py: .*is not a work directory',
  ),
  'guidance that is no number': (
    ['sample', '--workdir={tmp}/empty', '--prompt=a', '--guidance=text'], 2,
    r'^sample\.py: --guidance=text: expected a scale, as in 3, or scales of conditions by name',
  ),
  'a configuration that is no recipe': (
    ['recipe', VIDEO, '--workdir={tmp}/w'], 2,
    r'^recipe\.py: a recipe needs stages and their order',
  ),
  'stages out of order': (
    ['recipe', '--config=configs/digits/recipe.py', '--workdir={tmp}', '--config.order=("joint",)'],
    2, r"^recipe\.py: stage 'joint': start_from = 'images' does not come before it",
  ),
  'a recipe, dry': (
    ['recipe', '--config=configs/digits/recipe.py', '--workdir={tmp}/dry', '--dry_run'], 0,
    r'(?s)stage 1 of \d, autoencoder: to do, 2,000 steps.*double, on joint and autoencoder: to do',
  ),
  'report of nothing': (
    ['report', '--workdir={tmp}/empty'], 2, r'^report\.py: .*is the work directory of neither',
  ),
  'nothing to average': (
    ['checkpoints', 'average', '--workdir={tmp}/w'],
    2, r'^checkpoints\.py: --runs is missing; for example --runs=runs/a,runs/b$',
  ),
  'weights that are no numbers': (
    ['checkpoints', 'average', '--runs=a,b', '--weights=2,x', '--workdir={tmp}/w'],
    2, r'^checkpoints\.py: --weights=2,x: expected numbers, as in 2,1,1$',
  ),
  'checkpoints of no run': (
    ['checkpoints', 'list', '--workdir={tmp}/empty'], 2,
    r"^checkpoints\.py: .*empty' is not a work directory",
  ),
  'print': (
    ['train', VIDEO, '--config.model.depth=7', '--print_config'], 0, r'"depth": 7',
  ),
  'dry run': (
    ['train', '--config=configs/digits/autoencoder.py', '--workdir={tmp}/dry', '--dry_run'], 0,
    r'(?s)decoder/.*\ntotal +[\d,]+ +100\.0%.*bucket video: 50,000 samples',
  ),
}  # fmt: skip
CASES |= {
  f'help of {name}': ([name, '--help'], 0, rf'python -m launch\.{name}') for name in BINARIES
}


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  directory = tmp_path_factory.mktemp('place')
  (directory / 'empty').mkdir()
  (directory / 'file').touch()
  return directory


@pytest.mark.parametrize('name', CASES)
def test_a_binary_says_what_it_means(place, name):
  (binary, *arguments), code, said = CASES[name]
  outcome = binaries.run(binary, *(argument.format(tmp=place) for argument in arguments))
  text = outcome.stderr if code else outcome.stdout
  assert outcome.returncode == code, outcome.stderr
  assert re.search(said, text.strip(), re.MULTILINE), text
  assert 'Traceback' not in outcome.stderr
  if code:
    assert len(outcome.stderr.strip().splitlines()) <= 2, outcome.stderr
    assert outcome.stdout == ''
  if name == 'print':
    assert json.loads(outcome.stdout)['component'] == 'video'
  if name.startswith('help'):
    assert '--helpfull' not in outcome.stdout  # its own flags, not those of the libraries
    assert 'default' in outcome.stdout
  assert not (place / 'dry').exists()


@pytest.mark.parametrize('name', BINARIES)
def test_help_begins_with_the_flags_that_are_required(name):
  said = re.findall(r'^  --\w+ \((\w+)', binaries.run(name, '--help').stdout, re.MULTILINE)
  assert set(said) <= {'required', 'default'}
  assert said == sorted(said, reverse=True)  # required ones first
  assert 'required' in said or name in ('completion', 'doctor', 'quickstart')


def test_every_binary_shows_a_command_in_its_help():
  for name in BINARIES:
    text = pathlib.Path(CHECKOUT / 'launch' / f'{name}.py').read_text()
    assert f'python -m launch.{name} ' in text


def test_a_reader_that_has_seen_enough_is_no_error():
  command = [sys.executable, '-m', 'launch.train', '--config=configs/video/t2iv_768.py']
  reading, writing = os.pipe()
  os.close(reading)
  try:
    run = subprocess.run(
      [*command, '--print_config'],
      stdout=writing, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT, timeout=120,
    )  # fmt: skip
  finally:
    os.close(writing)
  assert (run.returncode, run.stderr) == (141, '')
