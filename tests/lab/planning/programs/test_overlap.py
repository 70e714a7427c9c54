"""Schedules built by hand: what hides, what does not, and what is counted of an instruction."""

import numpy as np
import pytest

from mgjax.lab.planning.efficiency import Ends, rates_of
from mgjax.lab.planning.programs.audit import audit
from mgjax.lab.planning.programs.hlo import parse_program
from mgjax.lab.planning.programs.placement import group_collectives
from mgjax.lab.planning.programs.work import Work, WorkCounter
from mgjax.parallel.chips import parse_topology

SIZES = {'slice': 1, 'data': 1, 'fsdp': 4, 'context': 16, 'tensor': 1}
PLACE = parse_topology('v5p:4x4x4')
RATES = rates_of('v5p')
# Gathered over the 16 of `context`: 2 GiB, of which 15/16 come in over two links of 90 GB/s, and
# eight hops of 1 us, half way around.
GATHER = 'bf16[16384,65536]{1,0}'
WIRE = 2 * 2**30 * 15 / 16 / 180e9 + 8e-6
# Half of that at the low share of the peak of linear maps, 66%, needs 1.694e12 operations.
HALF = WIRE / 2 * 0.66 * 459e12
TEXT = """HloModule by_hand, is_scheduled=true

{called}

ENTRY %main (a: bf16[1024,65536]) -> f32[] {{
  %a = bf16[1024,65536]{{1,0}} parameter(0)
  %rows = bf16[{rows},1024]{{1,0}} parameter(1)
  %weight = bf16[1024,1024]{{1,0}} parameter(2)
{lines}
  ROOT %loss = f32[] constant(0)
}}"""
PRODUCT = (
  '  %product{n} = bf16[{rows},1024]{{1,0}} dot(%rows, %weight), '
  'lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}'
)
START = (
  '  %start{n} = (bf16[1024,65536]{{1,0}}, {gather}) all-gather-start(%a), '
  "replica_groups=mesh['a'=4,'b'=16] {{'b'}}, dimensions={{0}}"
)
DONE = '  %done{n} = {gather} all-gather-done(%start{n})'


def program(order, operations, called=''):
  """A schedule of 's' starts, 'd' dones and 'p' products; each letter has its number after it."""
  rows = round(operations / (2 * 1024**2))
  parts = {'s': START, 'd': DONE, 'p': PRODUCT}
  lines = [parts[w[0]].format(n=w[1:], rows=rows, gather=GATHER) for w in order.split()]
  text = TEXT.format(called=called, rows=rows, lines='\n'.join(lines))
  return text, Work(linear=rows * 2 * 1024**2)


def waits(text):
  (gathers,) = group_collectives(audit(text), SIZES, PLACE)
  return gathers


def seconds(work):
  return RATES.map(lambda rates: work.seconds(rates, PLACE.chip))


@pytest.mark.parametrize(
  ('order', 'share', 'waiting'),
  [
    ('s1 p1 d1', 4.0, Ends(0.0, 0.0)),  # twice as long as the wire
    ('s1 d1 p1', 4.0, Ends(WIRE, WIRE)),
    ('p1 s1 d1', 4.0, Ends(WIRE, WIRE)),
    ('s1 p1', 4.0, Ends(WIRE, WIRE)),  # its end is elsewhere
    ('s1 p1 d1', 1.0, Ends(WIRE / 2, WIRE * (1 - 0.5 * 0.66 / 0.75))),
    ('p1 s1 p2 d1 p3', 1.0, Ends(WIRE / 2, WIRE * (1 - 0.5 * 0.66 / 0.75))),
  ],
  ids=['overlapped', 'work after', 'work before', 'no end', 'half', 'half of much'],
)
def test_a_collective_hides_behind_the_work_between_its_start_and_its_end(order, share, waiting):
  text, _ = program(order, share * HALF)
  found = waits(text)
  assert found.asynchronous and found.seconds == pytest.approx(WIRE)
  # Rows are whole: one of them is 2^21 operations of 1.7e12.
  assert found.waits.slow == pytest.approx(waiting.slow, rel=1e-5)
  assert found.waits.fast == pytest.approx(waiting.fast, rel=1e-5)
  assert found.exposed.slow == pytest.approx(2 * 2**30 * waiting.slow / WIRE, rel=1e-5)


