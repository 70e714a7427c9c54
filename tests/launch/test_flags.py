"""What can be known from flags alone is said before anything heavy is imported."""

import pytest

from launch import command_line, flag_values
from mgjax.flow.sample import check_solver
from mgjax.flow.schedules import SCHEDULES
from tests import binaries

RUN = """
import runpy, sys
del sys.argv[0]
try:
  runpy.run_module(f'launch.{sys.argv[0]}', run_name='__main__', alter_sys=True)
except SystemExit as end:
  print(end.code, *sorted({'jax', 'orbax', 'grain', 'mgjax.registry'} & set(sys.modules)))
"""
SAMPLE = ['sample', 'video', '--workdir=w', '--prompt=a']
SOUND = ['sample', 'audio', '--workdir=w', '--prompt=a', '--seconds=1']
CASES = [
  (['sample', 'video'], 2, '--workdir is missing; for example --workdir=runs/video'),
  (
    ['sample', 'video', '--workdir=w'],
    2,
    "--prompt is missing; for example --prompt='the green digit 3 mo",
  ),
  ([*SAMPLE, '--solver=eulr'], 2, 'euler|midpoint|heun|unipc|dormand_prince'),
  ([*SAMPLE, '--schedule=cubic'], 2, 'linear|linear_quadratic'),
  ([*SAMPLE, '--guidance=a=b=c'], 2, 'expected a scale, as in 3, or scales of conditions by name'),
  ([*SAMPLE, '--size=32'], 2, '--size=32: expected height,width in pixels, as in 256,256'),
  ([*SAMPLE, '--size=0,32'], 2, '--size=0,32: expected height,width'),
  ([*SAMPLE, '--steps=0'], 2, '--steps=0: 0 is not a positive integer'),
  ([*SAMPLE, f'--seed={2**63}'], 2, 'is not an integer in the range [0, 9223372036854775807]'),
  ([*SAMPLE, '--fps=-1'], 2, '--fps=-1: -1.0 is not a number in the range [1, 240]'),
  ([*SAMPLE, '--out=x.gif'], 2, '--out=x.gif: .mp4 and .png and .wav can be written; name it so'),
  ([*SAMPLE, '--condition=first_frame'], 2, 'expected name=value, as in first_frame=picture.png'),
  ([*SAMPLE, '--condition=first_frame=none.png'], 3, "there is no file 'none.png'"),
  (
    ['sample', 'video', '--workdir=w', '--prompts=none.txt'],
    3,
    "--prompts: there is no file 'none.txt'",
  ),
  ([*SAMPLE, '--soundtrack=digits/sound'], 2, "there is no run 'digits/sound'; with mgjax come"),
  ([*SOUND, '--video=none.mp4'], 3, "--video: there is no file 'none.mp4'"),
  ([*SOUND, '--out=x.mp3'], 2, '--out=x.mp3: .mp4 and .png and .wav can be written; name it so'),
  ([*SOUND, '--known=a-b'], 2, '--known=a-b: expected seconds, as in 0-4,6-8'),
  ([*SOUND, '--extend=more'], 2, 'multi_diffusion|autoregressive|concatenate|whole'),
  (['evaluate', '--workdir=w', '--guidance=x='], 2, 'expected a scale, as in 3'),
  (['data', 'encode', '--config=digits/video', '--output=w', '--prompts=no'], 3, "no file 'no'"),
  (['data', 'convert', '--reencode=crf=99'], 2, '--reencode=crf=99: expected some of gop=1 to inf'),
  (['weights', 'prune', '--keep=newest=1'], 2, '--keep=newest=1: expected some of latest=1 to inf'),
  (
    ['weights', 'average', '--input=a,b', '--workdir=w', '--shares=2,x'],
    2,
    '--shares=2,x: expected numbers above 0, as in 2,1,1, or greedy',
  ),
  (['data', 'convert', '--input=a', '--output=b', '--layout=zip'], 2, 'auto|files|tar|parquet'),
  # With the flag of another word, nothing would be done with it.
  (
    ['weights', 'list', '--workdir=w', '--keep=latest=1'],
    2,
    '--keep is a flag of prune; list',
  ),
  (['serve', '--model=w', '--people=ann'], 2, '--people is a flag of review; videos does not take'),
  (
    ['data', 'mark', '--input=a', '--full'],
    2,
    '--full is a flag of convert; mark',
  ),
  (['plan', '--price=free'], 2, '--price=free: expected dollars a chip-hour, as in 2.5'),
  (['rehearse', '--price=-1'], 2, '--price=-1: expected dollars a chip-hour, as in 2.5'),
]


@pytest.mark.parametrize(('arguments', 'code', 'said'), CASES, ids=lambda each: str(each)[:60])
def test_a_wrong_flag_is_refused_before_anything_heavy_is_imported(arguments, code, said):
  run = binaries.python('-c', RUN, *arguments)
  assert said in run.stderr and run.stderr.startswith(f'{arguments[0]}.py: '), run.stderr
  assert len(run.stderr.strip().splitlines()) <= 2 and 'Traceback' not in run.stderr
  assert run.stdout.split() == [str(code)]  # and nothing heavy


def test_the_help_of_a_word_has_its_flags_alone():
  votes = binaries.run('serve', 'votes', '--help').stdout
  assert '  --raters ' in votes and '--database' not in votes.partition('Flags:')[2]
  assert "  --database (default ''; of videos)" in binaries.run('serve', '--help').stdout


def test_the_names_that_flags_take_are_those_of_the_library():
  assert set(flag_values.SCHEDULES) == set(SCHEDULES)
  for solver in flag_values.SOLVERS:
    check_solver(solver)


@pytest.mark.parametrize('text', ['2.5', '$2.5', '2.50'])
def test_a_price_may_have_its_sign(text):
  assert flag_values.price(text) == 2.5


def test_a_mesh_names_axes_that_there_are():
  assert flag_values.mesh('context=8') == {'context': 8}
  with pytest.raises(command_line.ConfigError, match='unknown mesh axes'):
    flag_values.mesh('bogus=2')
