"""Whatever a command is given, it ends in an answer or a sentence; and the driver would notice."""

import pytest

from tests import binaries
from tests.hostile import driver

PLANTED = [
  ('refused', "raise SystemExit(print('x is 3; expected 4', file=sys.stderr) or 2)"),
  ('done', "print('loss 0.5')"),
  ('at work', "while not time.sleep(0.1): print('one more', flush=True)"),
  ('traceback', '1 / 0'),
  ('traceback', "print('Exception ignored in: x', file=sys.stderr)"),
  ('hang', 'time.sleep(600)'),
  ('hang', "os.mkfifo('pipe'), open('pipe')"),
  ('silent wrong', "print('loss nan')"),
  ('data lost', "open('precious', 'w')"),
  ('crash', 'os.kill(os.getpid(), 11)'),
  ('crash', 'raise SystemExit(9)'),
  ('no sentence', 'raise SystemExit(2)'),
  ('no sentence', "raise SystemExit(print('\\x1b[31m', file=sys.stderr) or 2)"),
]


@pytest.mark.parametrize(('verdict', 'code'), PLANTED)
def test_the_driver_notices_how_a_command_ends(tmp_path, verdict, code):
  ground, planted = tmp_path / 'ground', tmp_path / 'planted.py'
  ground.mkdir()
  (ground / 'precious').write_text('whole')
  planted.write_text(f'import os, sys, time\n{code}\n')
  attempt = driver.Try(['planted'], conditions={'file': str(planted)}, seconds=1)
  found, said = attempt.perform(ground, tmp_path / 'of/its/own')
  assert found == verdict, said


def test_an_answer_to_what_has_none_is_counted_as_wrong(tmp_path):
  (tmp_path / 'ground').mkdir()
  (tmp_path / 'planted.py').write_text("print('loss 0.5')")
  planted = {'file': str(tmp_path / 'planted.py')}
  attempt = driver.Try(['planted'], conditions=planted, wrong=True)
  assert attempt.perform(tmp_path / 'ground', tmp_path / 'its')[0] == 'silent wrong'


@pytest.mark.timeout(20_000)
@pytest.mark.parametrize(
  ('names', 'tries'),
  [
    pytest.param(('flags', 'names'), 24, id='quick'),
    pytest.param((), 300, marks=pytest.mark.slow, id='all'),
  ],
)
def test_bad_input_ends_in_an_answer_or_a_sentence(tmp_path, names, tries):
  found = driver.run(tries, 0, tmp_path / 'out', names)
  counts = sum(found.values(), driver.collections.Counter())
  assert counts.total() == tries and counts['refused'] >= tries / 8
  assert not [each for each in driver.WRONG if counts[each]], (
    tmp_path / 'out/failures.txt'
  ).read_text()


LONG = 'a' * 300
SAMPLE = ('sample', 'video', '--workdir=digits/few_steps', '--prompt=a')
# Bad input that somebody found: a command, its exit code, and what it has to say.
FOUND = [
  (('train', '--config=digits/autoencoder', f'--workdir={LONG}'), 2, 'File name too long; give'),
  (('sample', 'video', f'--workdir={LONG}', '--prompt=a'), 2, 'File name too long; give another'),
  (('evaluate', f'--workdir={LONG}'), 2, 'File name too long; give another'),
  (('weights', 'list', f'--workdir={LONG}'), 2, 'File name too long; give another'),
  (('bench', f'--workdir={LONG}'), 2, 'File name too long; give another'),
  (('data', 'inspect', f'--input={LONG}'), 2, 'File name too long; give another'),
  (('compare', 'analyse', f'--study={LONG}'), 2, 'File name too long; give another'),
  (('serve', 'votes', f'--out={LONG}'), 2, 'File name too long; give another'),
  (('weights', 'export', '--workdir=digits/codec', f'--out=/{20 * LONG}'), 2, 'aaa...'),
  ((*SAMPLE, '--guidance=nan'), 2, '--guidance=nan: expected a scale, as in 3'),
  ((*SAMPLE, '--guidance=text=inf'), 2, '--guidance=text=inf: expected a scale, as in 3'),
  ((*SAMPLE, '--mesh=context=-2'), 2, 'context'),
  ((*SAMPLE, '--schedule=a\u202e'), 2, r'a\u202e: value should be one of'),
  (('scaling', 'predict', '--records=x', '--compute=nan'), 2, '--compute=nan: expected a number'),
  (('scaling', 'predict', '--records=x', '--compute=1e309'), 2, '--compute=inf: expected a number'),
]


@pytest.mark.parametrize(('words', 'code', 'said'), FOUND)
def test_bad_input_that_was_found_once_is_refused_with_a_sentence(words, code, said):
  done = binaries.run(*words)
  assert (done.returncode, said in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'component': 1e308}, 'unknown component 1e+308'),
    ({'component': []}, 'unknown component []'),
    ({'model': {'dtype': 5}}, "unknown compute type '5'; expected one of"),
    ({'mesh': {'tensor': -(10**30)}}, 'mesh.tensor = -1000'),
    ({'train': {'limits': {'compile': 1e30}}}, 'compile = 1e+30; expected a finite number from 0'),
    ({'sample': {'schedule': {'name': 'linear', 'shift_factor': {}}}}, 'shift_factor = {}; expec'),
  ],
)
def test_settings_of_another_type_are_refused_with_a_sentence(tmp_path, fields, said):
  (tmp_path / 'odd.py').write_text(
    'from configs.digits.frames import get_config as whole\nfrom ml_collections import ConfigDict\n'
    '\ndef get_config():\n  found = whole().to_dict()\n'
    f'  for name, value in {fields}.items():\n'
    '    found[name] = found[name] | value if isinstance(value, dict) else value\n'
    '  return ConfigDict(found)\n'
  )
  done = binaries.run('train', f'--config={tmp_path}/odd.py', f'--workdir={tmp_path}', '--dry_run')
  assert (done.returncode, said in done.stderr) == (2, True), done.stderr
