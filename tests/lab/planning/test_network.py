"""Seconds of collectives, from the wires that an axis has; and topologies by name."""

import pytest

from configs.video import t2iv_768
from mgjax.core.errors import ConfigError
from mgjax.lab.planning.network import axis_networks
from mgjax.lab.planning.plan import Choices, make_plan
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_workload
from mgjax.parallel.chips import CHIPS, KINDS, parse_topology

LINK = 90e9
HOP = 1e-6


def axis(topology, sizes, name):
  return axis_networks(sizes, parse_topology(topology))[name]


def test_a_gather_takes_in_all_but_its_own_piece_from_both_sides_of_a_ring():
  ring = axis('v6e:16x16', {'fsdp': 16, 'context': 16}, 'fsdp')
  assert ring.gather(1e9, 1) == pytest.approx(1e9 * 15 / 16 / (2 * LINK) + 8 * HOP)
  # Ends of a torus axis shorter than the pod's are not joined: one link at the end.
  row = axis('v6e:8x8', {'fsdp': 8, 'context': 8}, 'fsdp')
  assert row.gather(1e9, 1) == pytest.approx(1e9 * 7 / 8 / LINK + 7 * HOP)
  assert row.gather(1e9, 5) - row.gather(1e9, 1) == pytest.approx(4 * 7 * HOP)


@pytest.mark.parametrize('length', [4, 8])
def test_an_exchange_is_what_counting_every_share_on_every_link_gives(length):
  topology, sizes = f'v5p:{length}x4x4', {'fsdp': 16, 'context': length}
  if length == 4:
    topology, sizes = 'v5p:4x8x8', {'fsdp': 64, 'context': 4}
  held, loads = 1e9, [[0.0, 0.0] for _ in range(length)]
  for source in range(length):
    for target in range(length):
      ahead = (target - source) % length
      # The shorter way; half of a share each way where both are equal.
      for forward, share in ((True, ahead), (False, length - ahead)):
        weight = 0.5 if 2 * ahead == length else float(share < length / 2)
        for hop in range(share) if share < length else ():
          link = (source + hop) % length if forward else (source - hop - 1) % length
          loads[link][not forward] += weight * held / length
  busiest = max(max(pair) for pair in loads)
  there = axis(topology, sizes, 'context').exchange(held, 1)
  assert there == pytest.approx(busiest / LINK + length / 2 * HOP)


def test_three_torus_axes_make_a_gather_an_all_reduce():
  one, three = (
    axis('v5p:8x8x8', sizes, 'fsdp') for sizes in ({'fsdp': 8, 'data': 64}, {'fsdp': 512})
  )
  assert three.gather(1e9, 1) == pytest.approx(2 * 1e9 * 511 / 512 / (6 * LINK) + 24 * HOP)
  assert one.gather(1e9, 1) == pytest.approx(1e9 * 7 / 8 / (2 * LINK) + 4 * HOP)


def test_gpus_fill_a_node_with_the_axes_that_talk_most():
  axes = axis_networks({'fsdp': 64, 'context': 4, 'tensor': 2}, parse_topology('h100:8x64'))
  assert (axes['tensor'].inside, axes['context'].inside, axes['fsdp'].inside) == (2, 4, 1)
  # A ring of NCCL's Simple: 8.4 us, and 3.4 a step over NVLink or 14 over the network.
  assert axes['context'].gather(1e9, 1) == pytest.approx(0.75e9 / 450e9 + 8.4e-6 + 3 * 3.4e-6)
  assert axes['fsdp'].gather(1e9, 1) == pytest.approx(63 / 64 * 1e9 / 50e9 + 8.4e-6 + 63 * 14e-6)
  wide = axis('h100:8x64', {'data': 32, 'context': 16}, 'context')
  assert (wide.inside, wide.across) == (8, 2)
  # Eight GPUs of a node bring one eighth each over the network.
  wire = 1e9 / 8 / 2 / 50e9 + 1e9 * 7 / 8 / 450e9
  assert wide.gather(1e9, 1) == pytest.approx(wire + 8.4e-6 + 14 * 3.4e-6 + 14e-6)


