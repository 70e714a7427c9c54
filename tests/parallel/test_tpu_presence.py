"""TPUs are looked for where there may be some, and libtpu is left alone where there are none."""

import os

import pytest

from mgjax.parallel.tpu_presence import may_have_tpu
from tests.binaries import python

BARE = {'PATH': '/bin', 'TPU_SKIP_MDS_QUERY': '1', 'TPU_LIBRARY_PATH': '/x/libtpu.so'}


@pytest.mark.parametrize('device', ['dev/accel0', 'dev/vfio/0'])
def test_a_device_may_be_a_tpu(tmp_path, device):
  assert not may_have_tpu(BARE, tmp_path)
  (tmp_path / device).parent.mkdir(parents=True)
  (tmp_path / device).touch()
  assert may_have_tpu(BARE, tmp_path)


@pytest.mark.parametrize(
  'name', ['TPU_WORKER_HOSTNAMES', 'TPU_ACCELERATOR_TYPE', 'JAX_FORCE_TPU_INIT']
)
def test_what_an_environment_says_of_a_tpu_counts(tmp_path, name):
  assert may_have_tpu(BARE | {name: ''}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('platforms', ['', 'tpu,cpu'])
def test_libtpu_is_started_only_where_asked_for_or_where_there_are_tpus(platforms):
  pytest.importorskip('libtpu')
  if may_have_tpu():
    pytest.skip('this machine may have a TPU')
  program = (
    'from mgjax.parallel.tpu_presence import leave_out_tpu\n'
    'leave_out_tpu()\n'
    'import jax\n'
    'try: print(jax.devices()[0].platform)\n'
    'except RuntimeError as error: print(error)'
  )
  environment = {name: value for name, value in os.environ.items() if not name.startswith('TPU_')}
  environment |= {'JAX_PLATFORMS': platforms, 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}
  done = python('-c', program, env=environment)
  if platforms:
    assert "Unable to initialize backend 'tpu'" in done.stdout
    assert 'this machine has no TPU' not in done.stdout  # what libtpu says instead
  else:
    assert (done.stdout, done.stderr) == ('cpu\n', '')
