"""Says whether this machine may have a TPU; JAX does without libtpu where it has none."""

import contextlib
import os
import pathlib
from collections.abc import Mapping

# `import jax` itself sets these, wherever libtpu is installed and wherever there is no TPU.
_MEANINGLESS = ('TPU_LIBRARY_PATH', 'TPU_SKIP_MDS_QUERY')


def may_have_tpu(
  environment: Mapping[str, str] = os.environ, root: pathlib.Path = pathlib.Path('/')
) -> bool:
  """Says whether this machine, with its files below `root`, may have a TPU; in doubt, it may.

  Chips are devices, /dev/accel0 up to v4, /dev/vfio/0 since, also in the pods of GKE that were
  given some. Pods and notebooks are told by variables such as TPU_WORKER_HOSTNAMES besides.
  """
  told = any(name.startswith('TPU_') and name not in _MEANINGLESS for name in environment)
  chips = any(any(root.glob(f'dev/{kind}[0-9]*')) for kind in ('accel', 'vfio/'))
  return told or chips or 'JAX_FORCE_TPU_INIT' in environment


def leave_out_tpu() -> None:
  """Makes JAX leave libtpu alone where there is no TPU; once it has devices, changes nothing.

  Where libtpu is installed as a compiler, JAX would start it to look for chips and print errors.
  Platforms that are named, as in `JAX_PLATFORMS=tpu`, are used.
  """
  import jax
  from jax.extend import backend

  if not jax.config.jax_platforms and not may_have_tpu():
    with contextlib.suppress(RuntimeError):  # it is in use: there is one after all
      backend.register_backend_factory('tpu', _no_client)


def _no_client() -> None:
  raise RuntimeError('this machine has no TPU')