def test_what_waits_is_waited_for():
  text, _ = program('s1 p1 d1', 4 * HALF)
  waiting = text.replace('all-gather-start', 'all-gather').replace('all-gather-done', 'copy')
  waiting = waiting.replace(f'(bf16[1024,65536]{{1,0}}, {GATHER})', GATHER)
  found = waits(waiting)
  assert not found.asynchronous and found.waits == Ends(found.seconds, found.seconds)


@pytest.mark.parametrize(
  ('order', 'hidden'),
  [
    ('s1 s2 p1 d1 d2', 1),  # one product, for both
    ('s1 s2 p1 d2 p2 d1', 2),
    ('s1 p1 s2 d1 p2 d2', 2),
    ('s1 p1 d1 s2 d2', 1),
    ('s1 p1 p2 s2 d2 d1', 2),  # all of the first one's wire, and the second's none
  ],
)
def test_work_does_not_hide_two_collectives_at_once(order, hidden):
  text, work = program(order, HALF)
  found = waits(text)
  for rate in ('slow', 'fast'):
    expected = 2 * WIRE - hidden * getattr(seconds(work), rate)
    assert getattr(found.waits, rate) == pytest.approx(expected)


def test_work_hides_first_what_must_end_first():
  # The long one has the second product to itself, so that nothing of either product is lost.
  text, work = program('s1 s2 p1 d2 p2 d1', 2 * HALF)
  found = waits(text)
  assert found.waits.slow == pytest.approx(2 * WIRE - 2 * seconds(work).slow, abs=1e-6 * WIRE)
  one, two = audit(text)
  assert len(one.between) == 2 and len(two.between) == 1
  assert one.between[0].position == two.between[0].position


LOOP = """
%body (p: (s32[])) -> (s32[]) {
  %p = (s32[]) parameter(0)
  %l = bf16[64,32]{1,0} constant({...})
  %r = bf16[32,16]{1,0} constant({...})
  %inner = bf16[64,16]{1,0} dot(%l, %r), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %begin = (bf16[8]{0}, bf16[128]{0}) all-gather-start(%x), replica_groups={{0,1}}, dimensions={0}
  %taken = bf16[64,16]{1,0} dot(%l, %r), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %end = bf16[128]{0} all-gather-done(%begin)
  ROOT %t = (s32[]) tuple(%i)
}

%condition (q: (s32[])) -> pred[] {
  %q = (s32[]) parameter(0)
  %limit = s32[] constant(7)
  %i = s32[] get-tuple-element(%q), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%sliced (w: f32[48,128,256], i: s32[]) -> bf16[1,128,256] {
  %w = f32[48,128,256]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one = f32[1,128,256]{2,1,0} dynamic-slice(%w, %i, %zero, %zero), dynamic_slice_sizes={1,128,256}
  ROOT %cast = bf16[1,128,256]{2,1,0} convert(%one)
}

%updated (kept: bf16[48,128,256], new: bf16[1,128,256]) -> bf16[48,128,256] {
  %kept = bf16[48,128,256]{2,1,0} parameter(0)
  %new = bf16[1,128,256]{2,1,0} parameter(1)
  ROOT %put = bf16[48,128,256]{2,1,0} dynamic-update-slice(%kept, %new, %i, %zero, %zero)
}

%multiplied (x: bf16[2,9216,6144], y: bf16[6144,384,1]) -> bf16[2,9216,384] {
  %x = bf16[2,9216,6144]{2,1,0} parameter(0)
  %y = bf16[6144,384,1]{2,1,0} parameter(1)
  ROOT %map = bf16[2,9216,384]{2,1,0} convolution(%x, %y), window={size=1}, dim_labels=0bf_io0->0bf
}

ENTRY %main (a: f32[48,128,256]) -> f32[] {
  %a = f32[48,128,256]{2,1,0} parameter(0)
  %near = f32[128,256]{1,0:T(8,128)S(1)} parameter(1)
  %far = f32[128,256]{1,0:T(8,128)} parameter(2)
  %kept = bf16[48,128,256]{2,1,0} parameter(3)
  %x = bf16[2,9216,6144]{2,1,0} parameter(4)
  %y = bf16[6144,384,1]{2,1,0} parameter(5)
  %while = (s32[]) while(%p), condition=%condition, body=%body
  %slice = bf16[1,128,256]{2,1,0} fusion(%a, %i), kind=kLoop, calls=%sliced
  %update = bf16[48,128,256]{2,1,0} fusion(%kept, %slice), kind=kLoop, calls=%updated
  %sum = f32[128,256]{1,0:T(8,128)} add(%near, %far)
  %fused = bf16[2,9216,384]{2,1,0} fusion(%x, %y), kind=kOutput, calls=%multiplied
  %ahead = (f32[128,256]{1,0:S(1)}, f32[128,256]{1,0}, u32[]) copy-start(%far)
  %splash_mha_fwd_residuals.1 = (bf16[2,3,640,128]{3,2,1,0}) custom-call(%q, %k, %v), custom_call_target="tpu_custom_call", operand_layout_constraints={s32[1]{0}, bf16[2,3,640,128]{3,2,1,0}, bf16[2,3,896,128]{3,2,1,0}, bf16[2,3,896,128]{3,2,1,0}}, frontend_attributes={kernel_metadata={
  %splash_mha_dkv.1 = (bf16[6,640,128]{2,1,0}) custom-call(%q, %k, %v), custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[6,640,128]{2,1,0}, bf16[6,896,128]{2,1,0}, bf16[6,896,128]{2,1,0}}, frontend_attributes={kernel_metadata={
  %another = bf16[6,640,128]{2,1,0} custom-call(%q), custom_call_target="AllocateBuffer"
  ROOT %loss = f32[] constant(0)
}"""  # noqa: E501
PART = 128 * 256


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    # Seven turns; the second product is for the loop's own gather.
    ('while', Work(linear=7 * 2 * 64 * 32 * 16)),
    ('slice', Work(bytes=PART * (4 + 2))),  # one of 48 layers, and it in bfloat16
    ('update', Work(bytes=PART * (2 + 2))),  # the new layer read and written
    ('sum', Work(bytes=2 * PART * 4)),  # one of the two lies on the chip
    ('fused', Work(linear=2 * 2 * 9216 * 6144 * 384)),
    ('ahead', Work()),
    ('splash_mha_fwd_residuals.1', Work(forward=2 * 2 * 6 * 640 * 896 * 128)),
    ('splash_mha_dkv.1', Work(backward=5 * 2 * 6 * 640 * 896 * 128)),
    ('another', Work()),
  ],
)
def test_the_work_of_instructions_is_that_counted_by_hand(name, expected):
  parsed = parse_program(LOOP)
  step = next(each for each in parsed.computations['main'] if each.name == name)
  assert WorkCounter(parsed).instruction('main', step) == expected


