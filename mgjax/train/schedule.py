"""Learning rates as functions of the step."""

from collections.abc import Callable

import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array

# Of progress and the fraction where a decay ends, which is met exactly at progress 1.
_SHAPES = {
  'constant': lambda u, final: jnp.ones_like(u),
  'linear': lambda u, final: final + (1 - final) * (1 - u),
  'cosine': lambda u, final: final + (1 - final) * (1 + jnp.cos(jnp.pi * u)) / 2,
  'exponential': lambda u, final: final**u,
}


def make_schedule(
  *, kind: str, peak: float, steps: int, warmup: int = 0, final: float = 0.0
) -> Callable[[Array | int], Array]:
  """Makes a learning rate that warms up linearly and then stays or decays.

    r(s) = peak min(1, (s + 1) / warmup) shape(u)
    u    = clip((s - warmup) / (steps - warmup), 0, 1)

  with shape(u) = 1 (constant), final + (1 - final) (1 - u) (linear), final + (1 - final)
  (1 + cos(pi u)) / 2 (cosine) or final^u (exponential). The first step already learns, step
  `warmup` has the peak, step `steps` and all after it have `peak * final` (constant: the peak).
  Movie Gen pre-trains with a constant rate (lowered by hand when the loss is flat), fine-tunes on
  selected video with a cosine (§3.3) and fine-tunes the audio model with a warm-up and a linear
  decay from 1e-4 to 1e-8 (§6); the codec of sound decays exponentially, as DAC does.

  Args:
    kind: 'constant', 'cosine', 'exponential' or 'linear'.
    peak: the rate after the warm-up.
    steps: the length of the run, warm-up included.
    warmup: the number of steps of the warm-up.
    final: where a decay ends, as a fraction of the peak; above 0 if it is exponential.

  Returns:
    A function from the step, counted from 0, to a float32 scalar.

  Raises:
    ConfigError: an argument is out of its range.
  """
  if kind not in _SHAPES:
    raise ConfigError(f'schedule kind is {kind!r}, expected one of {", ".join(sorted(_SHAPES))}')
  if not 0 <= warmup < steps:
    raise ConfigError(
      f'schedule warmup is {warmup} of {steps} steps, expected at least 0 and fewer than all'
    )
  if not 0 <= final <= 1:
    raise ConfigError(f'schedule final is {final}, expected a fraction of the peak in [0, 1]')

  if kind == 'exponential' and not final:
    raise ConfigError('an exponential schedule does not reach 0; expected a final above it')

  def rate(step: Array | int) -> Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - warmup) / (steps - warmup), 0, 1)
    warm = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
    return peak * warm * _SHAPES[kind](progress, final)

  return rate
