"""Options of the compiler: every chip gets its own, and XLA knows those for GPUs by name."""

import types

import jax
import jax.numpy as jnp
import pytest

from mgjax.parallel.compiler import GPU, SEVERAL_GPUS, TPU_OPTIONS, compiler_options


def device(platform, kind=''):
  return types.SimpleNamespace(platform=platform, device_kind=kind)


def test_every_kind_of_device_gets_its_own_options():
  assert compiler_options(device('cpu'), 8) == {}
  assert compiler_options(device('gpu', 'NVIDIA H200'), 8) == GPU | SEVERAL_GPUS
  assert compiler_options(device('gpu', 'NVIDIA H200'), 1) == GPU
  assert compiler_options(device('tpu', 'TPU v5p'), 8) == TPU_OPTIONS
  assert compiler_options(device('tpu', 'TPU v5 lite'), 8) == {}


@pytest.mark.parametrize('name', GPU)
def test_the_installed_xla_knows_the_options_for_gpus(name):
  lowered = jax.jit(jnp.negative).lower(1.0)
  assert lowered.compile(compiler_options={name: GPU[name]})(1.0) == -1.0
  with pytest.raises(jax.errors.JaxRuntimeError, match='No such compile option'):
    lowered.compile(compiler_options={f'{name}_wrong': GPU[name]})
