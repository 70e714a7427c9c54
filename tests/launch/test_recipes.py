"""The recipes start a binary with the arguments they were given, and end as it ended."""

import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

from tests.binaries import succeeded
from tests.tiny import CHECKOUT
from tests.waiting import wait_for

RECIPES = sorted((CHECKOUT / 'launch' / 'recipes').glob('*.sh'))
ARGUMENTS = ['--config=configs/digits/video.py', "--config.data.path=it's here", '--workdir=/a b']
# Stands for Python and says how launch.train was called; --die, --wait and --hang are its own.
STAND_IN = r"""#!/usr/bin/env bash
if [[ $1 == -c ]]; then exec {python} "$@"; fi
exec >"$OUT/process$JAX_PROCESS_ID"
printf '%s\n' "$@"
env | grep '^JAX_' | sort
case $JAX_PROCESS_ID,"$*" in
  1,*--die*) exit 3 ;;
  *--die*) sleep 0.3; exit 5 ;;
  *--wait*) trap 'echo caught INT; exit 0' INT; trap 'echo caught TERM; exit 0' TERM ;;&
  1,*--hang*) exit 4 ;;
  *--hang*) trap '' INT TERM ;;&
  *--wait* | *--hang*) touch "$OUT/ready$JAX_PROCESS_ID"; while true; do sleep 0.05; done ;;
esac
"""
# Becomes the command it is given; a `preexec_fn` would fork this process, JAX's threads and all.
HEAR_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def programs(tmp_path):
  """An environment whose programs only say how they were called."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  for name in ('srun', 'gcloud', 'xpk', 'ray'):
    (folder / name).write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
  (folder / 'python').write_text(STAND_IN.format(python=shlex.quote(sys.executable)))
  for program in folder.iterdir():
    program.chmod(0o755)
  return {**os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}', 'OUT': str(tmp_path)}


def run(recipe, arguments, environment):
  command = ['bash', str(CHECKOUT / 'launch' / 'recipes' / recipe), *arguments]
  return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@contextlib.contextmanager
def started(arguments, environment):
  """The recipe at work; Ctrl-C means something to it even where the tests themselves ignore it."""
  recipe = str(CHECKOUT / 'launch' / 'recipes' / 'local.sh')
  process = subprocess.Popen(
    [sys.executable, '-c', HEAR_INTERRUPTS, 'bash', recipe, *arguments],
    env=environment,
    stderr=subprocess.DEVNULL,
  )
  try:
    yield process
  finally:
    process.terminate()
    process.wait(timeout=120)


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_sound_and_says_how_it_is_called(recipe):
  subprocess.run(['bash', '-n', recipe], check=True)
  text = recipe.read_text()
  assert f'launch/recipes/{recipe.name}' in text
  bench = ('launch.bench', '--out=')
  kinds = {'curate': ('launch.curate', '--output='), 'gpu': bench, 'cpu': bench}
  name, place = kinds.get(recipe.name.partition('_')[0], ('launch.train', '--workdir='))
  assert place in text
  assert name in text


def test_slurm_starts_one_task_a_node(programs):
  outcome = run('slurm.sh', ARGUMENTS, programs)
  lines = outcome.stdout.splitlines()
  assert lines[lines.index('python') :] == ['python', '-m', 'launch.train', *ARGUMENTS]
  assert '--kill-on-bad-exit=1' in lines
  assert '#SBATCH --ntasks-per-node=1' in (CHECKOUT / 'launch/recipes/slurm.sh').read_text()


@pytest.mark.parametrize(
  ('recipe', 'given'),
  [
    ('tpu_vm.sh', {'TPU': 'pod', 'ZONE': 'z'}),
    (
      'gke_xpk.sh',
      {'CLUSTER': 'c', 'ZONE': 'z', 'WORKLOAD': 'w', 'IMAGE': 'i', 'DEVICES': '--a=1 --b=2'},
    ),
  ],
)
def test_what_runs_far_away_gets_the_arguments_as_they_were_typed(programs, recipe, given):
  lines = run(recipe, ARGUMENTS, programs | given).stdout.splitlines()
  (command,) = (line.partition('=')[2] for line in lines if line.startswith('--command='))
  words = shlex.split(command)
  assert words[words.index('-m') :] == ['-m', 'launch.train', *ARGUMENTS]
  for value in ' '.join(given.values()).split():
    assert any(value in line for line in lines)
  for name in given:
    without = {key: value for key, value in programs.items() if key != name}
    outcome = run(recipe, ARGUMENTS, without | {k: v for k, v in given.items() if k != name})
    assert outcome.returncode != 0 and name in outcome.stderr


def test_slurm_curates_with_ray_over_all_nodes(programs, tmp_path):
  hosts = tmp_path / 'bin' / 'scontrol'
  hosts.write_text('#!/usr/bin/env bash\nprintf "%s\\n" node7 node8\n')
  hosts.chmod(0o755)
  given = programs | {'SLURM_JOB_NODELIST': 'node[7-8]', 'JAX_PROCESS_ID': '0'}
  outcome = succeeded(run('curate_slurm.sh', ARGUMENTS, given))
  called = (tmp_path / 'process0').read_text().splitlines()
  place = '--address=node7:6379'
  assert called[: 4 + len(ARGUMENTS)] == [
    '-m',
    'launch.curate',
    '--engine=ray',
    place,
    *ARGUMENTS,
  ]
  assert '--kill-on-bad-exit=1' in outcome.stdout and f'exec ray start {place}' in outcome.stdout
  assert run('curate_slurm.sh', ARGUMENTS, programs).returncode != 0  # not by sbatch


def test_kuberay_gets_a_job_with_the_arguments_as_they_were_typed(programs):
  given = {
    'NAME': 'run1',
    'IMAGE': 'i/mgjax:1',
    'VOLUME': 'claim',
    'NODES': '4',
    'CORES': '8',
    'MEMORY': '16Gi',
    'KUBECTL': 'cat',
  }
  said = run('curate_kuberay.sh', ARGUMENTS, programs | given).stdout
  (line,) = (line for line in said.splitlines() if 'entrypoint:' in line)
  quoted = line.partition(': ')[2]
  assert quoted[0] == quoted[-1] == "'"
  words = shlex.split(quoted[1:-1].replace("''", "'"))
  assert words == ['python', '-m', 'launch.curate', '--engine=ray', '--address=auto', *ARGUMENTS]
  assert 'kind: RayJob' in said and 'replicas: 3' in said and said.count('image: i/mgjax:1') == 2
  for name in set(given) - {'KUBECTL'}:
    without = {key: value for key, value in (programs | given).items() if key != name}
    outcome = run('curate_kuberay.sh', ARGUMENTS, without)
    assert outcome.returncode != 0 and name in outcome.stderr


def test_local_processes_know_one_another(programs, tmp_path):
  assert run('local.sh', ['3', *ARGUMENTS], programs).returncode == 0
  said = [(tmp_path / f'process{index}').read_text().splitlines() for index in range(3)]
  addresses = set()
  for index, lines in enumerate(said):
    assert lines[: 2 + len(ARGUMENTS)] == ['-m', 'launch.train', *ARGUMENTS]
    variables = dict(line.split('=', 1) for line in lines[2 + len(ARGUMENTS) :])
    assert variables['JAX_PROCESS_ID'] == str(index)
    assert variables['JAX_NUM_PROCESSES'] == '3'
    addresses.add(variables['JAX_COORDINATOR_ADDRESS'])
  (address,) = addresses
  host, port = address.split(':')
  assert host == '127.0.0.1' and 0 < int(port) < 65536


@pytest.mark.parametrize('arguments', [[], ['--workdir=w'], ['0'], ['two', '--workdir=w']])
def test_local_asks_for_a_number_of_processes(programs, arguments):
  outcome = run('local.sh', arguments, programs)
  assert outcome.returncode == 2
  assert 'local.sh: the first argument is the number of processes' in outcome.stderr


def test_local_ends_as_the_first_that_failed(programs):
  assert run('local.sh', ['3', '--die'], programs).returncode == 3


def test_local_ends_those_that_hang_after_one_has_failed(programs, tmp_path):
  assert run('local.sh', ['2', '--hang'], programs).returncode == 4
  assert not alive(tmp_path)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_local_passes_a_signal_on_to_all(programs, tmp_path, number):
  with started(['2', '--wait'], programs) as process:
    wait_for(lambda: all((tmp_path / f'ready{index}').exists() for index in range(2)))
    process.send_signal(number)
    assert process.wait(timeout=120) == 0
  for index in range(2):
    caught = f'caught {signal.Signals(number).name.removeprefix("SIG")}'
    assert caught in (tmp_path / f'process{index}').read_text()


def alive(folder: pathlib.Path) -> list[str]:
  """The processes that still have the stand-in open."""
  listed = subprocess.run(['ps', '-eo', 'args'], capture_output=True, text=True, check=True).stdout
  return [line for line in listed.splitlines() if f'{folder}/bin/python' in line]
