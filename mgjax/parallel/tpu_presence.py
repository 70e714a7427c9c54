"""Detects whether this machine may have a TPU, so that JAX does not load libtpu without one."""

import contextlib
import os
import pathlib
from collections.abc import Mapping

# `import jax` itself sets these wherever libtpu is installed or there is no TPU.
_MEANINGLESS = ('TPU_LIBRARY_PATH', 'TPU_SKIP_MDS_QUERY')


def may_have_tpu(
  environment: Mapping[str, str] = os.environ, root: pathlib.Path = pathlib.Path('/')
) -> bool:
  """Returns whether this machine, with its files below `root`, may have a TPU; True in doubt.

  Chips are devices, /dev/accel0 up to v4 and /dev/vfio/0 since, also in GKE pods that request TPUs.
  Pods and notebooks also have variables such as TPU_WORKER_HOSTNAMES.
  """
  has_variable = any(name.startswith('TPU_') and name not in _MEANINGLESS for name in environment)
  has_chip = any(any(root.glob(f'dev/{kind}[0-9]*')) for kind in ('accel', 'vfio/'))
  return has_variable or has_chip or 'JAX_FORCE_TPU_INIT' in environment


def leave_out_tpu() -> None:
  """Stops JAX from loading libtpu if there is no TPU; has no effect once JAX has devices.

  If libtpu is installed as a compiler, JAX would start it to look for chips and print errors.
  Platforms that are set explicitly, as in `JAX_PLATFORMS=tpu`, are used.
  """
  import jax
  from jax.extend import backend

  # JAX makes the attributes of `config` at import, unseen by its types.
  platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
  if not platforms and not may_have_tpu():
    with contextlib.suppress(RuntimeError):  # it is in use: the machine has a TPU
      backend.register_backend_factory('tpu', _no_client)


def _no_client() -> None:
  raise RuntimeError('this machine has no TPU')