def test_a_ring_of_many_gpus_waits_for_its_steps():
  """24 MB are 16 kB for each of 1,536 GPUs: LL128, 1.9 us a step inside and 4 us across."""
  ring = axis('h100:8x768', {'fsdp': 1536, 'context': 4}, 'fsdp')
  steps = 14e-6 + 768 * 1.9e-6 + 767 * 4e-6
  wire = 24e6 / 2 * 767 / 768 / 50e9 + 24e6 / 2 / 450e9
  assert ring.gather(24e6, 1) == pytest.approx(steps + wire / 0.92)
  assert steps > 15 * wire
  # One GPU of a node: PAT, which grows by 2.8 us a node, is the fastest of three.
  one = axis('h100:8x768', {'fsdp': 768, 'context': 8}, 'fsdp')
  assert 767 * 2.8e-6 < one.gather(1e3, 1) < 767 * 4e-6


def test_what_leaves_a_pod_shares_its_spine():
  """Two pods of 3,072; the spine has a seventh of the rails."""
  pair, many, inside = (
    axis('h100:8x768', sizes, 'data')
    for sizes in (
      {'data': 2, 'fsdp': 384, 'context': 8},
      {'data': 64, 'fsdp': 12, 'context': 8},
      {'slice': 2, 'data': 8, 'fsdp': 48, 'context': 8},
    )
  )
  assert (pair.pods, many.pods, inside.pods) == (2, 2, 1)
  assert pair.network == pytest.approx(50e9 / 7)  # every ring crosses with all that it sends
  assert many.network == inside.network == 50e9  # one of 32 nodes sends to the other pod
  assert pair.layout == '2 nodes in 2 pods'


def test_a_plan_of_6144_gpus_gathers_over_no_1536():
  """Where only bytes count, 27 GiB of gathers take 0.32 s whether 24 GPUs share them or 1,536."""
  config = t2iv_768.get_config('30b')
  work = make_workload(FlowRun.of(config))
  before, after = (
    make_plan(work, 'h100:8x768', Choices(mesh, remat='attention')).chosen
    for mesh in ({'fsdp': 1536, 'context': 4}, {'data': 64, 'fsdp': 24, 'context': 4})
  )

  def gathers(way):
    (found,) = (e for e in way.collectives if (e.what, e.axis) == ('weights', 'fsdp'))
    assert found.bytes / 2**30 == pytest.approx(27.05, abs=0.02)
    return found.seconds

  assert gathers(before) == pytest.approx(4.55, abs=0.01)
  assert gathers(after) == pytest.approx(0.40, abs=0.01)
  assert before.time.slow.step - after.time.slow.step == pytest.approx(6.2, abs=0.1)
  assert make_plan(work, 'h100:8x768', Choices(remat='attention')).chosen.sizes['fsdp'] <= 64


def test_topologies_are_read_by_name():
  assert parse_topology('v5p:8x8x8').torus == (8, 8, 8)
  assert parse_topology('tpu7x:4x4x4').shape == (4, 4, 4, 2)  # two devices a chip
  assert parse_topology('h100:8x64').devices == 512
  assert parse_topology('h200:8').shape == (8, 1)
  assert parse_topology('h200:4').torus == ()
  assert parse_topology('gb200:72x8').devices == 576  # racks of 72
  assert {'v5p', 'v5e', 'v6e', 'tpu7x', 'a100', 'h100', 'h200', 'b200', 'gb200'} <= set(CHIPS)


