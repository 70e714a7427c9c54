"""The adversarial training step: a model and its discriminator.

The autoencoder (Movie Gen §3.1.1) and the audio codec train against discriminators. A step updates
both, with the same reconstructions, and each against the other's parameters before the step. One
state holds both, so they are sharded, saved and resumed together.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mgjax.core.typing import Array, Batch, Critic, Key, Metrics, Tree
from mgjax.training.guard import UpdateGuard, apply_if, check_update
from mgjax.training.optimizers.rates import Rates, fill, mask_frozen
from mgjax.training.spec import Adversary
from mgjax.training.state import State
from mgjax.training.step import (
  Adapt,
  Frozen,
  Learn,
  Step,
  accumulated,
  apply,
  average_of,
  bind,
  with_frozen,
)


def make_adversarial_step(
  model: nn.Module,
  discriminator: Adversary,
  optimizer: optax.GradientTransformation,
  discriminator_optimizer: optax.GradientTransformation,
  *,
  decay: float,
  guard: UpdateGuard | None = None,
  **learning: Any,
) -> Step:
  """Makes `step(state, batch, frozen=None) -> (state, metrics)` for a model and its discriminator.

  Before step `discriminator.start` the discriminator has no weight in the loss, and does not learn.
  Its loss is computed nevertheless: the run has one program, without a branch, in which XLA's
  convolutions take several times as long on a CPU.

  The arguments are those of `make_step`. `decay` and `rates` are of the model: the discriminator
  has no average, and its rates are in its optimizer's settings. If a step is bad for one of them,
  neither is updated.
  """
  learn = make_adversarial_learn(model, discriminator, **learning)

  def step(state: State, batch: Batch, frozen: Frozen = None) -> tuple[State, Metrics]:
    (gradients, learnt), loss, metrics = learn(state, batch, frozen)
    both = {'': gradients, 'discriminator_': learnt}
    good, counters, guard_metrics = check_update(guard, state.counters, loss, both)

    def update(state: State) -> State:
      params, opt_state = apply(optimizer, gradients, state.opt_state, state.params)
      opposing = state.discriminator['params'], state.discriminator['opt_state']
      others = apply(discriminator_optimizer, learnt, opposing[1], opposing[0])
      moved = dict(zip(('params', 'opt_state'), others, strict=True))
      active = state.step >= discriminator.start
      other = jax.tree.map(functools.partial(jnp.where, active), moved, state.discriminator)
      average = average_of(state, params, gradients, decay)
      return dataclasses.replace(
        state, params=params, opt_state=opt_state, average=average, discriminator=other
      )

    after = apply_if(good, update, state)
    state = dataclasses.replace(after, step=state.step + 1, counters=counters)
    return state, metrics | guard_metrics

  return step


def make_adversarial_learn(
  model: nn.Module,
  discriminator: Adversary,
  *,
  seed: int,
  accumulate: int = 1,
  rates: Rates = (),
  adapt: Adapt | None = None,
) -> Learn:
  """Makes the adversarial step without updates: both gradients, and the sum of the losses."""
  opponent_rates = discriminator.optimizer.rates

  def learn(state: State, batch: Batch, frozen: Frozen = None) -> tuple[Tree, Array, Metrics]:
    active = state.step >= discriminator.start

    def gradient(both: tuple[Tree, Tree], batch: Batch, key: Key):
      params, others = both
      first, second = jax.random.split(key)

      def loss(trained: Tree) -> tuple[Array, tuple[Metrics, Array]]:
        judge = Critic(bind(discriminator.model, others), active)
        value, metrics, output = with_frozen(discriminator.generator_objective, frozen)(
          bind(model, fill(trained, params), adapt, frozen, first), batch, first, judge
        )
        return value, (metrics, output)

      def opposing(trained: Tree) -> tuple[Array, Metrics]:
        predict = bind(discriminator.model, fill(trained, others))
        return discriminator.objective(predict, batch, output, second)

      trained, learning = mask_frozen(params, rates), mask_frozen(others, opponent_rates)
      (value, (metrics, output)), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
      (other, other_metrics), learnt = jax.value_and_grad(opposing, has_aux=True)(learning)
      return (gradients, learnt), value + other, metrics | other_metrics

    key = jax.random.fold_in(jax.random.key(seed), state.step)
    both = (state.params, state.discriminator['params'])
    return accumulated(gradient, both, batch, key, accumulate)

  return learn
