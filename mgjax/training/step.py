"""The training step (gradient, update, average) as one pure function for every component."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE
from mgjax.core.typing import Array, Batch, Key, Metrics, Objective, Predict, Tree
from mgjax.parallel.rules import BATCH, size
from mgjax.training.ema import update_average
from mgjax.training.guard import UpdateGuard, apply_if, check_update
from mgjax.training.optimizers.rates import Rates, fill, mask_frozen, mask_like
from mgjax.training.settings import RunSettings
from mgjax.training.state import State

Frozen = Mapping[str, Tree] | None  # name -> parameters that are not trained
# (adapters, base, key of a step or None) -> parameters of the model
Adapt = Callable[[Tree, Tree, Key | None], Tree]
Step = Callable[..., tuple[State, Metrics]]  # of a state and a batch
# (state, batch, frozen) -> gradients, the loss that was minimised, metrics
Learn = Callable[..., tuple[Tree, Array, Metrics]]

T = TypeVar('T')
_log = logging.getLogger(__name__)


def make_step(
  model: nn.Module,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  decay: float,
  guard: UpdateGuard | None = None,
  **learning: Any,
) -> Step:
  """Makes the pure function `step(state, batch, frozen=None) -> (state, metrics)`, for `jax.jit`.

  The random key of a step is `fold_in(seed, step)`, and the state holds no key. So a run that is
  stopped and resumed draws the same numbers as one that is not. `frozen` has the parameters of
  networks that are not trained. The objective gets each as the argument of its name: parameters
  in a closure would be compiled into the program as constants.

  Args:
    objective: `objective(predict, batch, key) -> (loss, metrics)`.
    decay: of the average of the parameters, which evaluation uses.
    guard: skips bad updates (`guard.py`); None makes every update.
    **learning: of `make_learn`.
  """
  learn = make_learn(model, objective, **learning)

  def step(state: State, batch: Batch, frozen: Frozen = None) -> tuple[State, Metrics]:
    gradients, loss, metrics = learn(state, batch, frozen)
    good, counters, guard_metrics = check_update(guard, state.counters, loss, {'': gradients})

    def update(state: State) -> State:
      params, opt_state = apply(optimizer, gradients, state.opt_state, state.params)
      average = average_of(state, params, gradients, decay)
      return dataclasses.replace(state, params=params, opt_state=opt_state, average=average)

    after = apply_if(good, update, state)
    state = dataclasses.replace(after, step=state.step + 1, counters=counters)
    return state, metrics | guard_metrics

  return step


def make_learn(
  model: nn.Module,
  objective: Objective,
  *,
  seed: int,
  accumulate: int = 1,
  rates: Rates = (),
  adapt: Adapt | None = None,
) -> Learn:
  """Makes the gradients of a step, without the update.

  Args:
    objective: as for `make_step`.
    seed: of the randomness of all steps.
    accumulate: the number of micro-batches of a batch, which run one after another. The update uses
      their mean gradient. The batch size must be a multiple of it.
    rates: which parameters are frozen, see `optimizers/rates.py`.
    adapt: makes the parameters of the model from those of the state, if these are adapters, and
      from `frozen['base']`.
  """

  def learn(state: State, batch: Batch, frozen: Frozen = None) -> tuple[Tree, Array, Metrics]:
    with_networks = with_frozen(objective, frozen)

    def gradient(params: Tree, batch: Batch, key: Key) -> tuple[Tree, Array, Metrics]:
      def loss(trained: Tree) -> tuple[Array, Metrics]:
        return with_networks(bind(model, fill(trained, params), adapt, frozen, key), batch, key)

      trained = mask_frozen(params, rates)
      (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
      return gradients, value, metrics

    key = jax.random.fold_in(jax.random.key(seed), state.step)
    return accumulated(gradient, state.params, batch, key, accumulate)

  return learn


def bind(
  model: nn.Module,
  params: Tree,
  adapt: Adapt | None = None,
  frozen: Frozen = None,
  key: Key | None = None,
) -> Predict:
  """Returns the model as a function of its inputs; `adapt` and `frozen` as in `make_learn`."""
  model_params = params if adapt is None else adapt(params, (frozen or {})[BASE], key)
  return functools.partial(model.apply, {'params': model_params})


def with_frozen(objective: Callable[..., T], frozen: Frozen) -> Callable[..., T]:
  """Binds frozen parameters as arguments of an objective by name, except `BASE`."""
  networks = {name: tree for name, tree in (frozen or {}).items() if name != BASE}
  return functools.partial(objective, **networks) if networks else objective


def apply(
  optimizer: optax.GradientTransformation, gradients: Tree, opt_state: Tree, params: Tree
) -> tuple[Tree, Tree]:
  """Returns parameters and optimizer state after one update; frozen parameters do not change."""
  updates, opt_state = optimizer.update(gradients, opt_state, params)
  return fill(optax.apply_updates(mask_like(params, updates), updates), params), opt_state


def average_of(state: State, params: Tree, gradients: Tree, decay: float) -> Tree:
  """Returns the new average of the parameters, after an update of a state to `params`."""
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


def accumulation(settings: RunSettings, mesh: Mesh) -> int:
  """Returns the number of micro-batches of a batch.

  That is `train.accumulate`, times more if the mesh has fewer groups of devices than
  `train.device_groups`. Then neither the batch size nor the rows on each device at a time change.
  Noise and times are drawn for each micro-batch, so their values do change.
  """
  fewer = -(-settings.device_groups // size(mesh, BATCH))
  return settings.accumulate * max(1, fewer)


def check_batches(settings: RunSettings, batch_sizes: Mapping[str, int], mesh: Mesh) -> None:
  """Raises ConfigError if a batch does not divide into micro-batches over the groups of devices.

  Logs a warning if there are more micro-batches than `train.accumulate`.
  """
  count = accumulation(settings, mesh)
  groups = size(mesh, BATCH)
  if count > settings.accumulate:
    _log.warning(
      '%d groups of devices instead of %d: every batch in %d micro-batches',
      groups,
      settings.device_groups,
      count,
    )
  for name, batch_size in batch_sizes.items():
    if batch_size % (count * groups):
      below = batch_size // (count * groups) * count * groups
      alternatives = [str(rows) for rows in (below, below + count * groups) if rows]
      raise ConfigError(
        f'the batch of {batch_size} of bucket {name!r} does not divide into {count} '
        f'micro-batch(es) (train.accumulate) over {groups} group(s) of devices; take a batch size '
        f'of {" or ".join(alternatives)}, or another mesh'
      )