@pytest.mark.parametrize(
  ('typed', 'meant'),
  [
    # TPUs as Google names their slices: v5p and TPU7x by TensorCores, two a chip.
    *{
      'v5p-8': 'v5p:2x2x1',
      'v5p-64': 'v5p:2x4x4',
      'tpu-v5p-1024': 'v5p:8x8x8',
      'v5p-640': 'v5p:4x4x20',
      'v5e-8': 'v5e:2x4',
      'v5litepod-16': 'v5e:4x4',
      'TPU v6e-256': 'v6e:16x16',
      'trillium-64': 'v6e:8x8',
      'tpu7x-8': 'tpu7x:2x2x1',
      'v5p 4x4x4': 'v5p:4x4x4',
      '16xv6e': 'v6e:4x4',
    }.items(),
    # GPUs by counts before or behind, with what a shop writes around them.
    *{
      '8xH100': 'h100:8',
      '8 x H100': 'h100:8',
      'h100-sxm': 'h100:1',
      'H100 SXM5 80GB x4': 'h100:4',
      '64xH200': 'h200:8x8',
      'h100-64': 'h100:8x8',
      '2x8xA100-80GB': 'a100:8x2',
      '8x2xa100': 'a100:8x2',
      '4x DGX H100': 'h100:8x4',
      'gb200': 'gb200:1',
      'GB200 NVL72': 'gb200:72',
      '2xGB200-NVL72': 'gb200:72x2',
      'a100-40gb:8': 'a100-40gb:8',
      'rtx4090': 'rtx4090:1',
      '4090': 'rtx4090:1',
      '2x RTX 4090': 'rtx4090:2',
    }.items(),
    *((kind, f'{name}:1') for kind, name in KINDS.items() if not CHIPS[name].rank),
  ],
)
def test_topologies_are_read_as_people_and_devices_write_them(typed, meant):
  found, plain = parse_topology(typed), parse_topology(meant)
  assert found == plain and found.name == meant


def test_a_card_is_planned_with_the_memory_that_it_has():
  assert CHIPS['rtx4090'].memory == 24e9
  assert parse_topology('8xA100-40GB').chip.memory == 40e9 != parse_topology('8xA100').chip.memory


@pytest.mark.parametrize(
  ('name', 'sentence'),
  [
    ('v9:8x8', r"^topology 'v9:8x8': there is no chip 'v9'; take one of v5p, .* as in v5p:8x8x8"),
    ('v5p:8x8', r"^topology 'v5p:8x8': the torus of v5p has 3 axes, as in v5p:8x8x8$"),
    ('v5e:', r"^topology 'v5e:': expected sizes after the colon, as in v5e:16x16$"),
    ('v5e:0x4', r'^topology .*: expected sizes after the colon, as in v5e:16x16$'),
    ('h100:512', r'^topology .*: expected up to 8 GPUs of one node, or 8 x .*, as in h100:8x64$'),
    (
      'gb200:8x8',
      r'^topology .*: expected up to 72 GPUs of one node, or 72 x .*, as in gb200:72x2$',
    ),
    ('12xH100', r'^topology .*: expected up to 8 GPUs of one node, or 8 x .*, as in h100:8x2$'),
    ('2x4xH100', r'^topology .*: expected up to 8 GPUs of one node, or 8 x .*, as in h100:8x2$'),
    ('0xH100', r'^topology .*: expected one chip or more, as in h100:8x64$'),
    ('h100-94gb', r'^topology .*: h100 has 80 GB and not 94, which is another chip; take one of'),
    ('rtx4090-48gb', r'^topology .*: rtx4090 has 24 GB and not 48, which is another chip'),
    ('h100:-1', r"^topology 'h100:-1': expected sizes after the colon"),
    ('2xv6e-256', r"^topology '2xv6e-256': expected one slice, as in v6e:16x16"),
    ('h100-nvl', r"^topology .*: there is no chip 'h100-nvl'; take one of .*, as in .*8xH100"),
    ('v6e-512', r'^topology .*: there is no slice of 512 v6e; give its torus, as in v6e:16x16$'),
    ('v5p-7', r'^topology .*: there is no slice of 3.5 v5p; give its torus'),
    ('h100:4x4', r'^topology .*: expected up to 8 GPUs of one node, or 8 x .*, as in h100:8x2$'),
  ],
)
def test_other_topologies_are_refused(name, sentence):
  with pytest.raises(ConfigError, match=sentence):
    parse_topology(name)


def test_a_mesh_that_does_not_fit_is_refused():
  with pytest.raises(ConfigError, match=r'^the mesh context=4 has 4 devices, h100:8x2 has 16; '):
    axis_networks({'context': 4}, parse_topology('h100:8x2'))
  with pytest.raises(ConfigError, match=r'^context = 3 neither fits into the 8 GPUs left'):
    axis_networks({'data': 8, 'context': 3}, parse_topology('h100:8x3'))
  with pytest.raises(ConfigError, match=r'^v5e:4x4 is one slice; plan for it alone'):
    axis_networks({'slice': 2, 'fsdp': 16}, parse_topology('v5e:4x4'))
