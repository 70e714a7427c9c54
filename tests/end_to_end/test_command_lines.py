"""What every binary says: help, configurations and sentences instead of tracebacks."""

import json
import os
import re
import subprocess
import sys

import pytest

from launch import command_line, moved
from tests import binaries
from tests.tiny import CHECKOUT

BINARIES = command_line.binaries()
VIDEO = '--config=configs/digits/video.py'
# name: (arguments, exit code, what is printed). `{tmp}` is an empty directory.
PLAN = '--config=configs/video/t2iv_768.py:30b'
CASES = {
  'no topology': (['plan', PLAN], 2, r'^plan\.py: --topology is missing; for example --topology='),
  'no such assumption': (
    ['rehearse', PLAN, '--topology=h100:8', '--assume=failure=1'],
    2,
    r'^rehearse\.py: --assume=failure=1: expected some of failures=0 to ',
  ),
  'misspelt key': (
    ['train', VIDEO, '--config.model.dmi=1', '--workdir={tmp}/w'],
    2,
    r'^train\.py: unknown key model\.dmi; did you mean model\.dim\?$',
  ),
  'misspelt key, path apart': (
    ['train', '--config', 'configs/digits/video.py', '--config.model.dmi', '1'],
    2,
    r'^train\.py: unknown key model\.dmi; did you mean model\.dim\?$',
  ),
  'wrong type': (
    ['train', VIDEO, '--config.model.dim=wide', '--workdir={tmp}/w'],
    2,
    r'^train\.py: .*wide',
  ),
  'no such file': (
    ['train', '--config=configs/none.py', '--workdir={tmp}/w'],
    2,
    r'^train\.py: .*configs/none\.py',
  ),
  'unknown flag': (
    ['train', VIDEO, '--workdri={tmp}/w'],
    2,
    r"^train\.py: .*'workdri'. Did you mean: workdir",
  ),
  'no configuration': (
    ['train', '--workdir={tmp}/w'],
    2,
    r'^train\.py: --config is missing; for example --config=configs/\S+\.py$',
  ),
  'no work directory': (
    ['train', VIDEO],
    2,
    r'^train\.py: --workdir is missing; for example --workdir=\S+$',
  ),
  'work directory is a file': (
    ['train', VIDEO, '--workdir={tmp}/file'],
    2,
    r'^train\.py: cannot use .*file.*: \w+',
  ),
  'stray argument': (
    ['train', 'configs/digits/video.py'],
    2,
    r"^train\.py: unexpected argument 'configs/digits/video\.py'; flags start with --$",
  ),
  'unknown argument of a configuration': (
    ['train', '--config=configs/digits/long.py:sound', '--workdir={tmp}/w'],
    2,
    r"^train\.py: part 'sound': expected",
  ),
  'no clips': (
    ['train', '--config=configs/clips/autoencoder.py:{tmp}/empty', '--workdir={tmp}/w'],
    3,
    r'^train\.py: no usable clip in .*empty: 0 rejected; give videos of at least \d',
  ),
  'sound of clips': (
    ['train', '--config=quickstart:sound,{tmp}', '--workdir={tmp}/w'],
    2,
    r'^train\.py: sound is made for moving digits, not yet for clips',
  ),
  'no path of clips': (
    ['train', '--config=configs/clips/autoencoder.py', '--workdir={tmp}/w'],
    2,
    r'^train\.py: config\.data\.path is empty; name a folder',
  ),
  'no autoencoder': (
    ['data', 'encode', VIDEO, '--output={tmp}/w', '--config.autoencoder={tmp}/empty'],
    2,
    r"^data\.py: .*empty' is not a work directory of launch\.train.*; train first",
  ),
  'encode a pixel model': (
    ['data', 'encode', '--config=configs/digits/autoencoder.py', '--output={tmp}/w'],
    2,
    r"^data\.py: the component 'autoencoder' is not one that learns from latents",
  ),
  'no prompt': (
    ['sample', 'video', '--workdir={tmp}/w'],
    2,
    r"^sample\.py: --prompt is missing; for example --prompt='the .*', or --prompts, or",
  ),
  'sample from nothing': (
    ['sample', 'video', '--workdir={tmp}/empty', '--prompt=a'],
    2,
    r'^sample\.py: .*is not a work directory',
  ),
  'a recipe, dry': (
    ['train', '--config=configs/digits/recipe.py', '--workdir={tmp}/dry', '--dry_run'],
    0,
    r'(?s)stage 1 of \d, autoencoder: to do, 2,000 steps.*double, on joint and autoencoder: to do',
  ),
  'nothing to average': (
    ['weights', 'average', '--workdir={tmp}/w'],
    2,
    r'^weights\.py: --input is missing; for example --input=runs/a,runs/b$',
  ),
  'checkpoints of no run': (
    ['weights', 'list', '--workdir={tmp}/empty'],
    2,
    r"^weights\.py: .*empty' is not a work directory",
  ),
  'print': (
    ['train', VIDEO, '--config.model.depth=7', '--print_config'],
    0,
    r'"depth": 7',
  ),
  'dry run': (
    ['train', '--config=configs/digits/autoencoder.py', '--workdir={tmp}/dry', '--dry_run'],
    0,
    r'(?s)decoder/.*\ntotal +[\d,]+ +100\.0%.*bucket video: 50,000 samples',
  ),
  'dry run of settings that cannot be, without the autoencoder': (
    ['train', VIDEO, '--config.train.log_every=-1', '--workdir={tmp}/dry', '--dry_run'],
    2,
    r'^train\.py: train\.log_every = -1; expected a whole number from 0',
  ),
}
CASES |= {
  f'help of {name}': ([name, '--help'], 0, rf'python -m launch\.{name}') for name in BINARIES
}

