"""Multi-process setup: process ids, the rows each process reads, and values fetched on all."""

import contextlib
import functools
import logging
import multiprocessing
import os
import pathlib
import random
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import NoReturn, TypedDict

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mgjax.core.errors import ConfigError
from mgjax.core.run_names import own_folder
from mgjax.core.typing import Tree
from mgjax.parallel.rules import BATCH

_ADDRESS = 'JAX_COORDINATOR_ADDRESS'
_COUNT = 'JAX_NUM_PROCESSES'
_INDEX = 'JAX_PROCESS_ID'
# xpk's names for the last two on GPU nodes of GKE, where it sets the first as well.
_XPK = {_COUNT: 'NNODES', _INDEX: 'NODE_RANK'}
_SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_STEP_NUM_TASKS', 'SLURM_PROCID')
PATIENCE = 5  # seconds that a process which failed waits for the others to fail as well

LOST = (
  'another process ended or cannot be reached, and none can go on without it; its log says why. '
  'Start all of them again: the same command goes on from the newest checkpoint'
)
_UNREACHABLE = re.compile(
  'gloo|nccl|connection (reset|closed|refused)|UNAVAILABLE|DEADLINE_EXCEEDED|coordination', re.I
)

_log = logging.getLogger(__name__)


def initialize(heartbeat: int = 0) -> None:
  """Joins the processes of a distributed run, if there are several; call it before using devices.

  If a process sends no heartbeat for `heartbeat` seconds, the others end; 0 means JAX's default.
  Raises ConfigError as `find_processes`, or if `heartbeat` is negative.
  """
  if heartbeat < 0:
    raise ConfigError(f'heartbeat = {heartbeat} s; expected at least 0 (0 for the default of JAX)')
  # JAX makes the attributes of `config` at import, unseen by its types.
  devices = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
  if devices > 1:
    # Emulated devices wait for one another on the threads of one pool. With one thread a device,
    # as on a machine of few cores, two programs in flight can wait for ever.
    os.environ.setdefault('PJRT_NPROC', str(max(os.cpu_count() or 1, 2 * devices + 2)))
  arguments = None if jax.distributed.is_initialized() else find_processes(os.environ)
  if arguments is not None:
    if arguments:
      names = ('process_id', 'num_processes', 'coordinator_address')
      _log.info(
        'process %d of %d; the first one is at %s', *(arguments.get(name) for name in names)
      )
    if heartbeat:
      arguments['heartbeat_timeout_seconds'] = int(heartbeat)
    jax.distributed.initialize(**arguments)
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
      # If only some processes found a program in the cache, XLA could wait for the others for ever.
      jax.config.update('jax_enable_compilation_cache', False)


def lost_peer(error: BaseException) -> bool:
  """Returns whether an error is how one of several processes sees the end of another one."""
  return (
    jax.distributed.is_initialized()
    and isinstance(error, jax.errors.JaxRuntimeError)
    and bool(_UNREACHABLE.search(str(error)))
  )


def leave(code: int) -> NoReturn:
  """Ends this process with an exit code other than 0.

  One of several processes does not wait for the others, as an orderly exit would for minutes: they
  end when they notice. If all fail for the same reason, each still has time to log it. A process
  that Ctrl-C interrupted in a compilation would crash in an orderly exit.
  """
  interrupted = code == 130
  if jax.distributed.is_initialized():
    goodbye = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    goodbye.start()
    goodbye.join(PATIENCE)
    interrupted |= goodbye.is_alive()
  if interrupted:
    for child in multiprocessing.active_children():  # `os._exit` does not end them
      child.terminate()
    with contextlib.suppress(OSError):  # the disk may be full
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


class _Processes(TypedDict, total=False):
  coordinator_address: str
  num_processes: int
  process_id: int
  local_device_ids: list[int] | None
  cluster_detection_method: str
  heartbeat_timeout_seconds: int