def brute_force(size, window, stride, low, high, gaps):
  """Products of one side and a window over another with gaps and padding, one by one."""
  spread = np.zeros((size - 1) * gaps[0] + 1)
  spread[:: gaps[0]] = 1
  spread = np.pad(spread, (low, high))
  reach = (window - 1) * gaps[1] + 1
  places = range(0, len(spread) - reach + 1, stride)
  return len(places), sum(spread[p : p + reach : gaps[1]].sum() for p in places)


@pytest.mark.parametrize(
  ('size', 'window', 'stride', 'pad', 'gaps'),
  [
    (9, 1, 1, (0, 0), (1, 1)),
    (9, 3, 1, (1, 1), (1, 1)),
    (9, 3, 2, (0, 1), (1, 1)),
    (2, 2, 1, (0, 0), (2, 1)),
    (48, 48, 47, (0, 0), (48, 1)),
    (9, 3, 1, (2, 2), (1, 2)),
    (4, 4, 1, (3, 3), (1, 1)),
  ],
)
def test_products_written_as_convolutions_count_no_padding_and_no_gaps(
  size, window, stride, pad, gaps
):
  out, pairs = brute_force(size, window, stride, *pad, gaps)
  text = (
    'ENTRY %main (x: bf16[1]) -> bf16[1] {\n'
    f'  %x = bf16[{size},40,24]{{2,1,0}} parameter(0)\n'
    f'  %y = bf16[24,16,{window}]{{2,1,0}} parameter(1)\n'
    f'  ROOT %z = bf16[{out},40,16]{{2,1,0}} convolution(%x, %y), window={{size={window} '
    f'stride={stride} pad={pad[0]}_{pad[1]} lhs_dilate={gaps[0]} rhs_dilate={gaps[1]}}}, '
    'dim_labels=0bf_io0->0bf\n}'
  )
  parsed = parse_program(text)
  work = WorkCounter(parsed).instruction('main', parsed.computations['main'][-1])
  assert work == Work(linear=2 * 40 * 16 * 24 * pairs)
