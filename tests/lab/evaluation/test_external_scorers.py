"""Scorers are other programs: what they are asked, and what becomes of what they answer."""

import os
import sys
import textwrap
import time

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.evaluation.external_scorers import CommandScorer
from mgjax.sections.audio.captions import AudioCaption
from tests.tiny import CHECKOUT

RATE = 48_000
SCRIPTS = CHECKOUT / 'examples'
SOUNDS = [np.full((480, 1), 0.5, np.float32), np.full((960, 1), -0.25, np.float32)]
START = 'import json, pathlib, sys; request = json.loads(pathlib.Path(sys.argv[-2]).read_text())'


def program(*lines, start=START, name='', patience=60.0):
  """A scorer that runs these lines; `answer` writes what it gets."""
  answer = 'answer = lambda value: pathlib.Path(sys.argv[-1]).write_text(json.dumps(value))'
  return CommandScorer((sys.executable, '-c', '\n'.join([start, answer, *lines])), name, patience)


LOOK = """
import wave
found = []
for path in request['sounds']:
  with wave.open(path) as file:
    size = file.getnframes()
    first = int.from_bytes(file.readframes(1)[:2], 'little', signed=True)
  found.append((size, file.getnchannels(), file.getframerate(), file.getsampwidth(), first))
"""


def test_a_scorer_finds_the_sounds_the_rate_and_what_they_are_judged_against():
  scorer = program(
    LOOK,
    "answer({'size': [row[0] for row in found], 'first': [row[4] for row in found],",
    " 'form': [row[1] * 10 + row[3] for row in found], 'rate': [row[2] for row in found],",
    " 'same': [row[2] == request['rate'] for row in found],",
    " 'caption': [len(caption) for caption in request['captions']],",
    " 'video': [path.startswith('/') and path.endswith('a.mp4') for path in request['videos']]})",
  )
  scores = scorer.measure(SOUNDS, RATE, captions=['rain', ''], videos=['a.mp4', '/b/a.mp4'])
  expected = {
    'size': [480, 960],
    'form': [12, 12],
    'rate': [RATE, RATE],
    'same': [1, 1],
    'caption': [4, 0],
    'video': [1, 1],
  }
  assert {name: list(numbers) for name, numbers in scores.items() if name != 'first'} == expected
  np.testing.assert_allclose(scores['first'], [2**14, -(2**13)], atol=1)  # rounding to 16 bits


def test_one_number_of_several_is_named():
  lines = "answer({'a': [1, 2], 'b': [3.5, 4]})"
  assert list(program(lines, name='b').score(SOUNDS, RATE)) == [3.5, 4]
  for name in ('', 'c'):
    with pytest.raises(DataError, match=rf"gives 'a', 'b', not '{name}'; name one of them"):
      program(lines, name=name).score(SOUNDS, RATE)


@pytest.mark.parametrize(
  ('caption', 'expected_caption'),
  [
    ('rain', 'rain'),
    (str(AudioCaption('rain', 7.0)), 'rain'),
    (str(AudioCaption('rain', 8.0, music=0.9, music_description='jazz')), 'rain; jazz'),
    ('', None),
  ],
)
def test_candidates_are_scored_against_what_their_caption_describes(caption, expected_caption):
  captions = None if expected_caption is None else [expected_caption] * 3
  right = f"answer({{'x': [request['captions'] == {captions!r}] * 3}})"
  candidates = np.zeros((3, 480, 1), np.float32)
  assert list(program(right)(candidates, RATE, caption=caption, motion=None)) == [1] * 3


@pytest.mark.parametrize(
  ('line', 'said'),
  [
    ('', 'wrote no answer to its last argument'),
    ("pathlib.Path(sys.argv[-1]).write_text('{')", r'is no readable JSON: .* {"name": \[numbers'),
    ("answer({'x': ['1', '2']})", '0 of them finite'),
    ("answer({'x': [10**400, 1]})", '1 of them finite'),
    (r"answer({'x\x1b' * 99: 1})", r"'x\\x1bx"),
    ('pathlib.os.mkfifo(sys.argv[-1])', 'wrote no answer'),
    ("pathlib.Path(sys.argv[-1]).write_text('[' * 100_000)", 'nested too deep'),
    ("pathlib.Path(sys.argv[-1]).write_bytes(b' ' * 17_000_000)", 'has more than 16 MiB'),
    ('answer({})', 'holds no number'),
    ("answer({'x': [1]})", r"gives 1 number\(s\) 'x' for 2 sound\(s\), 1 of them finite"),
    ("answer({'x': [1, float('nan')]})", r'1 of them finite; it has to give one finite number'),
  ],
)
def test_an_answer_that_is_none_is_refused(line, said):
  with pytest.raises(DataError, match=said):
    program(line).measure(SOUNDS, RATE)


