"""One precision policy: parameters, optimizer, norms, softmax and losses in float32, matrix
products in the `dtype` that a configuration names."""

import jax.numpy as jnp

from mgjax.core.errors import ConfigError

COMPUTE = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
PARAMETER = jnp.float32


def compute_type(name: str) -> jnp.dtype:
  """Returns the type that modules cast parameters and activations to before a matrix product.

  Raises:
    ConfigError: the name is not one of `COMPUTE`.
  """
  if name not in COMPUTE:
    raise ConfigError(f'unknown compute type {name!r:.100}; expected one of {sorted(COMPUTE)}')
  return jnp.dtype(COMPUTE[name])
