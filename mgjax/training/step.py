"""One training step: the same pure function for every component."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mgjax.core.typing import Array, Batch, Key, Metrics, Objective, Predict, Tree
from mgjax.training.ema import update_average
from mgjax.training.guard import UpdateGuard, apply_if, check_update
from mgjax.training.rates import Rates, fill, mask_frozen, mask_like
from mgjax.training.state import State

Step = Callable[..., tuple[State, Metrics]]  # of a state and a batch
# (state, batch, frozen) -> gradients, the loss that was minimised, metrics
Learn = Callable[..., tuple[Tree, Array, Metrics]]


def make_step(
  model: nn.Module,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  decay: float,
  accumulate: int = 1,
  guard: UpdateGuard | None = None,
  rates: Rates = (),
) -> Step:
  """Makes the pure function `step(state, batch, frozen=None) -> (state, metrics)`, for `jax.jit`.

  All randomness is `fold_in(seed, step)`, and no key is kept in the state: a run that is stopped
  and resumed draws what an undisturbed one draws. Frozen parameters, those of networks that the
  objective asks but never trains, reach it as its argument `frozen`, where there are any: a
  program would have what its objective closes over compiled into it.

  Args:
    model: a Linen module.
    objective: `objective(predict, batch, key) -> (loss, metrics)`.
    optimizer: an optax transformation.
    seed: of all draws.
    decay: of the average of the parameters, from which evaluation samples.
    accumulate: micro-batches that a batch is cut into, one after another; their mean gradient
      makes the update. The batch size must divide by it.
    guard: what keeps bad updates out (`guard.py`); None makes every update.
    rates: those of the optimizer; what they freeze is not differentiated by.
  """
  learn = make_learn(model, objective, seed=seed, accumulate=accumulate, rates=rates)

  def step(state: State, batch: Batch, frozen: Tree = None) -> tuple[State, Metrics]:
    gradients, loss, metrics = learn(state, batch, frozen)
    good, counters, found = check_update(guard, state.counters, loss, {'': gradients})

    def update(state: State) -> State:
      params, opt_state = apply(optimizer, gradients, state.opt_state, state.params)
      average = average_of(state, params, gradients, decay)
      return state.replace(params=params, opt_state=opt_state, average=average)

    state = apply_if(good, update, state).replace(step=state.step + 1, counters=counters)
    return state, metrics | found

  return step


def make_learn(
  model: nn.Module, objective: Objective, *, seed: int, accumulate: int = 1, rates: Rates = ()
) -> Learn:
  """Makes the gradients of a step, without the update; arguments as for `make_step`."""

  def learn(state: State, batch: Batch, frozen: Tree = None) -> tuple[Tree, Array, Metrics]:
    def gradient(params: Tree, batch: Batch, key: Key) -> tuple[Tree, Array, Metrics]:
      def loss(trained: Tree) -> tuple[Array, Metrics]:
        return with_frozen(objective, frozen)(bind(model, fill(trained, params)), batch, key)

      trained = mask_frozen(params, rates)
      (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
      return gradients, value, metrics

    key = jax.random.fold_in(jax.random.key(seed), state.step)
    return accumulated(gradient, state.params, batch, key, accumulate)

  return learn


def bind(model: nn.Module, params: Tree) -> Predict:
  """Returns the model as a function of its inputs."""
  return functools.partial(model.apply, {'params': params})


def with_frozen(objective: Callable[..., Any], frozen: Tree) -> Callable[..., Any]:
  """Binds frozen parameters, if there are any, as the argument `frozen` of an objective."""
  return objective if frozen is None else functools.partial(objective, frozen=frozen)


def apply(
  optimizer: optax.GradientTransformation, gradients: Tree, opt_state: Tree, params: Tree
) -> tuple[Tree, Tree]:
  """Returns parameters and optimizer state after one update; frozen parameters stay."""
  updates, opt_state = optimizer.update(gradients, opt_state, params)
  return fill(optax.apply_updates(mask_like(params, updates), updates), params), opt_state


def average_of(state: State, params: Tree, gradients: Tree, decay: float) -> Tree:
  """Returns the average after a step that made `params` of a state with these gradients."""
  return update_average(state.average, mask_like(params, gradients), decay, state.step)


def accumulated(gradient, params: Tree, batch: Batch, key: Key, count: int) -> Tree:
  """Returns the mean of gradient(params, micro_batch, key) over `count` pieces of a batch."""
  if count == 1:
    return gradient(params, batch, key)

  def cut(array: Array) -> Array:
    # Rows i, i + count, ... make micro-batch i: rows stay on the device that holds them.
    return jnp.swapaxes(array.reshape(array.shape[0] // count, count, *array.shape[1:]), 0, 1)

  def add(total: Tree, inputs):
    micro_batch, index = inputs
    return jax.tree.map(
      jnp.add, total, gradient(params, micro_batch, jax.random.fold_in(key, index))
    ), None

  micro_batches = jax.tree.map(cut, batch)
  first = jax.tree.map(lambda array: array[0], micro_batches)
  shapes = jax.eval_shape(gradient, params, first, key)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  total, _ = jax.lax.scan(add, zeros, (micro_batches, jnp.arange(count)))
  return jax.tree.map(lambda array: array / count, total)
