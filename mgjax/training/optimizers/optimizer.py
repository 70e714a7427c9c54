"""Optimizers by name, behind clipping by the global norm, and their learning rates."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.typing import Array, Tree
from mgjax.training.optimizers.muon import muon_or
from mgjax.training.optimizers.plateau import scale_by_plateau
from mgjax.training.optimizers.rates import mask_frozen, scale_by_rates
from mgjax.training.settings import OptimizerSettings

# Of progress and the fraction where a decay ends, which is met exactly at progress 1.
_SHAPES = {
  'constant': lambda u, f: jnp.ones_like(u),
  'linear': lambda u, f: f + (1 - f) * (1 - u),
  'cosine': lambda u, f: f + (1 - f) * (1 + jnp.cos(jnp.pi * u)) / 2,
  'exponential': lambda u, f: f**u,
}


def _adam(settings: OptimizerSettings) -> optax.GradientTransformation:
  return optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon)


# How each rule scales gradients, before weight decay and the learning rate.
OPTIMIZERS: dict[str, Callable[[OptimizerSettings], optax.GradientTransformation]] = {
  'adamw': _adam,
  'muon': lambda settings: muon_or(_adam(settings)),
}


def make_learning_rate(settings: OptimizerSettings, steps: int) -> Callable[[ArrayLike], Array]:
  """Makes a learning rate, a float32 scalar of the step s, that warms up and then stays or decays.

    r(s) = learning_rate min(1, (s + 1) / warmup) shape(u)
    u    = clip((s - warmup) / (steps - warmup), 0, 1)

  with shape(u) = 1 (constant), f + (1 - f) (1 - u) (linear), f + (1 - f) (1 + cos(pi u)) / 2
  (cosine) or f^u (exponential), f the final fraction. The first step already learns, step `warmup`
  has the full rate, step `steps` and all after it have f times that (constant: the full rate).
  Movie Gen pre-trains with a constant rate, lowered by hand when the loss is flat. It fine-tunes on
  selected video with a cosine (§3.3), and fine-tunes the audio model with a warm-up and a linear
  decay from 1e-4 to 1e-8 (§6). The audio codec decays exponentially, as DAC does. The schedules of
  optax, joined, agree to 8e-6 of the rate, but not bit by bit, so runs would differ.
  Raises ConfigError if the run is no longer than its warm-up.
  """
  warmup = settings.warmup
  if not 0 <= warmup < steps:
    raise ConfigError(
      f'optimizer.warmup is {warmup} of {steps} steps, expected at least 0 and fewer than all'
    )
  shape = _SHAPES[settings.schedule]

  def rate(step: ArrayLike) -> Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - warmup) / (steps - warmup), 0, 1)
    warm = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
    return settings.learning_rate * warm * shape(progress, settings.final_fraction)

  return rate


def make_optimizer(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
  """Makes the optimizer of `settings.name`, behind a clipping of the gradient's global norm.

  AdamW:

    g <- g min(1, clip / |g|)                      |g| over all trained leaves together
    m <- beta1 m + (1 - beta1) g                   v <- beta2 v + (1 - beta2) g^2
    update = -f r(s) (m' / (sqrt(v') + epsilon) + weight_decay p)
    m' = m / (1 - beta1^(s+1))                     v' = v / (1 - beta2^(s+1))

  f is the factor that `settings.rates` gives the leaf, 1 without rates. Of leaves with f = 0 there
  are no moments and no updates, but an `optax.MaskedNode` in their place, as there may be in the
  gradients. The weight decay acts only on the leaves that `decays` marks. Moments and updates are
  float32 whatever the dtype of parameters and gradients. Movie Gen Audio: AdamW, weight decay 0.1
  (§6); betas, epsilon, clipping, and all of Movie Gen Video's are not in public sources. r is of
  `make_learning_rate`; `update` needs the parameters. Raises ConfigError if the run is no longer
  than its warm-up, or there is no optimizer of that name.
  """
  rate = make_learning_rate(settings, steps)
  check_one_of(f'optimizer.name = {settings.name!r}', settings.name, OPTIMIZERS)
  chain = optax.chain(
    optax.clip_by_global_norm(settings.clip),
    OPTIMIZERS[settings.name](settings),
    optax.add_decayed_weights(settings.weight_decay, mask=decays),
    optax.scale_by_learning_rate(rate),
    # Without it, states are what they always were.
    *([scale_by_plateau()] if settings.plateau.patience else []),
  )

  def prepared(tree: Tree) -> Tree:
    return mask_frozen(jax.tree.map(lambda x: x.astype(jnp.float32), tree), settings.rates)

  def update(
    updates: Tree, state: optax.OptState, params: Tree = None
  ) -> tuple[Tree, optax.OptState]:
    updates, state = chain.update(prepared(updates), state, prepared(params))
    return scale_by_rates(updates, settings.rates), state

  return optax.GradientTransformation(lambda params: chain.init(prepared(params)), update)


def decays(params: Tree) -> Tree:
  """Marks by bools the leaves that weight decay acts on: those named `kernel`.

  Matrices and convolutions are named so. Biases, the scales of norms, embeddings and position
  tables have names of their own and are left alone. The number of axes cannot tell them apart:
  the parameters of a scanned stack carry a layer axis, so a norm's scale has two.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path[-1:], simple=True) == 'kernel', params
  )
