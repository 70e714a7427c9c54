"""The optimizer: clipping by the global norm, then AdamW."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Tree
from mgjax.training.plateau import make_patience, scale_by_plateau

SCHEDULE = (
  'schedule',
  'learning_rate',
  'warmup',
  'final_fraction',
)  # of the fields in a configuration
# Of progress and the fraction where a decay ends, which is met exactly at progress 1.
_SHAPES = {
  'constant': lambda u, f: jnp.ones_like(u),
  'linear': lambda u, f: f + (1 - f) * (1 - u),
  'cosine': lambda u, f: f + (1 - f) * (1 + jnp.cos(jnp.pi * u)) / 2,
  'exponential': lambda u, f: f**u,
}


def make_learning_rate(
  *, schedule: str, learning_rate: float, steps: int, warmup: int = 0, final_fraction: float = 0.0
) -> Callable[[Array | int], Array]:
  """Makes a learning rate that warms up linearly and then stays or decays.

    r(s) = learning_rate min(1, (s + 1) / warmup) shape(u)
    u    = clip((s - warmup) / (steps - warmup), 0, 1)

  with shape(u) = 1 (constant), f + (1 - f) (1 - u) (linear), f + (1 - f) (1 + cos(pi u)) / 2
  (cosine) or f^u (exponential), f the final fraction. The first step already learns, step `warmup`
  has the full rate, step `steps` and all after it have f times that (constant: the full rate).
  Movie Gen pre-trains with a constant rate (lowered by hand when the loss is flat), fine-tunes on
  selected video with a cosine (§3.3) and fine-tunes the audio model with a warm-up and a linear
  decay from 1e-4 to 1e-8 (§6); the codec of sound decays exponentially, as DAC does. optax's
  schedules, joined, agree to 8e-6 of the rate, but not bit by bit, so runs would differ.

  Args:
    schedule: 'constant', 'cosine', 'exponential' or 'linear'.
    learning_rate: after the warm-up.
    steps: the length of the run, warm-up included.
    warmup: the number of steps of the warm-up.
    final_fraction: where a decay ends, as a fraction of the rate; above 0 if it is exponential.

  Returns:
    A function from the step, counted from 0, to a float32 scalar.

  Raises:
    ConfigError: an argument is out of its range.
  """
  if schedule not in _SHAPES:
    raise ConfigError(
      f'optimizer.schedule is {schedule!r}, expected one of {", ".join(sorted(_SHAPES))}'
    )
  if not 0 <= warmup < steps:
    raise ConfigError(
      f'optimizer.warmup is {warmup} of {steps} steps, expected at least 0 and fewer than all'
    )
  if not 0 <= final_fraction <= 1:
    raise ConfigError(
      f'optimizer.final_fraction is {final_fraction}, expected a fraction of the rate in [0, 1]'
    )

  if schedule == 'exponential' and not final_fraction:
    raise ConfigError(
      'an exponential schedule does not reach 0; expected optimizer.final_fraction above it'
    )

  def rate(step: Array | int) -> Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - warmup) / (steps - warmup), 0, 1)
    warm = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
    return learning_rate * warm * _SHAPES[schedule](progress, final_fraction)

  return rate


def make_optimizer(
  *,
  learning_rate: Callable[[Array], Array],
  beta1: float = 0.9,
  beta2: float = 0.95,
  epsilon: float = 1e-8,
  weight_decay: float = 0.1,
  clip: float = 1.0,
  plateau: bool = False,
) -> optax.GradientTransformation:
  """Makes AdamW behind a clipping of the gradient's global norm.

    g <- g min(1, clip / |g|)                      |g| over all leaves together
    m <- beta1 m + (1 - beta1) g                   v <- beta2 v + (1 - beta2) g^2
    update = -r(s) (m' / (sqrt(v') + epsilon) + weight_decay p)
    m' = m / (1 - beta1^(s+1))                     v' = v / (1 - beta2^(s+1))

  The weight decay acts only on the leaves that `decays` marks. Moments and updates are float32
  whatever the dtype of parameters and gradients. Movie Gen Audio: AdamW, weight decay 0.1 (§6);
  betas, epsilon, clipping, and all of Movie Gen Video's are not in public sources.

  Args:
    learning_rate: r, a function of the step counted from 0.
    beta1: decay of the mean of the gradients.
    beta2: decay of the mean of their squares.
    epsilon: keeps the division finite.
    weight_decay: relative to the learning rate.
    clip: the largest global norm that passes unchanged; inf never clips.
    plateau: whether the rate can be lowered in the state (`plateau.py`).

  Returns:
    An optax transformation; `update` needs the parameters.

  Raises:
    ConfigError: an argument is out of its range.
  """
  for name, beta in (('beta1', beta1), ('beta2', beta2)):
    if not 0 <= beta < 1:
      raise ConfigError(f'optimizer {name} is {beta}, expected a decay in [0, 1)')
  if not clip > 0:
    raise ConfigError(f'optimizer clip is {clip}, expected a norm above 0; inf never clips')
  if not weight_decay >= 0:
    raise ConfigError(f'optimizer weight_decay is {weight_decay}, expected at least 0')
  chain = optax.chain(
    optax.clip_by_global_norm(clip),
    optax.scale_by_adam(beta1, beta2, epsilon),
    optax.add_decayed_weights(weight_decay, mask=decays),
    optax.scale_by_learning_rate(learning_rate),
    *([scale_by_plateau()] if plateau else []),  # without it, states are what they always were
  )

  def update(gradients: Tree, state: optax.OptState, params: Tree) -> tuple[Tree, optax.OptState]:
    return chain.update(_float32(gradients), state, _float32(params))

  return optax.GradientTransformation(lambda params: chain.init(_float32(params)), update)


def make_run_optimizer(
  fields: Mapping[str, Any] | ConfigDict, steps: int
) -> optax.GradientTransformation:
  """Makes the optimizer that `optimizer` of a configuration describes, with its learning rate."""
  others = {name: value for name, value in dict(fields).items() if name not in SCHEDULE}
  others['plateau'] = make_patience(fields).patience > 0
  return make_optimizer(learning_rate=make_run_learning_rate(fields, steps), **others)


def make_run_learning_rate(fields: Mapping[str, Any] | ConfigDict, steps: int):
  """Makes the learning rate that `optimizer` of a configuration describes."""
  return make_learning_rate(steps=steps, **{name: fields[name] for name in SCHEDULE})


def decays(params: Tree) -> Tree:
  """Marks the leaves that weight decay acts on: those named `kernel`.

  Matrices and convolutions are named so. Biases, the scales of norms, embeddings and position
  tables have names of their own and are left alone. The number of axes cannot tell them apart:
  the parameters of a scanned stack carry a layer axis, so a norm's scale has two.

  Args:
    params: the parameters, nested dictionaries.

  Returns:
    A tree of the same structure, of bools.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path[-1:], simple=True) == 'kernel', params
  )


def _float32(tree: Tree) -> Tree:
  return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