def find_processes(environment: Mapping[str, str]) -> _Processes | None:
  """Returns the arguments of `jax.distributed.initialize`, or None for a process on its own.

  It looks for, in this order: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES
  and JAX_PROCESS_ID; tasks that `srun` started; hosts of TPUs, which JAX detects itself. Raises
  ConfigError if only one or two of the three variables are set, or their values are invalid.
  """
  variables = {name: environment.get(name, '') for name in (_ADDRESS, _COUNT, _INDEX)}
  if variables[_ADDRESS]:
    variables |= {name: variables[name] or environment.get(xpk, '') for name, xpk in _XPK.items()}
  missing = [name for name, value in variables.items() if not value]
  if not missing:
    return _explicit(variables, environment.get('JAX_COORDINATOR_PORT', ''))
  slurm, tpus = _in_slurm(environment), _on_tpus(environment)
  if len(missing) < 3 and not (variables[_ADDRESS] and (slurm or tpus)):
    present = ', '.join(name for name in variables if name not in missing)
    raise ConfigError(
      f'{present} is set, but not {" and ".join(missing)}; set all three to run several processes, '
      'or none of them'
    )
  if slurm:
    return _of_slurm(environment)
  return {} if tpus else None


def _explicit(variables: dict[str, str], port: str) -> _Processes | None:
  address, count, index = variables.values()
  if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
    raise ConfigError(
      f'{_COUNT}={count}, {_INDEX}={index}: expected how many processes there are, and which of '
      'them this one is, counted from 0'
    )
  address = address if ':' in address else f'{address}:{port}'
  if not re.fullmatch(r'.+:\d+', address):
    raise ConfigError(f'{_ADDRESS}={variables[_ADDRESS]}: expected host:port, as in 10.0.0.1:1234')
  if int(count) == 1:
    return None
  return {
    'coordinator_address': address,
    'num_processes': int(count),
    'process_id': int(index),
    'cluster_detection_method': 'deactivate',
  }


def _in_slurm(environment: Mapping[str, str]) -> bool:
  # The variables of a job step: those of the job are also set in a batch script, which is one
  # process for any number of tasks.
  return all(environment.get(name) for name in _SLURM) and int(environment[_SLURM[2]]) > 1


def _of_slurm(environment: Mapping[str, str]) -> _Processes:
  job, hosts, count, index = (environment[name] for name in _SLURM)
  # 'node[007-015,021]-ib,host2' begins with node007-ib.
  name = re.match(r'([^,\[]*)(?:\[(\w+)[^]]*])?([^,\[]*)', hosts)
  prefix, number, suffix = name.groups('') if name else ('', '', '')
  # Ports that are not registered; jobs on the same nodes get different ones.
  port = environment.get('JAX_COORDINATOR_PORT') or 61440 + int(job) % 4096
  return {
    'coordinator_address': environment.get(_ADDRESS) or f'{prefix}{number}{suffix}:{port}',
    'num_processes': int(count),
    'process_id': int(index),
    'local_device_ids': _devices_of_task(environment),
    'cluster_detection_method': 'deactivate',  # JAX's own takes one GPU a task, however few tasks
  }


def _devices_of_task(environment: Mapping[str, str]) -> list[int] | None:
  """Returns which of the GPUs that this task sees it shall use, or None for all of them."""
  tasks_of_nodes = re.match(r'\d+', environment.get('SLURM_STEP_TASKS_PER_NODE', ''))
  tasks = int(tasks_of_nodes[0]) if tasks_of_nodes else 1
  if tasks == 1:
    return None
  local = int(environment.get('SLURM_LOCALID', 0))
  visible = environment.get('CUDA_VISIBLE_DEVICES')
  gpus_per_task = len(visible.split(',')) // tasks if visible else 1
  # Fewer GPUs than tasks: Slurm has already given each task its own.
  return list(range(local * gpus_per_task, (local + 1) * gpus_per_task)) or None


