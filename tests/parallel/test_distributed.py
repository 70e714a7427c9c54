"""A process finds its place among others, and the rows that its devices work on."""

import os
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from mgjax.core.errors import ConfigError
from mgjax.parallel import distributed
from mgjax.parallel.distributed import fetch, find_processes, rows_of_process
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import AXES, BATCH
from tests.tiny import CHECKOUT

LOCAL = {
  'JAX_COORDINATOR_ADDRESS': 'host:1234',
  'JAX_NUM_PROCESSES': '2',
  'JAX_PROCESS_ID': '1',
}
SLURM = {
  'SLURM_JOB_ID': '70001',
  'SLURM_STEP_NODELIST': 'node[007-015,021],host2',
  'SLURM_STEP_NUM_TASKS': '16',
  'SLURM_STEP_TASKS_PER_NODE': '1(x16)',
  'SLURM_PROCID': '9',
  'SLURM_LOCALID': '0',
  'SLURM_NTASKS': '16',
}


def test_a_process_is_alone_unless_it_was_started_as_one_of_several():
  assert find_processes({}) is None
  assert find_processes({'PATH': '/bin', 'JAX_PLATFORMS': 'cpu'}) is None
  assert find_processes(LOCAL | {'JAX_NUM_PROCESSES': '1', 'JAX_PROCESS_ID': '0'}) is None
  # A batch script is one process, however many tasks its job has.
  job = {name: value for name, value in SLURM.items() if '_STEP_' not in name}
  assert find_processes(job) is None
  assert find_processes(SLURM | {'SLURM_STEP_NUM_TASKS': '1'}) is None


def test_three_variables_make_a_process_one_of_several():
  found = find_processes(LOCAL)
  assert (found['coordinator_address'], found['num_processes'], found['process_id']) == (
    'host:1234',
    2,
    1,
  )
  assert 'local_device_ids' not in found
  # They come before what a cluster says, and xpk has other names for two of them and the port.
  assert find_processes(SLURM | LOCAL) == found
  xpk = {'JAX_COORDINATOR_ADDRESS': 'host', 'JAX_COORDINATOR_PORT': '1234'}
  assert find_processes(xpk | {'NNODES': '2', 'NODE_RANK': '1'}) == found
  assert find_processes({'NNODES': '2', 'NODE_RANK': '1'}) is None


@pytest.mark.parametrize('missing', LOCAL)
def test_two_of_the_three_are_refused_by_the_name_of_the_third(missing):
  rest = {name: value for name, value in LOCAL.items() if name != missing}
  with pytest.raises(ConfigError, match=f'but not {missing}; set all three'):
    find_processes(rest)
  (first, *_) = rest
  with pytest.raises(ConfigError, match=f'^{first} is set, but not '):
    find_processes({first: LOCAL[first]})


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('JAX_PROCESS_ID', '2'),
    ('JAX_PROCESS_ID', '-1'),
    ('JAX_NUM_PROCESSES', 'two'),
    ('JAX_NUM_PROCESSES', '0'),
    ('JAX_COORDINATOR_ADDRESS', 'host'),
    ('JAX_COORDINATOR_ADDRESS', 'host:port'),
  ],
)
def test_values_that_make_no_sense_are_named(name, value):
  with pytest.raises(ConfigError, match=f'{name}={value}.*expected'):
    find_processes(LOCAL | {name: value})


@pytest.mark.parametrize(
  ('hosts', 'first'),
  [
    ('node001', 'node001'),
    ('node001,host2', 'node001'),
    ('node[001-015],host2', 'node001'),
    ('node[001,007-015],host2', 'node001'),
    ('gpu-[3-4]-ib', 'gpu-3-ib'),
  ],
)
def test_tasks_of_slurm_meet_at_the_first_host(hosts, first):
  found = find_processes(SLURM | {'SLURM_STEP_NODELIST': hosts})
  host, port = found['coordinator_address'].split(':')
  assert host == first
  assert int(port) == 61440 + 70001 % 4096 < 65536
  assert (found['num_processes'], found['process_id']) == (16, 9)
  chosen = SLURM | {'SLURM_STEP_NODELIST': hosts, 'JAX_COORDINATOR_ADDRESS': '10.0.0.1:99'}
  assert find_processes(chosen)['coordinator_address'] == '10.0.0.1:99'
  chosen = SLURM | {'SLURM_STEP_NODELIST': hosts, 'JAX_COORDINATOR_PORT': '99'}
  assert find_processes(chosen)['coordinator_address'] == f'{first}:99'


