"""Learning rates that fall when the validation loss stalls (Movie Gen §3.2.2).

The paper lowers the rate of its last stage of pre-training by half whenever the loss on fixed
validation data is flat. What decides lies in the optimizer's state, so it is saved, resumed and the
same on all hosts; the rate is a number in the step's program, which is compiled once.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.typing import ArrayLike

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Metrics, Tree
from mgjax.training.monitoring.metrics import validation_loss
from mgjax.training.settings import Patience
from mgjax.training.state import State, shardings_of

_log = logging.getLogger(__name__)


class Plateau(NamedTuple):
  """The validations so far, in the optimizer's state.

  Attributes:
    factor: float32 scalar that the schedule's rate is multiplied with.
    best: float32 scalar, the lowest loss that counted as better.
    stalled: int32 scalar, validations since then, or since the rate last fell.
  """

  factor: Array
  best: Array
  stalled: Array


def scale_by_plateau() -> optax.GradientTransformation:
  """Makes the last link of an optimizer's chain: updates times `Plateau.factor`."""

  def init(params: Tree) -> Plateau:
    one = jnp.ones((), jnp.float32)
    best = jnp.full((), jnp.inf, jnp.float32)
    return Plateau(one, best, jnp.zeros((), jnp.int32))

  def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
    return jax.tree.map(lambda leaf: leaf * state.factor, updates), state

  return optax.GradientTransformation(init, update)


def after_validation(plateau: Plateau, loss: Array, patience: Patience) -> Plateau:
  """Updates the plateau after one more validation.

    better  = loss < best (1 - improvement)
    stalled = 0 if better else stalled + 1
    factor <- max(lowest, factor_of_a_stall factor), stalled <- 0      if stalled = patience

  A loss that is not finite is never better.
  """
  better = loss < jnp.where(
    jnp.isinf(plateau.best), jnp.inf, plateau.best * (1 - patience.improvement)
  )
  stalled = jnp.where(better, 0, plateau.stalled + 1)
  fall = stalled >= patience.patience
  lower = jnp.maximum(patience.lowest, plateau.factor * patience.factor)
  return Plateau(
    factor=jnp.where(fall, jnp.minimum(plateau.factor, lower), plateau.factor),
    best=jnp.where(better, loss, plateau.best),
    stalled=jnp.where(fall, 0, stalled),
  )


def make_react(
  own: Patience, other: Patience | None = None
) -> Callable[[State, Metrics], State] | None:
  """Makes `react(state, found) -> state`, called after every validation; None without patience.

  `own` is of the model's optimizer, `other` of the discriminator's, whose rate falls at the same
  losses.
  """
  other = other or Patience()
  if not own.patience and not other.patience:
    return None

  def react(state: State, validation: Metrics) -> State:
    loss = validation_loss(validation)
    if loss is None:
      raise ConfigError(
        'optimizer.plateau asks for a validation loss, and there is too little validation data for '
        'one batch; give more, or set optimizer.plateau.patience to 0'
      )
    if jax.process_count() > 1:  # one loss for all, bit by bit
      loss = float(multihost_utils.broadcast_one_to_all(np.float32(loss)))
    state = dataclasses.replace(state, opt_state=_updated(state.opt_state, loss, own))
    if state.discriminator is not None:
      opt_state = _updated(state.discriminator['opt_state'], loss, other)
      discriminator = {**state.discriminator, 'opt_state': opt_state}
      state = dataclasses.replace(state, discriminator=discriminator)
    return state

  return react


def restarted(state: State) -> State:
  """Returns the state before its first validation: a new rate is not lowered by old stalls."""

  def first(leaf: Tree) -> Tree:
    if not isinstance(leaf, Plateau):
      return leaf
    return jax.jit(lambda: scale_by_plateau().init(()), out_shardings=shardings_of(leaf))()

  return jax.tree.map(first, state, is_leaf=lambda leaf: isinstance(leaf, Plateau))


def _updated(opt_state: Tree, loss: float, patience: Patience) -> Tree:
  def update(leaf: Tree) -> Tree:
    if not isinstance(leaf, Plateau):
      return leaf
    jitted = jax.jit(after_validation, static_argnums=2, out_shardings=shardings_of(leaf))
    after = jitted(leaf, np.float32(loss), patience)
    if float(after.factor) < float(leaf.factor):
      _log.info(
        'the validation loss %.6g stalls at %.6g: learning rates are %g of the schedule from here',
        loss,
        float(after.best),
        float(after.factor),
      )
    return after

  return jax.tree.map(update, opt_state, is_leaf=lambda leaf: isinstance(leaf, Plateau))


def learning_rate(opt_state: Tree, rate: Callable[[ArrayLike], Array]) -> Array:
  """Returns the rate of the next update: that of the schedule, times the factor of a plateau."""
  kinds = (optax.ScaleByScheduleState, Plateau)
  parts = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, kinds))
  value = jnp.float32(1)
  for part in parts:
    if isinstance(part, optax.ScaleByScheduleState):
      value = value * rate(part.count)
    elif isinstance(part, Plateau):
      value = value * part.factor
  return value
