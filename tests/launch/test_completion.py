"""What the tabulator completes, asked as shells ask and through bash itself."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from launch import command_line
from launch.completion import script
from mgjax.core.config_files import all_configs
from tests import binaries
from tests.tiny import CHECKOUT

CASES = [
  ('mgjax-train --wo', ['--workdir=']),
  ('mgjax-train --nodry', ['--nodry_run']),
  ('mgjax-train --dry', ['--dry_run']),
  ('mgjax train --wo', ['--workdir=']),
  ('mgjax doc', ['doctor']),
  ('python -m launch.trai', ['launch.train']),
  ('/a/.venv/bin/python3 -m launch.train --wo', ['--workdir=']),
  ('JAX_PLATFORMS=cpu mgjax-train --wo', ['--workdir=']),
  ("mgjax-sample --prompt='the red digit' --out", ['--out=']),
  ("mgjax-sample --prompt='the red dig", []),
  ('mgjax-sample --schedule=', ['--schedule=linear', '--schedule=linear_quadratic']),
  ('mgjax-sample --solver eu', ['euler']),
  ('mgjax-sample --solver=euler --schedule=linear_', ['--schedule=linear_quadratic']),
  ('mgjax-train --config=digits/autoenc', ['--config=digits/autoencoder']),
  ('mgjax-train --config digits/autoenc', ['digits/autoencoder']),
  ('mgjax-train --config=digits/video --config.model.di', ['--config.model.dim=']),
  ('mgjax-train --config digits/video --config.model.di', ['--config.model.dim=']),
  ('mgjax-train --config=video/t2iv_256:30b --config.model.dept', ['--config.model.depth=']),
  ('mgjax-train --config.model.di', []),
  ('mgjax-data conv', ['convert']),
  ('mgjax-data convert conv', []),
  ('mgjax-data convert --layout=', [f'--layout={a}' for a in ('auto', 'files', 'parquet', 'tar')]),
  ('mgjax-train --workdir=', []),
  ('mgjax-nothing --', []),
  ('mgjax-train --none=', []),
  ('python script.py --wo', []),
  ('python -m pytest --wo', []),
  ('', []),
]  # fmt: skip


# Answers every line of its input in a fork of its own, for binaries have flags of the same names.
ANSWER = """
import json, os, sys
from launch.completion import candidates
for line in json.loads(sys.stdin.read()):
  if not os.fork():
    print(json.dumps(candidates(line)), flush=True)
    os._exit(0)
  assert os.wait()[1] == 0, line
"""


def ask(*lines):
  done = subprocess.run(
    [sys.executable, '-c', ANSWER],
    input=json.dumps(lines),
    cwd=CHECKOUT,
    check=True,
    capture_output=True,
    text=True,
  )
  return [json.loads(answer) for answer in done.stdout.splitlines()]


@pytest.fixture(scope='module')
def answers():
  """What is offered for each line of CASES and for the flags of each binary."""
  lines = [line for line, _ in CASES] + [flags_of(name) for name in command_line.binaries()]
  return dict(zip(lines, ask(*lines), strict=True))


def flags_of(name):
  return f'mgjax-{name} --'


@pytest.mark.parametrize(('line', 'found'), CASES, ids=lambda each: str(each)[:50])
def test_a_line_goes_on_as_its_flags_say(line, found, answers):
  assert answers[line] == found


@pytest.mark.parametrize('name', ['train', 'sample', 'suite', 'doctor'])
def test_every_flag_of_help_is_offered(name, answers):
  said = re.findall(r'^  --([\w-]+) ', binaries.run(name, '--help').stdout, re.MULTILINE)
  assert {each.strip('-=') for each in answers[flags_of(name)]} == {*said, 'help'}


@pytest.mark.parametrize('name', command_line.binaries())
def test_every_binary_has_flags_that_are_offered(name, answers):
  assert {'--cache', '--help'} <= set(answers[flags_of(name)])


def test_the_command_prints_what_a_line_goes_on_with(monkeypatch):
  monkeypatch.setenv('MGJAX_LINE', 'mgjax-train --wor')
  done = binaries.run('completion', 'words')
  assert (done.returncode, done.stdout) == (0, '--workdir=\n')
  assert binaries.run('completion', 'bash').stdout == script('bash')


def test_configurations_are_those_that_are_there():
  (found,) = ask('mgjax-train --config=')
  assert found == [f'--config={name}' for name in all_configs()]
  files = (CHECKOUT / 'configs').rglob('*.py')
  assert len(found) == sum('def get_config' in path.read_text() for path in files)


def test_the_code_of_a_strange_file_does_not_run(tmp_path):
  strange, ran = tmp_path / 'strange.py', tmp_path / 'ran'
  strange.write_text(f'def get_config():\n  open({str(ran)!r}, "w").close()\n')
  assert ask(f'mgjax-train --config={strange} --config.m') == [[]]
  assert not ran.exists()


def test_nothing_heavy_is_imported():
  code = """
