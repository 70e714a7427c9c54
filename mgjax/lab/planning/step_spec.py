"""The objects of a training step from a configuration alone: no data, no weights, no devices."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import optax

from mgjax.core.precision import BASE
from mgjax.core.settings import unpack
from mgjax.core.typing import Key, Objective, Tree
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.models.flow_model.objectives import make_objectives
from mgjax.models.flow_model.settings import ObjectiveSettings
from mgjax.nn import lora
from mgjax.nn.lora import Lora, lora_settings, make_adapt
from mgjax.training.adapters import TEACHER
from mgjax.training.optimizers.optimizer import make_optimizer
from mgjax.training.settings import optimizer_settings, run_settings
from mgjax.training.step import Step, make_step


@dataclasses.dataclass(frozen=True)
class StepSpec:
  """What a training step is made of; `inputs` follow the key in `model.init`.

  `options` are seed, decay, accumulate, guard and rates, as `training.step.make_step` takes them.
  With `lora` adapters train, and the step takes `frozen`, the model that they change: by `BASE`.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  objective: Objective
  optimizer: optax.GradientTransformation
  options: Mapping[str, Any]
  lora: Lora = dataclasses.field(default_factory=Lora)
  reference: bool = False  # whether the objective asks the model that adapters change as well

  def init(self, key: Key) -> Tree:
    """Returns random parameters, or adapters, in the boxes that name their axes."""
    if not self.lora.rank:
      return self.init_model(key)
    return lora.init(key, self.lora, jax.eval_shape(self.init_model, key))

  def init_model(self, key: Key) -> Tree:
    """Returns random parameters of the model."""
    return self.model.init(key, *self.inputs)['params']

  def make_step(self) -> Step:
    """Makes the step."""
    adapt = make_adapt(self.lora) if self.lora.rank else None
    step = make_step(self.model, self.objective, self.optimizer, adapt=adapt, **self.options)
    if not self.reference:
      return step
    return lambda state, batch, frozen: step(state, batch, {**frozen, TEACHER: frozen[BASE]})


def make_flow_step_spec(fields: Mapping[str, Any], channels: int) -> StepSpec:
  """Makes the objects of a flow model's step, for latents of some channels."""
  model = make_flow_model(fields['model'])
  settings = unpack(ObjectiveSettings, fields['objective'], 'objective')
  objective = make_objectives(settings, model).train
  reference = settings.kind == 'preference'
  settings = run_settings(fields['train'], fields['seed'])
  rate = optimizer_settings(fields['optimizer'])
  options = {
    'seed': settings.seed,
    'decay': settings.ema_decay,
    'accumulate': settings.accumulate,
    'guard': settings.faults,
    'rates': rate.rates,
  }
  optimizer = make_optimizer(rate, settings.steps)
  adapters = lora_settings(fields)
  inputs = small_inputs(model, channels)
  return StepSpec(model, inputs, objective, optimizer, options, adapters, reference)
