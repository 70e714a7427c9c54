"""Samples latents: guidance and ODE solver in one compiled program (Movie Gen §3.4.2)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Batch, Float, Tree
from mgjax.flow.few_steps import STEP
from mgjax.flow.guidance import Guidance, MakeVelocity, make_guided
from mgjax.flow.path import FlowMatching
from mgjax.flow.prediction import Prediction
from mgjax.flow.sample import sample
from mgjax.flow.solvers import Velocity
from mgjax.flow_models.model import FlowModel
from mgjax.parallel.compiler import DeviceProgram

FLOW = FlowMatching()
NEGATIVE = 'negative_'  # before the name of an array of a batch: what guidance leads away from


def draw_noise(seed: int, indices: np.ndarray, shape: tuple[int, ...]) -> Float[Array, 'b t h w c']:
  """Draws X_0 of each sample from (seed, its own index) alone.

  A sample therefore stays the same whatever else is in its batch, and in any order.
  """
  keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(indices))
  return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def negatives(model: FlowModel, batch: Batch, latents: tuple[int, ...]) -> dict[str, Batch]:
  """Returns the arrays of a batch that guidance leads away from, by name of their conditioning."""
  found: dict[str, Batch] = {}
  for each in model.conditionings:
    given = {name: NEGATIVE + name for name in each.requires(latents) if NEGATIVE + name in batch}
    if given:
      found[each.name] = {name: batch[key] for name, key in given.items()}
  return found


def make_generate(
  model: FlowModel,
  *,
  times: np.ndarray,
  solver: str,
  guidance: Guidance,
  widen: Callable[[MakeVelocity], MakeVelocity] | None = None,
  prediction: Prediction = FLOW,
  share: float = 0.0,
) -> Callable[[Tree, Batch, Float[Array, 'b t h w c']], Float[Array, 'b t h w c']]:
  """Makes `generate(params, batch, noise) -> latents`, compiled once a shape.

  Args:
    model: whose velocity it is.
    times: the schedule, from `flow.schedules.make_time_grid`.
    solver: a name in `flow.solvers.SOLVERS`, or 'dormand_prince'.
    guidance: pairs of a conditioning's name and scale; the report's scale for text is 7.5.
    widen: makes of `batch -> velocity` one that goes beyond what the model sees at once, such as
      multi-diffusion.
    prediction: what the model was trained to answer.
    share: of the way that each step takes, told to a model that learnt it (`flow/few_steps.py`);
      0 for its velocity.
  """

  @DeviceProgram
  def generate(params: Tree, batch: Batch, noise: Array) -> Array:
    predict = prediction.as_velocity(functools.partial(model.apply, {'params': params}))
    if share:
      batch = batch | {STEP: jnp.full(len(noise), share)}

    def make_velocity(batch: Batch) -> Velocity:
      return make_guided(predict, batch, guidance, negatives(model, batch, noise.shape[1:]))

    velocity = (widen(make_velocity) if widen else make_velocity)(batch)
    return sample(velocity, noise, times, solver)

  return generate