def _on_tpus(environment: Mapping[str, str]) -> bool:
  if 'tpu' not in environment.get('JAX_PLATFORMS', 'tpu').split(','):
    return False
  names = environment.get('TPU_PROCESS_ADDRESSES') or environment.get('TPU_WORKER_HOSTNAMES')
  if names:
    return ',' in names or int(environment.get('MEGASCALE_NUM_SLICES') or 1) > 1
  # `import jax` sets the first variable if it finds chips and the second if it finds none. Without
  # chips there is no metadata server to query.
  return 'TPU_ML_PLATFORM' in environment and 'TPU_SKIP_MDS_QUERY' not in environment


@functools.lru_cache
def rows_of_process(mesh: Mesh, process: int) -> tuple[int, int]:
  """Returns (group, groups): a process reads part `group` of the `groups` equal parts of a batch.

  A batch is split over the mesh axes of `rules.BATCH`. Processes whose devices hold the same pieces
  read the same rows: they differ in their tokens or heads. On a torus the pieces of a group need
  not be adjacent; then the rows of a batch are in another order than on one host. Raises
  ConfigError if two processes share only some of their pieces.
  """
  rows = [mesh.axis_names.index(axis) for axis in BATCH]
  pieces = np.prod([mesh.devices.shape[axis] for axis in rows])
  cut = np.moveaxis(mesh.devices, rows, range(len(rows))).reshape(pieces, -1)
  process_pieces: dict[int, set[int]] = {}
  for (piece, _), device in np.ndenumerate(cut):
    process_pieces.setdefault(device.process_index, set()).add(piece)
  groups = sorted({tuple(sorted(group)) for group in process_pieces.values()})
  if sum(map(len, groups)) != pieces or len({len(group) for group in groups}) > 1:
    raise ConfigError(_uneven(mesh, len(process_pieces), cut.shape[1]))
  return groups.index(tuple(sorted(process_pieces[process]))), len(groups)


def _uneven(mesh: Mesh, processes: int, inner: int) -> str:
  total = mesh.devices.size
  local = total // processes
  divisors = [size for size in range(1, total + 1) if total % size == 0]
  fitting = [size for size in divisors if local % size == 0 or size % local == 0]
  nearest = [size for size in fitting if size < inner][-1:]
  nearest += [size for size in fitting if size > inner][:1]
  sharded_axes = {axis: size for axis, size in mesh.shape.items() if size > 1}
  return (
    f'the mesh {sharded_axes} gives {processes} processes of {local} devices rows that only partly '
    f'coincide: context x tensor is {inner}, expected a divisor or a multiple of {local}; the '
    f'nearest are {" and ".join(map(str, nearest))}'
  )


def check_shared(directory: str | os.PathLike[str]) -> None:
  """Checks that all processes see the same directory, which is created if it is missing.

  Raises ConfigError if it is a URL, or if a process does not see a file that the first one wrote.
  """
  own_folder(directory)
  if jax.process_count() == 1:
    return
  number = multihost_utils.broadcast_one_to_all(np.int32(random.SystemRandom().getrandbits(31)))
  token = pathlib.Path(directory) / f'.shared_{number}'
  if jax.process_index() == 0:
    token.parent.mkdir(parents=True, exist_ok=True)
    token.touch()
  multihost_utils.sync_global_devices('shared file written')
  deadline = time.monotonic() + PATIENCE  # a network disk may show it a little later
  while not (is_visible := token.exists()) and time.monotonic() < deadline:
    time.sleep(0.1)
  everywhere = multihost_utils.process_allgather(np.asarray(is_visible))
  if jax.process_index() == 0:
    token.unlink()
  if not everywhere.all():
    raise ConfigError(
      f'{os.fspath(directory)!r} is not the same directory for process {np.argmin(everywhere)} as '
      'for the first one; expected one on a disk that all hosts share'
    )


def agreed(value: bool) -> bool:
  """Returns the first process's value on all of them: a disk may show hosts different files."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def fetch(tree: Tree) -> Tree:
  """Gathers arrays as complete numpy arrays, also if each process holds only shards.

  On several processes all of them must call it, with the same arrays in the same order.
  """
  return jax.tree.map(_fetch, tree)


def _fetch(x: object) -> np.ndarray:
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return multihost_utils.process_allgather(x, tiled=True)
  return np.asarray(x)