@pytest.mark.parametrize(
  ('tasks', 'visible', 'local', 'devices'),
  [
    ('1(x16)', '0,1,2,3', '0', None),  # one task a node: all of its GPUs
    ('1(x16)', None, '0', None),
    ('4(x4)', '0,1,2,3', '2', [2]),
    ('2(x8)', '0,1,2,3', '1', [2, 3]),
    ('4(x4)', '2', '2', None),  # Slurm has bound one GPU to each task
    ('4(x4)', None, '2', [2]),
  ],
)
def test_tasks_of_slurm_share_the_gpus_of_their_node(tasks, visible, local, devices):
  environment = SLURM | {'SLURM_STEP_TASKS_PER_NODE': tasks, 'SLURM_LOCALID': local}
  if visible:
    environment['CUDA_VISIBLE_DEVICES'] = visible
  assert find_processes(environment)['local_device_ids'] == devices


@pytest.mark.parametrize(
  ('environment', 'several'),
  [
    ({'TPU_WORKER_HOSTNAMES': 'a,b', 'TPU_WORKER_ID': '1'}, True),
    ({'TPU_PROCESS_ADDRESSES': 'a:1,b:1'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'a'}, False),
    ({'TPU_PROCESS_ADDRESSES': 'local', 'TPU_WORKER_HOSTNAMES': 'localhost'}, False),
    ({'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_NUM_SLICES': '2'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_NUM_SLICES': '1'}, False),
    ({'TPU_WORKER_HOSTNAMES': 'a,b', 'JAX_PLATFORMS': 'cpu'}, False),
    ({'TPU_WORKER_HOSTNAMES': 'a,b', 'JAX_PLATFORMS': 'tpu,cpu'}, True),
    ({'TPU_ML_PLATFORM': 'JAX'}, True),  # only the metadata server knows, and JAX asks it
    ({'TPU_ML_PLATFORM': 'JAX', 'TPU_SKIP_MDS_QUERY': '1'}, False),
  ],
)
def test_hosts_of_tpus_are_left_to_jax(environment, several):
  assert find_processes(environment) == ({} if several else None)
  if several:
    address = {'JAX_COORDINATOR_ADDRESS': '10.0.0.1:99'}
    assert find_processes(environment | address) == {}


class Device:
  """What a mesh needs to know of a device."""

  platform = 'cpu'

  def __init__(self, index, process):
    self.id, self.process_index = index, process


def mesh_of(processes, **sizes):
  """A mesh over processes with equal numbers of devices, one process after the other."""
  shape = [sizes.get(axis, 1) for axis in AXES]
  total = int(np.prod(shape))
  devices = [Device(index, index * processes // total) for index in range(total)]
  return Mesh(np.array(devices, object).reshape(shape), AXES)


def shares(mesh, processes):
  return [rows_of_process(mesh, process) for process in range(processes)]


def test_processes_split_the_rows_between_them():
  assert shares(mesh_of(2, data=8), 2) == [(0, 2), (1, 2)]
  assert shares(mesh_of(4, slice=2, fsdp=4, tensor=2), 4) == [(0, 4), (1, 4), (2, 4), (3, 4)]
  assert shares(mesh_of(1, fsdp=8), 1) == [(0, 1)]
  real = make_mesh({'fsdp': 2, 'data': 4})
  assert rows_of_process(real, jax.process_index()) == (0, 1)


def test_processes_that_share_tokens_or_heads_read_the_same_rows():
  assert shares(mesh_of(2, context=8), 2) == [(0, 1), (0, 1)]
  assert shares(mesh_of(4, fsdp=2, context=8), 4) == [(0, 2), (0, 2), (1, 2), (1, 2)]
  assert shares(mesh_of(4, data=1, tensor=4, context=2), 4) == [(0, 1)] * 4


def test_processes_that_lie_across_the_mesh_keep_to_their_rows():
  # Blocks of 2 x 2 in a 4 x 4 torus whose both axes split the rows: pieces 0, 1, 4 and 5.
  grid = np.array([[Device(0, 2 * (x // 2) + y // 2) for y in range(4)] for x in range(4)], object)
  mesh = Mesh(grid.reshape(1, 4, 4, 1, 1), AXES)
  assert shares(mesh, 4) == [(0, 4), (1, 4), (2, 4), (3, 4)]
  # The same blocks, one of whose axes is the context: rows 0 and 1, 2 and 3.
  mesh = Mesh(grid.reshape(1, 1, 4, 4, 1), AXES)
  assert shares(mesh, 4) == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_rows_that_only_partly_coincide_are_refused_with_sizes_that_work():
  message = (
    r"the mesh \{'data': 2, 'context': 6\} gives 3 processes of 4 devices .* context x tensor is "
    r'6, expected a divisor or a multiple of 4; the nearest are 4 and 12$'
  )
  with pytest.raises(ConfigError, match=message):
    rows_of_process(mesh_of(3, data=2, context=6), 0)
  assert shares(mesh_of(3, data=3, context=4), 3) == [(0, 3), (1, 3), (2, 3)]
  assert shares(mesh_of(3, context=12), 3) == [(0, 1)] * 3


@given(
  sizes=st.tuples(*[st.sampled_from([1, 2, 3])] * 5), processes=st.sampled_from([1, 2, 3, 4, 6])
)
def test_every_process_reads_just_the_rows_of_its_devices(sizes, processes):
  total = int(np.prod(sizes))
  if total % processes:
    return
  mesh = mesh_of(processes, **dict(zip(AXES, sizes, strict=True)))
  local, inner = total // processes, sizes[3] * sizes[4]
  try:
    found = shares(mesh, processes)
  except ConfigError:
    assert local % inner and inner % local
    return
  assert local % inner == 0 or inner % local == 0
  held = [
    {
      tuple(at[: len(BATCH)])
      for at, device in np.ndenumerate(mesh.devices)
      if device.process_index == process
    }
    for process in range(processes)
  ]
  groups = found[0][1]
  assert {group for group, _ in found} == set(range(groups))
  assert {count for _, count in found} == {groups}
  for one in range(processes):
    assert len(held[one]) * groups == np.prod(sizes[: len(BATCH)])
    for other in range(processes):
      assert (held[one] == held[other]) == (found[one] == found[other])
      assert held[one] == held[other] or not held[one] & held[other]


def test_fetch_gives_whole_numpy_arrays():
  mesh = make_mesh({'fsdp': 8}, 'fsdp')
  x = np.arange(16.0, dtype=np.float32)
  sharded = jax.device_put(x, jax.NamedSharding(mesh, jax.P('fsdp')))
  found = fetch({'a': sharded, 'b': [jnp.asarray(x), x]})
  for array in jax.tree.leaves(found):
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, x)


# The first of two processes fails; both have another --workdir, then the same one.
SCRIPT = """
import sys, time
from mgjax.core.errors import ConfigError
from mgjax.parallel import distributed
distributed.initialize()
distributed.PATIENCE = 1
directory, index = sys.argv[1:]
try:
  distributed.check_shared(directory + index)
except ConfigError as error:
  print(error)
distributed.check_shared(directory)
if index == '0':
  distributed.leave(3)
time.sleep(100)
"""


def test_a_process_that_fails_does_not_wait_for_the_others(tmp_path):
  environment = os.environ | local_environment()
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', SCRIPT, f'{tmp_path}/run', str(index)],
      cwd=CHECKOUT,
      env=environment | {'JAX_PROCESS_ID': str(index)},
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    for index in range(2)
  ]
  try:
    said, _ = processes[0].communicate(timeout=100)
    assert processes[0].returncode == 3
    assert f"'{tmp_path}/run0' is not the same directory for process 1 as for the first" in said
    assert processes[1].wait(timeout=100) != 0  # its coordinator is gone
  finally:
    for process in processes:
      process.kill()
      process.communicate()
  assert not list(tmp_path.rglob('.shared*'))


def test_a_process_on_its_own_ends_as_usual():
  began = time.monotonic()
  with pytest.raises(SystemExit) as end:
    distributed.leave(4)
  assert end.value.code == 4 and time.monotonic() - began < distributed.PATIENCE


def local_environment():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  return {'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}', 'JAX_NUM_PROCESSES': '2'}
