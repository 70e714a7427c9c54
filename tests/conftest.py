"""The ground that every test stands on: eight CPU devices, strict JAX, checked types."""

import contextlib
import fcntl
import functools
import gc
import importlib
import os
import pathlib
import shutil

import mgjax
from mgjax.parallel.compilation_cache import processor
from tests import end_on_signals

CHECKOUT = pathlib.Path(__file__).parent.parent

# In the environment, before JAX is imported, so that processes which tests start have it too.
os.environ.update(
  JAX_PLATFORMS=os.environ.get('MGJAX_TEST_PLATFORMS', 'cpu'),
  JAX_NUM_CPU_DEVICES='8',
  # With one thread a device, two programs in flight could wait for each other for ever.
  PJRT_NPROC='18',
  JAX_NUMPY_RANK_PROMOTION='raise',
  JAX_COMPILATION_CACHE_DIR=str(CHECKOUT / '.jax_cache' / processor()),
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES='0',
  # A tenth of the time went into the Python stack of every operation of a program.
  JAX_TRACEBACK_IN_LOCATIONS_LIMIT='0',
)
# Half of the time of the tests is LLVM's, on programs that run for milliseconds. Bits are compared
# between programs that were compiled alike; bounds hold for the one rounding as for the other.
# Kernels of fusions through MLIR, and modules split for threads, cost another quarter.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0'
  ' --xla_cpu_use_fusion_emitters=false'
  ' --xla_cpu_parallel_codegen_split_count=1',
)

import beartype  # noqa: E402
import beartype.roar  # noqa: E402
import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

# An int will do where a float is asked for, and jnp.bfloat16, a type, where a dtype is.
_CONF = beartype.BeartypeConf(
  is_pep484_tower=True, hint_overrides=beartype.FrozenDict({np.dtype: np.dtype | type})
)


def check(function):
  """Beartype for every function and dataclass of mgjax, but not for the fields of Flax dataclasses.

  Those are pytrees: JAX rebuilds them around shapes, shardings, axis numbers and None, which are
  no arrays. The functions that take their fields are checked.
  """
  try:
    checked = beartype.beartype(function, conf=_CONF)
  except beartype.roar.BeartypeDecorHintPep673Exception:
    return function  # beartype knows `Self` only where it decorates the whole class
  if not function.__qualname__.endswith('.__init__'):
    return checked

  @functools.wraps(function)
  def initialize(self, *args, **kwargs):
    target = function if hasattr(self, '_flax_dataclass') else checked
    return target(self, *args, **kwargs)

  return initialize


# This works on what is imported from here on.
jaxtyping.install_import_hook('mgjax', f'{__name__}.check')

hypothesis.settings.register_profile('suite', deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile('suite')

flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own

# Tracing makes objects by the million and hardly a cycle: a tenth of the time went into looking.
gc.freeze()
gc.set_threshold(100_000, 20, 50)


def pytest_configure():
  end_on_signals.install()


@pytest.fixture
def signals_as_in_a_new_process():
  """For tests that send signals to their own process: they do not end the run of the suite."""
  with end_on_signals.suspended():
    yield


@pytest.fixture
def without_flags_of_the_cpu(monkeypatch):
  """Hides XLA_FLAGS from libtpu, which ends the process at a flag that it does not know."""
  import jax
  import jax.numpy as jnp

  jax.jit(jnp.negative)(1.0)  # for the CPU they are read, once, by the first compilation
  monkeypatch.delenv('XLA_FLAGS', raising=False)


@contextlib.contextmanager
def _one_device():
  import jax

  from mgjax.parallel.mesh import make_mesh

  def make(sizes, rules):
    all_devices = all(size in (1, -1) for size in sizes.values())
    return make_mesh(sizes, rules, devices=jax.devices()[:1] if all_devices else None)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('mgjax.training.run.make_mesh', make)
    yield


@pytest.fixture(scope='module')
def on_one_device():
  """Trains on one device where the configuration gives no axis of the mesh a size.

  For modules whose promises do not depend on the number of devices: a program for eight takes
  almost twice the time to partition and compile. Runs of session fixtures keep all devices.
  """
  with _one_device():
    yield


@pytest.fixture
def on_one_device_here():
  """The same for one test of a module whose others need several."""
  with _one_device():
    yield


def _runs_of(name, *needed):
  """A fixture: what `make_runs` of `tests.name` trains, of other fixtures; not to be changed."""

  @pytest.fixture(scope='session', name=f'{name}_runs')
  def runs(tmp_path_factory, request) -> pathlib.Path:
    given = [request.getfixturevalue(each) for each in needed]
    make = importlib.import_module(f'tests.{name}').make_runs
    return _made_once(tmp_path_factory, name, functools.partial(make, *given))

  return runs


tiny_runs = _runs_of('tiny')
tiny_sound_runs = _runs_of('tiny_sound')
tiny_upsampler_runs = _runs_of('tiny_upsampler')
tiny_personalization_runs = _runs_of('tiny_personalization', 'tiny_runs')
tiny_editing_runs = _runs_of('tiny_editing', 'tiny_runs')


def _loaded(name, runs, run):
  """A fixture: the pipeline of a run of such a fixture."""

  @pytest.fixture(scope='module', name=name)
  def loaded(request):
    return mgjax.load(request.getfixturevalue(runs) / run)

  return loaded


upsampler = _loaded('upsampler', 'tiny_upsampler_runs', 'upsampler')
tracker = _loaded('tracker', 'tiny_sound_runs', 'audio')
editor = _loaded('editor', 'tiny_editing_runs', 'editing')


def _made_once(tmp_path_factory, name, make) -> pathlib.Path:
  """A copy of what the first of the processes that test makes, and the others wait for."""
  mine = tmp_path_factory.getbasetemp()
  everyones = mine.parent if 'PYTEST_XDIST_WORKER' in os.environ else mine
  made, whole = everyones / f'made_{name}', everyones / f'{name}.whole'
  with (everyones / f'{name}.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not whole.exists():
      shutil.rmtree(made, ignore_errors=True)  # of a process that died
      make(made)
      whole.touch()
  return shutil.copytree(made, mine / name)
