"""Programs that were saved: the same bits, found without a trace, refused where they do not fit."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgjax
from mgjax.core.errors import ConfigError
from mgjax.runtime.saved_programs import SavedPrograms
from mgjax.video.pipeline import VideoPipeline

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
PROMPTS = [
  'the green digit 3 moves left',
  'the red digit 7 moves up',
  'a photo of the blue digit 1',
]
ABOUT = {'steps': 3}
START = """
import jax, logging
from mgjax.runtime import compilation_cache
from mgjax.runtime.saved_programs import SavedPrograms
logging.basicConfig(level=logging.INFO, format='%(message)s')
compilation_cache.use()
about = {about}
def scaled(weights, x):
  print('traced')
  return x @ weights['kernel'] / 3
kept = SavedPrograms(used_by='a test').keep('scaled', jax.jit(scaled), about)
weights = {{'kernel': jax.numpy.arange(6.0).reshape(2, 3)}}
x = jax.numpy.arange(6.0).reshape(3, 2)
print(kept(weights, x).sum(), kept(weights, 2 * x).sum())
"""


def scale(weights, x, *, power=1):
  return jnp.tanh(x @ weights['kernel']) ** power / 3


def arguments(rows=2):
  kernel = jax.random.normal(jax.random.key(0), (4, 5))
  return {'kernel': kernel}, jax.random.normal(jax.random.key(1), (rows, 4))


def jitted():
  return jax.jit(scale, static_argnames='power')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A file with the program of `scale`."""
  path = tmp_path_factory.mktemp('saved') / 'scale.program'
  programs = SavedPrograms()
  programs.keep('scale', jitted(), ABOUT)(*arguments(), power=2)
  programs.save(path, {'rows': 2})
  return path


def test_a_saved_program_gives_the_bits_of_the_one_that_was_traced(saved):
  programs = SavedPrograms(saved)
  assert programs.made == {'rows': 2}
  run = programs.keep('scale', untraceable(), ABOUT)
  expected = jitted()(*arguments(), power=2)
  for _ in range(2):
    np.testing.assert_array_equal(run(*arguments(), power=2), expected)


def untraceable():
  def refuse(*_, power):
    raise AssertionError('traced')

  return jax.jit(refuse, static_argnames='power')


def test_a_loaded_program_is_saved_again_as_whole_as_before(saved, tmp_path):
  again = tmp_path / 'again.program'
  programs = SavedPrograms(saved)
  programs.keep('scale', untraceable(), ABOUT)(*arguments(), power=2)
  programs.save(again, {'rows': 2})
  run = SavedPrograms(again).keep('scale', untraceable(), ABOUT)
  expected = jitted()(*arguments(), power=2)
  np.testing.assert_array_equal(run(*arguments(), power=2), expected)


