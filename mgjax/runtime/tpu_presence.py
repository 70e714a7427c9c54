"""Whether this machine may have a TPU, and JAX without libtpu where it has none."""

import os
import pathlib
from collections.abc import Mapping

_GOOGLE = '0x1ae0'
_DISKS_AND_NETWORKS = (
  '0x01',
  '0x02',
)  # classes of PCI; Google's virtual machines have such as well
# `import jax` itself sets these, wherever libtpu is installed and wherever there is no TPU.
_MEANINGLESS = ('TPU_LIBRARY_PATH', 'TPU_SKIP_MDS_QUERY')
_MEANT = ('COLAB_TPU_ADDR', 'JAX_FORCE_TPU_INIT')


def may_have_tpu(
  environment: Mapping[str, str] = os.environ, root: pathlib.Path = pathlib.Path('/')
) -> bool:
  """Says whether anything speaks for a TPU; in doubt, it does.

  A TPU VM has chips on the PCI bus, and their devices: /dev/accel0 up to v4, /dev/vfio/0 since.
  Pods of GKE and notebooks of Colab see the same bus, and the devices that were given to them;
  besides they are told by variables such as TPU_WORKER_HOSTNAMES or TPU_ACCELERATOR_TYPE.

  Args:
    environment: variables.
    root: of the file system.
  """
  told = any(name.startswith('TPU_') and name not in _MEANINGLESS for name in environment)
  if told or any(name in environment for name in _MEANT):
    return True
  if any(next(root.glob(f'dev/{name}[0-9]*'), None) for name in ('accel', 'vfio/')):
    return True
  devices = root.glob('sys/bus/pci/devices/*')
  return any(
    _read(device / 'vendor') == _GOOGLE
    and not _read(device / 'class').startswith(_DISKS_AND_NETWORKS)
    for device in devices
  )


def leave_out_tpu() -> None:
  """Makes JAX leave libtpu alone where there is no TPU; to be called before it has any devices.

  Where libtpu is installed as a compiler, JAX would start it to look for chips, and it would
  complain of what it does not find. Who names platforms, as in `JAX_PLATFORMS=tpu`, gets them.
  """
  import jax
  from jax.extend import backend

  if not jax.config.jax_platforms and not may_have_tpu():
    backend.register_backend_factory('tpu', _no_client)


def _no_client() -> None:
  raise RuntimeError('this machine has no TPU')


def _read(path: pathlib.Path) -> str:
  try:
    return path.read_text().strip()
  except OSError:
    return ''