FAILS = ("print('x' * 1000)", "raise SystemExit('there is no such model')")


@pytest.mark.parametrize(
  ('scorer', 'arguments', 'error', 'said'),
  [
    (program(*FAILS), {}, ConfigError, 'failed with 1; the end of what .* no such model'),
    (CommandScorer(('no/python',)), {}, ConfigError, 'does not start: No such file or directory'),
    (CommandScorer(('/',)), {}, ConfigError, 'does not start: Permission denied'),
    (
      program(''),
      {'captions': ['rain']},
      DataError,
      '2 audio clips and 1 captions: give one a clip',
    ),
    (program(''), {'videos': ['a', 'b', 'c']}, DataError, '2 audio clips and 3 videos'),
    (program(''), {'sounds': []}, DataError, 'needs one finite sound or more'),
    (program(''), {'sounds': [np.full((480, 1), np.nan)]}, DataError, 'one finite sound or more'),
  ],
)
def test_what_cannot_be_scored_is_a_sentence_and_nothing_stays_behind(
  scorer, arguments, error, said, tmp_path, monkeypatch
):
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  with pytest.raises(error, match=said) as caught:
    scorer.score(**({'sounds': SOUNDS, 'rate': RATE} | arguments))
  assert len(str(caught.value)) < 1000 and not list(tmp_path.iterdir())


def test_a_program_that_hangs_ends_with_all_that_it_started(tmp_path):
  alive = tmp_path / 'alive'
  touch = f'pathlib.Path({os.fspath(alive)!r}).touch()'
  child = f'import pathlib, time\nwhile True: {touch}; time.sleep(.01)'
  lines = f'import subprocess; subprocess.Popen([sys.executable, "-c", {child!r}]).wait()'
  with pytest.raises(ConfigError, match=r'was stopped after 4 s; score fewer tracks'):
    program(lines, patience=4.0).score(SOUNDS, RATE)
  time.sleep(0.1)
  alive.unlink()  # it was there
  time.sleep(0.1)
  assert not alive.exists()


def python_with(tmp_path, package, source):
  """A Python that has a package with this source."""
  folder = tmp_path / 'packages' / package
  folder.mkdir(parents=True)
  (folder / '__init__.py').touch()
  (folder / 'infer.py').write_text(textwrap.dedent(source))
  python = tmp_path / 'python'
  python.write_text(f'#!/bin/sh\nPYTHONPATH={folder.parent} exec {sys.executable} "$@"\n')
  python.chmod(0o755)
  return python


def test_aesthetics_are_four_numbers_a_sound(tmp_path):
  python = python_with(
    tmp_path,
    'audiobox_aesthetics',
    """
    class Predictor:
      def __init__(self, ckpt): self.ckpt = ckpt
      def forward(self, batch):
        assert len(batch) <= 16
        count = [int(item['path'][-7:-4]) for item in batch]
        return [{'CE': x, 'CU': x + 1, 'PC': x + 2, 'PQ': len(self.ckpt or '')} for x in count]
    def initialize_predictor(ckpt=None): return Predictor(ckpt)
    """,
  )
  sounds = [np.zeros((48, 1), np.float32)] * 20
  script = os.fspath(SCRIPTS / 'score_aesthetics.py')
  scores = CommandScorer((os.fspath(python), script)).measure(sounds, RATE)
  assert set(scores) == {'PQ', 'PC', 'CE', 'CU'}
  assert list(scores['PC']) == list(range(2, 22)) and set(scores['PQ']) == {0}
  named = CommandScorer((os.fspath(python), script, '--weights=weights.pt'), 'PQ')
  assert set(named.score(sounds[:2], RATE)) == {10}


def test_clap_wants_captions():
  words = sys.executable, os.fspath(SCRIPTS / 'score_clap.py'), '--weights=x'
  with pytest.raises(ConfigError, match=r'failed with 2; .*the request has none'):
    CommandScorer(words).score(SOUNDS, RATE)
