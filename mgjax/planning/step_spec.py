"""The objects of a training step from a configuration alone: no data, no weights, no devices."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mgjax.core.settings import fields_of, unpack
from mgjax.core.typing import Key, Objective, Tree
from mgjax.flow_models.build import make_flow_model
from mgjax.flow_models.conditions import small_inputs
from mgjax.flow_models.objectives import make_objectives
from mgjax.flow_models.settings import ObjectiveSettings
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.tae.objective import LossWeights, make_objective
from mgjax.training.optimizer import make_optimizer
from mgjax.training.settings import optimizer_settings, run_settings
from mgjax.training.step import Step, make_step


@dataclasses.dataclass(frozen=True)
class StepSpec:
  """What a training step is made of.

  Attributes:
    model: the Linen module.
    inputs: arguments of `model.init` after the key; parameters depend on no more.
    objective: what training minimises.
    optimizer: with its learning rate.
    options: seed, decay, accumulate, guard and rates, as `training.step.make_step` takes them.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  objective: Objective
  optimizer: optax.GradientTransformation
  options: Mapping[str, Any]

  def init(self, key: Key) -> Tree:
    """Returns random parameters in the boxes that name their axes."""
    return self.model.init(key, *self.inputs)['params']

  def make_step(self, **changes: Any) -> Step:
    """Makes the step; `changes` are options that come first."""
    return make_step(self.model, self.objective, self.optimizer, **{**self.options, **changes})


def make_flow_step_spec(config: ConfigDict, channels: int) -> StepSpec:
  """Makes the objects of a flow model's step, for latents of some channels."""
  model = make_flow_model(fields_of(config, 'model'))
  settings = unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective')
  objective = make_objectives(settings, model).train
  return _make(config, model, small_inputs(model, channels), objective)


def make_autoencoder_step_spec(config: ConfigDict) -> StepSpec:
  """Makes the objects of an autoencoder's step, without LPIPS and discriminator."""
  model = make_autoencoder(fields_of(config, 'model'))
  inputs = (jnp.zeros((1, *model.compression, 3)), jax.random.key(0))
  return _make(
    config,
    model,
    inputs,
    make_objective(LossWeights.of(fields_of(config, 'objective'))),
  )


def _make(config: ConfigDict, model: nn.Module, inputs: tuple[Any, ...], objective: Objective):
  settings = run_settings(fields_of(config, 'train'), config.seed)
  options = {
    'seed': settings.seed, 'decay': settings.ema_decay,
    'accumulate': settings.accumulate, 'guard': settings.guard,
  }  # fmt: skip
  rate = optimizer_settings(fields_of(config, 'optimizer'))
  optimizer = make_optimizer(rate, settings.steps)
  return StepSpec(model, inputs, objective, optimizer, options | {'rates': rate.rates})
