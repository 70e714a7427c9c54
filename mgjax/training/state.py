"""The state of a training run: everything that a step reads and writes, and where it lies."""

import functools
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mgjax.core.typing import Array, Key, Tree
from mgjax.parallel.shard import parameter_shardings, replicated
from mgjax.training.ema import start_average, update_average  # noqa: F401
from mgjax.training.guard import SkipCounters, start_counters
from mgjax.training.optimizers.rates import is_masked


@flax.struct.dataclass
class State:
  """What one training step turns into the next.

  Attributes:
    params: the trained parameters, float32.
    opt_state: the optimizer's state; of frozen parameters it has nothing (`rates.py`).
    average: the exponential moving average of `params`, float32; an empty tree if none is kept.
    discriminator: {'params', 'opt_state'} of the discriminator; None without one.
    counters: what the guard remembers (`guard.py`); None where there is no guard.
  """

  step: Array
  params: Tree
  opt_state: Tree
  average: Tree
  discriminator: Tree = None
  counters: SkipCounters | None = None


def start_state(
  params: Tree, optimizer: optax.GradientTransformation, discriminator: Tree = None
) -> State:
  """Returns the state before the first step; `discriminator` comes from `start_discriminator`."""
  average = start_average(params)
  step = jnp.zeros((), jnp.int32)
  counters = start_counters(discriminator is not None)
  return State(step, params, optimizer.init(params), average, discriminator, counters)


def start_discriminator(params: Tree, optimizer: optax.GradientTransformation) -> Tree:
  """Returns the discriminator's part of the state before the first step."""
  return {'params': params, 'opt_state': optimizer.init(params)}


Init = Callable[[Key], Tree]  # key -> parameters with logical axes, as a module's `init` gives them
Trained = tuple[Init, optax.GradientTransformation]


def abstract_state(
  init: Init,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  discriminator: Trained | None = None,
) -> State:
  """Returns the shapes of a state and their shardings, without allocating anything.

  Moments and average lie where their parameters lie; counters are everywhere. The devices of the
  mesh may be those of a topology that is only compiled for.
  """
  params, opt_state = _abstract_model(init, optimizer, mesh)
  average = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding), params
  )
  other = None
  if discriminator is not None:
    other = dict(zip(('params', 'opt_state'), _abstract_model(*discriminator, mesh), strict=True))
  step, counters = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)),
    jax.eval_shape(lambda: (jnp.zeros((), jnp.int32), start_counters(discriminator is not None))),
  )
  return State(step, params, opt_state, average, other, counters)


def _abstract_model(
  init: Init, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[Tree, Tree]:
  boxed = jax.eval_shape(init, jax.random.key(0))
  shardings = parameter_shardings(boxed, mesh)
  params = nn.unbox(boxed)
  opt_state = jax.eval_shape(optimizer.init, params)
  moments = optax.tree_map_params(
    optimizer,
    lambda leaf, sharding: leaf if is_masked(leaf) else sharding,
    opt_state,
    shardings,
    transform_non_params=lambda _: replicated(mesh),
    is_leaf=is_masked,
  )
  assign = functools.partial(jax.tree.map, lambda leaf, sharding: leaf.update(sharding=sharding))
  return assign(params, shardings), assign(opt_state, moments)


def shardings_of(tree: Tree) -> Tree:
  """Returns the shardings of a tree of arrays or shapes."""
  return jax.tree.map(lambda leaf: leaf.sharding, tree)
