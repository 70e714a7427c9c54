"""The precision policy: float32 everywhere, except matrix products in the `dtype` of a model."""

import jax.numpy as jnp

from mgjax.core.errors import ConfigError

COMPUTE = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
PARAMETER = jnp.float32
# Types in which the backbone's kernels may be stored for sampling (nn/quantize.py).
STORED = {
  'float32': jnp.float32,
  'bfloat16': jnp.bfloat16,
  'int8': jnp.int8,
  'fp8': jnp.float8_e4m3fn,
}
# A kernel of 1 byte a number is stored as two leaves, q and s, with these names.
QUANTISED = 'quantised'
SCALE = 'scale'
# A kernel with adapters is three: itself, A and B (nn/lora.py).
BASE = 'base'
LORA_A = 'lora_a'
LORA_B = 'lora_b'
DIFFERENCE = 'difference'  # of a parameter, in a tree of adapters


def compute_type(name: str) -> jnp.dtype:
  """Returns the type for matrix products by its name. Raises ConfigError if not in `COMPUTE`."""
  if name not in COMPUTE:
    raise ConfigError(f'unknown compute type {name!r:.100}; expected one of {sorted(COMPUTE)}')
  return jnp.dtype(COMPUTE[name])


def stored_type(name: str) -> jnp.dtype:
  """Returns the type that `sample.weights` names. Raises ConfigError if it is not in `STORED`."""
  if name not in STORED:
    raise ConfigError(
      f"unknown type of weights {name!r:.100}; expected one of {', '.join(STORED)}, or '' for the "
      'type that they are saved in'
    )
  return jnp.dtype(STORED[name])


def wide(dtype: jnp.dtype) -> jnp.dtype:
  """Returns the type in which numbers of a type are summed: float32, or float64 for float64."""
  return jnp.promote_types(dtype, jnp.float32)
