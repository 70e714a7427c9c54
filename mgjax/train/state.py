"""The state of a training run: everything that a step reads and writes, and where it lies."""

from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mgjax.core.typing import Array, Key, Tree
from mgjax.parallel.shard import parameter_shardings, replicated
from mgjax.train.average import start_average


@flax.struct.dataclass
class State:
  """What one training step turns into the next.

  Attributes:
    step: int32 scalar, the number of steps done.
    params: the trained parameters, float32.
    opt_state: the optimizer's state.
    average: the exponential moving average of `params`, float32; an empty tree if none is kept.
  """

  step: Array
  params: Tree
  opt_state: Tree
  average: Tree


def start_state(params: Tree, optimizer: optax.GradientTransformation) -> State:
  """Returns the state before the first step."""
  return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), start_average(params))


def abstract_state(
  init: Callable[[Key], Tree], optimizer: optax.GradientTransformation, mesh: Mesh
) -> State:
  """Returns the shapes of a state and their shardings, without allocating anything.

  Moments and average lie where their parameters lie; counters are everywhere.

  Args:
    init: key -> parameters with logical axes, as a Linen module's `init` gives them.
    optimizer: an optax transformation.
    mesh: of the devices, which may be those of a topology that is only compiled for.
  """
  boxed = jax.eval_shape(init, jax.random.key(0))
  shardings, whole = parameter_shardings(boxed, mesh), replicated(mesh)
  shapes = jax.eval_shape(lambda params: start_state(params, optimizer), nn.unbox(boxed))
  moments = optax.tree_map_params(
    optimizer,
    lambda _, sharding: sharding,
    shapes.opt_state,
    shardings,
    transform_non_params=lambda _: whole,
  )
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    shapes,
    State(whole, shardings, moments, shardings),
  )


def shardings_of(tree: Tree) -> Tree:
  """Returns the shardings of a tree of arrays or shapes."""
  return jax.tree.map(lambda leaf: leaf.sharding, tree)
