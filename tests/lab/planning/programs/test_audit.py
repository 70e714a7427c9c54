"""A compiled program's text to its collectives, on a made-up program with all the traps."""

import pathlib

import pytest

from mgjax.lab.planning.programs.audit import audit
from mgjax.lab.planning.programs.placement import audit_failures, axis_of, group_collectives
from mgjax.parallel.chips import parse_topology

SIZES = {'slice': 1, 'data': 1, 'fsdp': 4, 'context': 16, 'tensor': 1}
PROGRAM = pathlib.Path(__file__).with_name('small_step.hlo.txt').read_text()


@pytest.fixture(scope='module')
def found():
  return {(each.kind, each.asynchronous, each.dtype): each for each in audit(PROGRAM)}


def test_every_collective_is_found_once_with_its_turns():
  found = audit(PROGRAM)
  assert sorted((each.kind, each.asynchronous, each.executions) for each in found) == [
    ('all-gather', False, 48),
    ('all-gather', True, 48),
    ('all-gather', True, 48),
    ('all-reduce', False, 1),
    ('all-to-all', True, 48),
    ('collective-permute', True, 48),
    ('reduce-scatter', False, 1),
    ('reduce-scatter', False, 48),
  ]


def test_bytes_are_of_the_whole_array_once(found):
  assert found[('all-gather', False, 'bf16')].bytes == 128 * 64 * 2
  assert found[('all-gather', True, 'f32')].bytes == 128 * 64 * 4
  assert found[('all-to-all', True, 'bf16')].bytes == 8 * 64 * 2
  assert found[('collective-permute', True, 'bf16')].bytes == 8 * 64 * 2
  assert found[('all-reduce', False, 'f32')].bytes == (64 + 128) * 4
  scatters = [each for each in audit(PROGRAM) if each.kind == 'reduce-scatter']
  scattered = {each.bytes: each.executions for each in scatters}
  # One is an all-reduce of padded pieces, of the other the text gives one of 16 pieces.
  assert scattered == {132 * 64 * 2: 48, 16 * 2 * 64 * 4: 1}


def test_groups_are_read_however_they_are_written(found):
  assert axis_of(found[('all-gather', False, 'bf16')], SIZES) == 'fsdp'
  assert axis_of(found[('all-gather', True, 'f32')], SIZES) == 'context'
  assert axis_of(found[('all-to-all', True, 'bf16')], SIZES) == 'context'
  assert axis_of(found[('collective-permute', True, 'bf16')], SIZES) == 'context'
  assert axis_of(found[('all-reduce', False, 'f32')], SIZES) == 'fsdp+context'


def test_collectives_are_named_by_what_they_are_for(found):
  placed = group_collectives(list(found.values()), SIZES, parse_topology('v5p:4x4x4'))
  purposes = {(each.what, each.kind) for each in placed}
  assert purposes >= {
    ('weights', 'all-gather'),
    ('attention', 'all-to-all'),
    ('attention', 'collective-permute'),
    ('gradients', 'reduce-scatter'),
    ('other', 'all-reduce'),
  }
  weights = next(each for each in placed if each.what == 'weights' and each.axis == 'fsdp')
  assert weights.bytes == 48 * 128 * 64 * 2
  hops = weights.count * 2 * 1e-6
  assert weights.seconds == pytest.approx(weights.bytes * 3 / 4 / (2 * 90e9) + hops)


def test_float32_weights_and_large_all_reduces_are_complained_of():
  found = audit(PROGRAM)
  (said,) = audit_failures(found, matrix=128 * 64 * 2)
  assert said.startswith('FAIL all-gather in float32')
  assert not audit_failures(found, matrix=10**9)
  spread = PROGRAM.replace('all-reduce-scatter.3', 'fused_computation.3')
  assert any('all-reduce of' in said for said in audit_failures(audit(spread), matrix=128 * 64 * 2))


def test_only_the_gather_with_a_product_in_flight_has_work_between(found):
  work = {kind: [s.work for s in each.between] for kind, each in found.items() if each.between}
  assert [each.linear for each in work.pop(('all-gather', True, 'bf16'))] == [2 * 64**3]
  assert not work  # the others end in the line after their start
