"""Seconds of collectives, from the wires that an axis has; and topologies by name."""

import pytest

from mgjax.core.errors import ConfigError
from mgjax.parallel.chips import CHIPS, parse_topology
from mgjax.planning.network import axis_networks

LINK = 90e9


def axis(topology, sizes, name):
  return axis_networks(sizes, parse_topology(topology))[name]


def test_a_gather_takes_in_all_but_its_own_piece_from_both_sides_of_a_ring():
  ring = axis('v6e:16x16', {'fsdp': 16, 'context': 16}, 'fsdp')
  assert ring.gather(1e9) == pytest.approx(1e9 * 15 / 16 / (2 * LINK))
  # Ends of a torus axis shorter than the pod's are not joined: one link at the end.
  row = axis('v6e:8x8', {'fsdp': 8, 'context': 8}, 'fsdp')
  assert row.gather(1e9) == pytest.approx(1e9 * 7 / 8 / LINK)


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
  assert axis(topology, sizes, 'context').exchange(held) == pytest.approx(busiest / LINK)


def test_three_torus_axes_make_a_gather_an_all_reduce():
  one, three = (
    axis('v5p:8x8x8', sizes, 'fsdp') for sizes in ({'fsdp': 8, 'data': 64}, {'fsdp': 512})
  )
  assert three.gather(1e9) == pytest.approx(2 * 1e9 * 511 / 512 / (6 * LINK))
  assert one.gather(1e9) == pytest.approx(1e9 * 7 / 8 / (2 * LINK))


def test_gpus_fill_a_node_with_the_axes_that_talk_most():
  axes = axis_networks({'fsdp': 64, 'context': 4, 'tensor': 2}, parse_topology('h100:8x64'))
  assert (axes['tensor'].inside, axes['context'].inside, axes['fsdp'].inside) == (2, 4, 1)
  assert axes['context'].gather(1e9) == pytest.approx(0.75e9 / 450e9)
  assert axes['fsdp'].gather(1e9) == pytest.approx(63 / 64 * 1e9 / 50e9)
  wide = axis('h100:8x64', {'data': 32, 'context': 16}, 'context')
  assert (wide.inside, wide.across) == (8, 2)
  # Eight GPUs of a node bring one eighth each over the network.
  assert wide.gather(1e9) == pytest.approx(1e9 / 8 / 2 / 50e9 + 1e9 * 7 / 8 / 450e9)


def test_topologies_are_read_by_name():
  assert parse_topology('v5p:8x8x8').torus == (8, 8, 8)
  assert parse_topology('tpu7x:4x4x4').shape == (4, 4, 4, 2)  # two devices a chip
  assert parse_topology('h100:8x64').devices == 512
  assert parse_topology('h200:8').shape == (8, 1)
  assert parse_topology('h200:4').torus == ()
  assert parse_topology('gb200:72x8').devices == 576  # racks of 72
  assert {'v5p', 'v5e', 'v6e', 'tpu7x', 'h100', 'h200', 'gb200'} == set(CHIPS)


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