COMMON = {'sample': ('workdir', 'prompt', 'out', 'steps', 'seed')}  # first in --help


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
    flags = re.findall(r'^  --(\w+) \((\w+)', outcome.stdout, re.MULTILINE)
    first = COMMON.get(binary, ())
    assert tuple(name for name, _ in flags[: len(first)]) == first
    words = [word for _, word in flags]
    rest = words[len(first) :]
    assert rest == sorted(rest, reverse=True)  # required ones first
    assert 'default' in outcome.stdout and ('required' in words or binary in ('doctor', 'demo'))
    assert f'python -m launch.{binary} ' in (CHECKOUT / 'launch' / f'{binary}.py').read_text()
  assert not (place / 'dry').exists()


def python(*words):
  command = [sys.executable, *words]
  return subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=120)


def mgjax(*words):
  script = 'import sys; sys.argv[0] = "/bin/mgjax"; from launch.command_line import console'
  return python('-c', f'{script}; console()', *words)


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    (['recipe', '--workdir=w', '--config=a b'], "train --workdir=w '--config=a b'"),
    (['encode', '--workdir=w', '--process=1'], 'data encode --output=w --process=1'),
    (['checkpoints', 'average', '--runs=a,b', '--greedy'], 'weights average --input=a,b --shares='),
    *(([name], moved.MOVED[name]) for name in sorted(set(moved.MOVED) - set(moved.RENAMED))),
  ],
  ids=str,
)
def test_an_old_name_prints_the_new_command_line(old, new):
  for done, expected in (
    (python('-m', f'launch.{old[0]}', *old[1:]), f' -m launch.{new}'),
    (mgjax(*old), f' is now: mgjax {new}'),
  ):
    assert done.returncode == 2 and done.stdout == '' and expected in done.stderr


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    (['--workdir=runs/none', '--prompt=a', '--video=README.md'], 'video .*--continue=README.md'),
    (['--workdir=digits/video', '--frames=1', '--prompt=a'], 'image --workdir=digits/video --prom'),
    (
      ['--workdir=digits/upsampler', '--video=README.md', '--scale=2'],
      'upsample .*README.md --factor=2',
    ),
    (['--workdir=digits/audio', '--video', 'README.md'], 'audio .*--video README.md'),
    (['--workdir=digits/video', '--video=README.md', '--strength=0.5'], 'edit .*--strength=0.5'),
    (
      ['--workdir=digits/audio', '--suite=a b', '--video=README.md'],
      "suite .*'--suite=a b' --videos=README",
    ),
  ],
  ids=str,
)
def test_a_sample_without_a_word_prints_the_line_with_the_word_of_its_model(old, new):
  done = mgjax('sample', *old)
  assert done.returncode == 2 and done.stdout == ''
  assert re.search(rf'sample has first words now: python -m launch\.sample {new}', done.stderr)


def test_a_reader_that_has_seen_enough_is_no_error():
  command = [sys.executable, '-m', 'launch.train', '--config=configs/video/t2iv_768.py']
  reading, writing = os.pipe()
  os.close(reading)
  try:
    run = subprocess.run(
      [*command, '--print_config'],
      stdout=writing,
      stderr=subprocess.PIPE,
      text=True,
      cwd=CHECKOUT,
      timeout=120,
    )
  finally:
    os.close(writing)
  assert (run.returncode, run.stderr) == (141, '')


@pytest.mark.parametrize('words', [(), ('--help',)], ids=str)
def test_mgjax_alone_lists_its_commands(words):
  done = binaries.succeeded(mgjax(*words))
  listed = [line.split()[0] for line in done.stdout.splitlines()[1:]]
  assert listed == command_line.binaries()


def test_mgjax_with_a_command_is_that_command():
  done = binaries.succeeded(mgjax('doctor', '--help'))
  assert '--workdir' in done.stdout
  wrong = mgjax('train', '--workdri=x')
  assert (wrong.returncode, wrong.stderr[:13]) == (2, 'mgjax-train: ')


def test_a_command_that_is_not_there_gets_a_hint():
  done = mgjax('docter')
  assert done.returncode == 2
  assert done.stderr == 'mgjax: there is no command docter; did you mean doctor?\n'


def test_for_the_doctor_every_thing_has_a_line_and_the_exit_code_counts_what_is_wrong(tmp_path):
  done = binaries.run('doctor', f'--workdir={tmp_path}/runs')
  *lines, last = done.stdout.splitlines()
  states = [line.split()[0] for line in lines]
  assert set(states) <= {'right', 'optional', 'WRONG'}
  assert done.returncode == ('WRONG' in states)
  assert last.startswith('All that is needed') == (done.returncode == 0)
  named = {line.split()[1] for line in lines}
  assert named >= {'Python', 'packages', 'devices', 'memory', 'disk', 'temporary'}
  assert named >= {'H.264', 'AAC'}


def test_what_the_doctor_finds_wrong_makes_the_exit_code(tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'nonesuch')
  done = python('-m', 'launch.doctor', f'--workdir={tmp_path}')
  assert done.returncode == 1, done.stderr
  assert "JAX_PLATFORMS is 'nonesuch'" in done.stdout
  assert done.stdout.endswith('wrong; see above what to do.\n')
