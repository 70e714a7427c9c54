"""A flow model's run as its configuration says it, and its step: no data, weights or devices."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import optax
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE
from mgjax.core.settings import fields_of, unpack
from mgjax.core.typing import Key, Objective, Tree
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.models.flow_model.objectives import make_objectives
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.nn import lora
from mgjax.nn.lora import Lora, lora_settings, make_adapt
from mgjax.registry import find_component, make_section
from mgjax.training.adapters import TEACHER
from mgjax.training.optimizers.optimizer import make_optimizer
from mgjax.training.settings import (
  BucketSettings,
  OptimizerSettings,
  RunSettings,
  bucket_settings,
  optimizer_settings,
  run_settings,
)
from mgjax.training.spec import Outline
from mgjax.training.step import Step, make_step


@dataclasses.dataclass(frozen=True)
class FlowRun:
  """A flow model and how it trains and samples, as its configuration says.

  Attributes:
    outline: the model, and the sizes of its samples.
    mesh: axis -> size, of which one may be -1.
  """

  outline: Outline
  objective: ObjectiveSettings
  sample: SampleSettings
  train: RunSettings
  optimizer: OptimizerSettings
  lora: Lora
  buckets: Mapping[str, BucketSettings]
  mesh: Mapping[str, int]

  @classmethod
  def of(cls, config: ConfigDict) -> 'FlowRun':
    """Reads a configuration. Raises ConfigError if it is of no flow model, or a field is wrong."""
    if find_component(config.component).family != 'flow model':
      raise ConfigError(
        f'plans by formula are made for flow models; this configuration is of {config.component!r}'
      )
    return cls(
      outline=make_section(config).outline(),
      objective=unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective'),
      sample=unpack(SampleSettings, fields_of(config, 'sample'), 'sample'),
      train=run_settings(fields_of(config, 'train'), config.seed),
      optimizer=optimizer_settings(fields_of(config, 'optimizer')),
      lora=lora_settings(config.to_dict()),
      buckets=bucket_settings(fields_of(config, 'buckets')),
      mesh=fields_of(config, 'mesh'),
    )

  def with_backbone(self, **changes: object) -> 'FlowRun':
    """Returns the run of a model whose backbone has other fields, such as `remat`."""
    model = self.outline.model
    model = model.clone(backbone=model.backbone.clone(**changes))
    return dataclasses.replace(self, outline=dataclasses.replace(self.outline, model=model))


@dataclasses.dataclass(frozen=True)
class StepSpec:
  """What a training step is made of; `inputs` follow the key in `model.init`.

  `options` are seed, decay, accumulate, guard and rates, as `training.step.make_step` takes them.
  With `lora` adapters train, and the step takes `frozen`, the model that they change: by `BASE`.
  """

  model: nn.Module
  inputs: tuple[Tree, ...]
  objective: Objective
  optimizer: optax.GradientTransformation
  options: Fields
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


def make_flow_step_spec(run: FlowRun, channels: int) -> StepSpec:
  """Makes the objects of a flow model's step, for latents of some channels."""
  model = run.outline.model
  options = {
    'seed': run.train.seed,
    'decay': run.train.ema_decay,
    'accumulate': run.train.accumulate,
    'guard': run.train.guard,
    'rates': run.optimizer.rates,
  }
  return StepSpec(
    model=model,
    inputs=small_inputs(model, channels),
    objective=make_objectives(run.objective, model).train,
    optimizer=make_optimizer(run.optimizer, run.train.steps),
    options=options,
    lora=run.lora,
    reference=run.objective.kind == 'preference',
  )