def test_a_program_of_another_version_or_option_is_refused_with_a_sentence(saved, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(mgjax, '__version__', '99.0')
    with pytest.raises(ConfigError, match=r"mgjax: '.+' -> '99\.0'.*--save_program") as refused:
      SavedPrograms(saved)
    assert '\n' not in str(refused.value) and str(saved) in str(refused.value)
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=true')
  with pytest.raises(ConfigError, match=r'options\.XLA_FLAGS'):
    SavedPrograms(saved)


def test_a_program_of_other_settings_or_arrays_is_refused_with_a_sentence(saved):
  with pytest.raises(ConfigError, match=r'\(scale\): steps: 3 -> 4; leave --program out'):
    SavedPrograms(saved).keep('scale', jitted(), {'steps': 4})
  run = SavedPrograms(saved).keep('scale', jitted(), ABOUT)
  with pytest.raises(ConfigError, match=r"'float32\[2, 4\]' -> 'float32\[3, 4\]'"):
    run(*arguments(rows=3), power=2)
  with pytest.raises(ConfigError, match=r"power: '2' -> '1'"):
    run(*arguments(), power=1)


@pytest.mark.parametrize(
  'damage',
  [
    pytest.param(lambda data: data[:-1], id='the last byte is missing'),
    pytest.param(lambda data: data[: len(data) // 2], id='half of it is missing'),
    pytest.param(lambda data: data[:40], id='its digest is cut'),
    pytest.param(lambda data: data[:-9] + b'x' + data[-8:], id='a byte is another one'),
    pytest.param(lambda data: b'', id='it is empty'),
    pytest.param(lambda data: b'\x80\x04' + data, id='it is any pickle'),
  ],
)
def test_a_damaged_or_foreign_file_is_one_sentence_and_is_not_unpickled(
  saved, tmp_path, damage, monkeypatch
):
  path = tmp_path / 'damaged.program'
  path.write_bytes(damage(saved.read_bytes()))
  monkeypatch.setattr('pickle.loads', lambda *_: pytest.fail('unpickled'))
  with pytest.raises(ConfigError, match='--save_program') as refused:
    SavedPrograms(path)
  assert '\n' not in str(refused.value)


def test_a_file_that_is_not_there_and_programs_that_never_ran_are_sentences(tmp_path):
  with pytest.raises(ConfigError, match='cannot read the programs'):
    SavedPrograms(tmp_path / 'missing.program')
  programs = SavedPrograms()
  programs.keep('scale', jitted(), ABOUT)
  with pytest.raises(ConfigError, match='none has run'):
    programs.save(tmp_path / 'empty.program', {})
  assert not list(tmp_path.iterdir())


def started(tmp_path, about=ABOUT):
  """How often a process traced, and what it computed; it has a folder of programs."""
  ours = {name: value for name, value in os.environ.items() if 'CACHE' not in name}
  environment = {**ours, 'PYTHONPATH': str(CHECKOUT), 'XDG_CACHE_HOME': str(tmp_path)}
  done = subprocess.run(
    [sys.executable, '-c', START.format(about=about)],
    env=environment, capture_output=True, text=True, timeout=120,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  *traces, result = done.stdout.splitlines()
  return len(traces), result


def test_the_next_process_does_not_trace_and_computes_the_same(tmp_path):
  traces, result = started(tmp_path)
  assert traces == 1
  assert started(tmp_path) == (0, result)
  assert started(tmp_path, about={'steps': 4}) == (1, result)
  for path in next((tmp_path / 'mgjax' / 'compiled').iterdir()).iterdir():
    path.write_bytes(path.read_bytes()[:-1])
  assert started(tmp_path) == (1, result)


@pytest.mark.parametrize('mesh', [None, 'context=2,data=4'])
def test_a_sampler_from_a_file_makes_the_same_videos_for_any_number_of_prompts(
  tiny_runs, tmp_path, mesh
):
  path = tmp_path / 'sampler.program'
  traced = VideoPipeline(tiny_runs / 'video', mesh=mesh, steps=2)
  expected = traced.generate(PROMPTS[:2], seed=2**40 + 5)
  traced.save_program(path)
  loaded = VideoPipeline(tiny_runs / 'video', mesh=mesh, steps=2, program=path)
  np.testing.assert_array_equal(loaded.generate(PROMPTS[:2], seed=2**40 + 5), expected)
  # Three prompts run in batches of the two that the program was compiled for.
  more = loaded.generate(PROMPTS, seed=2**40 + 5)
  np.testing.assert_array_equal(more[:2], expected)
  assert len(more) == 3
  with pytest.raises(ConfigError, match=r'shape: \[4, 16, 16\] -> \[2, 16, 16\]'):
    loaded.generate(PROMPTS, shape=(2, 16, 16))
  with pytest.raises(ConfigError, match=r'sample\.steps: 2 -> 3'):
    VideoPipeline(tiny_runs / 'video', mesh=mesh, steps=3, program=path)


def test_nothing_is_saved_before_a_video_is_made(tiny_runs, tmp_path):
  with pytest.raises(ConfigError, match='before a video is made'):
    VideoPipeline(tiny_runs / 'video').save_program(tmp_path / 'early.program')
