"""EditTask: which kind of edit is asked for, as a learned vector (Movie Gen §5, Emu Edit)."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import GatedContext, Ports
from mgjax.nn.linear import ZEROS, Linear, parameter

TASK_KEY = 'task'
_INDEX = 'task_index'


class EditTask(Conditioning):
  """Gives every task a vector u: four tokens of context and a part of the embedding of time.

  context = [text; g W u reshaped to (4 d)], vector = V u. The gate g and V start at zero, so adding
  this module does not change a text-to-video model, bit for bit. Task 0 stands for an unknown kind
  of instruction. The `width` of u is not in public sources. `tasks` are in the order of the table;
  add more at its end.
  """

  tasks: tuple[str, ...]
  dim: int
  width: Positive = 64
  tokens: Positive = 4
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns the number of the task, 0 for none."""
    return {_INDEX: array((), np.int32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field 'task', a name."""
    return {TASK_KEY: ()}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the number of a sample's task if it names one; ConfigError for an unknown one."""
    if TASK_KEY not in sample:
      return {}
    name = str(sample[TASK_KEY])
    if name and name not in self.tasks:
      raise ConfigError(f'task {name!r}; expected one of {", ".join(self.tasks)}')
    return {_INDEX: np.array(self.tasks.index(name) + 1 if name else 0, np.int32)}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if _INDEX not in batch:
      return Ports()
    index = jnp.where(drop, 0, batch[_INDEX])
    normal = jax.nn.initializers.normal(1.0)
    there = index > 0
    table = parameter(
      self, 'table', normal, ('vocabulary', 'hidden'), (len(self.tasks), self.width)
    )
    u = jnp.where(there[:, None], table[index - 1], 0).astype(self.dtype)
    axes = ('hidden', 'embed')
    tokens = Linear(self.tokens * self.dim, axes, dtype=self.dtype, name='project_tokens')(u)
    vector = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='project_vector')(u)
    gate = parameter(self, 'gate', ZEROS, ('embed',), (self.dim,))
    group = GatedContext(
      tokens.reshape(-1, self.tokens, self.dim),
      jnp.repeat(there[:, None], self.tokens, axis=1),
      jnp.broadcast_to(gate, (len(index), self.dim)),
    )
    return Ports(vector=vector, gated=(group,))
