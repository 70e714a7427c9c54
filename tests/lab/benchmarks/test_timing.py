"""The clock: turns, warm-up, compilations that it would count in, and depths that fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, is_out_of_memory
from mgjax.lab.benchmarks import timing


def test_programs_take_turns():
  order = []
  runs = {name: lambda name=name: order.append(name) for name in ('ours', 'theirs')}
  for run in runs.values():
    timing.warm_up(run)
  assert order == ['ours'] * timing.WARM_UP + ['theirs'] * timing.WARM_UP
  del order[:]
  found = timing.interleave(runs, 3)
  assert order == ['ours', 'theirs'] * (2 + 3)  # two that do not count
  for times in found.values():
    assert 0 <= times['min'] <= times['median']


def test_a_program_that_uses_up_its_state_goes_on_with_the_next():
  shapes = (jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32))
  program = timing.compile_program(lambda x, y: (x + y, x), shapes, donates=True)
  arguments = [jnp.zeros(()), jnp.ones(())]
  run = timing.repeated(program.call, arguments, donates=True)
  for _ in range(3):
    run()
  assert float(arguments[0]) == 3


def test_memory_of_a_program_is_what_it_reads_writes_and_needs_between():
  x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  program = timing.compile_program(lambda x: (x @ x) @ x, (x,))
  assert program.bytes - program.temporary == 2 * 4 * 64**2
  assert program.temporary >= 4 * 64**2 and program.seconds > 0
  written_over = timing.compile_program(lambda x: (x + 1, x.sum()), (x,), donates=True)
  assert written_over.bytes - written_over.temporary < 2 * 4 * 64**2


def test_compilations_are_noticed_and_runs_are_not():
  program = timing.compile_program(lambda x: x * 2, (jax.ShapeDtypeStruct((3,), jnp.float32),))
  x, longer = (jnp.asarray(np.ones(n, np.float32)) for n in (3, 4))
  with timing.counted_compilations() as compilations:
    for _ in range(3):
      program.call(x)
    assert not compilations
    with pytest.raises(TypeError, match='compiled'):  # it is never compiled for another shape
      program.call(longer)
    jax.jit(lambda x: x * 3)(x)
    assert len(compilations) == 1
  jax.jit(lambda x: x * 4)(x)
  assert len(compilations) == 1


def test_out_of_memory_is_recognised_in_any_words():
  assert is_out_of_memory(jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'))
  assert is_out_of_memory(RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB'))
  assert is_out_of_memory(MemoryError())
  assert not is_out_of_memory(RuntimeError('INVALID_ARGUMENT: shapes'))
  assert not is_out_of_memory(ValueError('out of memory'))


@pytest.mark.parametrize(('capacity', 'expected'), [(1e9, 48), (100, 6), (102, 7), (10, 1)])
def test_the_depth_that_fits_lies_on_a_line_through_two(capacity, expected):
  asked = []

  def bytes_of(depth):
    asked.append(depth)
    return 11 + 12 * depth

  # 6% stay free: 94 = 11 + 12 x 6.9, 95.9 = 11 + 12 x 7.1.
  assert timing.estimate_depth(48, capacity, bytes_of) == expected
  assert asked == [2, 4]


def test_few_layers_and_failing_estimates_are_just_tried():
  assert timing.estimate_depth(2, 1.0, lambda depth: pytest.fail('asked')) == 2

  def too_large(depth):
    raise RuntimeError('RESOURCE_EXHAUSTED')

  assert timing.estimate_depth(48, 1e9, too_large) == 1


def test_layers_are_halved_after_every_failure():
  tried = []

  def attempt(depth):
    tried.append(depth)
    if depth > 3:
      raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory')
    return 'done'

  result, depth, notes = timing.halve_until_it_fits(attempt, 13)
  assert (result, depth, tried) == ('done', 3, [13, 6, 3])
  assert [note.split(' (')[0] for note in notes] == [
    '13 layers were out of memory',
    '6 layers were out of memory',
  ]


@pytest.mark.parametrize(
  ('error', 'told', 'sentence'),
  [
    (ValueError('shapes'), ValueError, 'shapes'),
    (MemoryError(), ConfigError, 'not even one layer'),
  ],
)
def test_other_errors_and_one_layer_that_does_not_fit_end_it(error, told, sentence):
  def attempt(depth):
    raise error

  with pytest.raises(told, match=sentence):
    timing.halve_until_it_fits(attempt, 4)