import sys
from launch.completion import candidates
assert candidates('mgjax-train --config=digits/video --config.model.di')
print(*sorted({'jax', 'numpy', 'flax', 'orbax', 'grain', 'av'} & set(sys.modules)))
"""
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=CHECKOUT, check=True, capture_output=True, text=True
  )
  assert not done.stdout.strip()


class Terminal:
  """A shell on a terminal, into which keys are typed."""

  def __init__(self, *command, cwd):
    main, side = pty.openpty()
    path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
    environment = {
      **os.environ,
      'PATH': path,
      'TERM': 'dumb',
      'PS1': '',
      'PYTHONPATH': str(CHECKOUT),
    }
    self.process = subprocess.Popen(
      command,
      stdin=side,
      stdout=side,
      stderr=side,
      cwd=cwd,
      env=environment,
      start_new_session=True,
    )
    os.close(side)
    self._main, self.seen = main, ''

  def type(self, keys, until, seconds=60):
    """Types keys and waits for what matches; returns all that was seen since."""
    self.seen = ''
    os.write(self._main, keys.encode())
    end = time.monotonic() + seconds
    while not re.search(until, self.seen):
      assert time.monotonic() < end, f'{keys!r}: no {until!r} in {self.seen!r}'
      if select.select([self._main], [], [], 0.1)[0]:
        read = os.read(self._main, 4096).decode(errors='replace')
        self.seen += read.replace('\a', '')  # the bell
    return self.seen

  def close(self):
    self.process.kill()
    self.process.wait()
    os.close(self._main)


# Keys, and the line that has come of them; the tabulator asks a process, so a line ends after it.
TYPED = [
  ('echo x; python -m launch.train --wor\t', r'--workdir='),
  ('python -m launch.train --config=digits/autoenc\t', r'--config=digits/autoencoder '),
  ('python -m launch.sample --solver=eu\t', r'--solver=euler '),
  ('python -m launch.data conv\t', r'launch\.data convert '),
  ('python -m launch.trai\t', r'launch\.train '),
  ('python -m launch.train --config=digits/video --config.model.di\t', r'--config\.model\.dim='),
  ('python plan.t\t', r'plan\.txt'),
  ('python -m launch.train --workdir=fol\t', r'--workdir=folder/'),
]


@pytest.fixture(params=['bash', 'zsh'])
def shell(request, tmp_path):
  if not shutil.which(request.param):
    pytest.skip(f'{request.param} is not installed; apt-get install {request.param}')
  (tmp_path / 'plan.txt').touch()
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'complete').write_text(script(request.param))
  words = ('--norc', '--noprofile', '-i') if request.param == 'bash' else ('-f', '-i')
  terminal = Terminal(request.param, *words, cwd=tmp_path)
  begin = '' if request.param == 'bash' else 'PS1=; autoload -U compinit; compinit -u -D; '
  terminal.type(f'{begin}source ./complete; echo rea"dy"\n', 'ready')
  yield terminal
  terminal.close()


def test_the_tabulator_completes_in_a_shell(shell):
  for keys, line in TYPED:
    shell.type(keys, line)
    shell.type('\x15', '')  # away with the line
