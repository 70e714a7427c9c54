"""Two players of one number or two, each of which learns from what the other answers."""

import jax
import jax.numpy as jnp
import optax


def shift(params):
  """A student of noise x that makes m + d x, with params m and d, in one step."""
  return lambda x, time, given, drop: params[0] + (params[1] - 1) * x


def play(losses, begun, rates, steps):
  """Returns what the parameters of student and opponent are after some steps.

  `losses(student, opponent, key)` are the student's with what it made, a function of its
  parameters, and the opponent's, a function of its parameters and of that.
  """

  def step(carry, key):
    players, moments = carry
    mine, others = losses(*players, key)
    gradient, made = jax.grad(mine, has_aux=True)(players[0])
    against = jax.grad(lambda params: others(params, made))(players[1])
    moved = [
      rate.update(by, state)
      for rate, by, state in zip(rates, (gradient, against), moments, strict=True)
    ]
    players = tuple(
      optax.apply_updates(params, updates)
      for params, (updates, _) in zip(players, moved, strict=True)
    )
    return (players, tuple(state for _, state in moved)), None

  begun = tuple(map(jnp.array, begun))
  moments = tuple(rate.init(params) for rate, params in zip(rates, begun, strict=True))
  keys = jax.random.split(jax.random.key(2), steps)
  return jax.jit(lambda: jax.lax.scan(step, (begun, moments), keys))()[0][0]
