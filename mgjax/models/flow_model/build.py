"""Builds flow models and their samplers from settings, and checks what they learned from."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mgjax.core.configuration.keys import Fields, differences
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import unpack, unpack_kind
from mgjax.core.typing import Batch, Tree
from mgjax.flow.distillation.few_steps import STEP_SIZE
from mgjax.flow.distillation.guidance import SCALES
from mgjax.flow.guidance import MakeVelocity
from mgjax.flow.prediction import make_prediction
from mgjax.flow.schedules import make_time_grid
from mgjax.models.backbone.convolutions import Convolutions
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.kinds import make_conditioning
from mgjax.models.flow_model.conditions import context_lengths, small_inputs
from mgjax.models.flow_model.flops import backbone_flops
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.flow_model.sampling import make_generate
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.models.foreign_weights.format import WeightFormat
from mgjax.models.foreign_weights.names import TensorName
from mgjax.models.wan.names import rows_in
from mgjax.models.wan.transformer import WanTransformer

BACKBONES: dict[str, type[nn.Module]] = {'movie_gen': Transformer, 'wan': WanTransformer}


def make_flow_model(fields: Fields) -> FlowModel:
  """Makes the module that the fields of `config.model` describe.

  They are `kind`, a name in `BACKBONES`, the fields of that backbone, `dtype` by its name, and
  `conditionings`: name -> `kind` (`mgjax.models.conditioning.kinds`) and its fields.
  Raises ConfigError for another kind, or other fields.
  """
  fields = dict(fields)
  described = fields.pop('conditionings', None)
  if not isinstance(described, Mapping):
    raise ConfigError(f'model.conditionings = {described!r:.80}; expected fields by name')
  backbone = unpack_kind(BACKBONES, fields, 'model', 'movie_gen', name='backbone')
  return _conditioned(backbone, described)


def make_discriminator(fields: Fields, model: Fields) -> FlowModel:
  """Makes the discriminator of samples of a flow model, under the same conditions.

  Args:
    fields: of `Convolutions`.
    model: `config.model`, whose conditionings are read.
  """
  backbone = unpack(Convolutions, fields, 'discriminator', name='backbone')
  return _conditioned(backbone, model['conditionings'])


def _conditioned(backbone: nn.Module, described: Fields) -> FlowModel:
  handed = {'dim': backbone.dim, 'patch': backbone.patch, 'dtype': backbone.dtype}
  conditionings = [make_conditioning(described[name], name, **handed) for name in sorted(described)]
  return FlowModel(backbone, tuple(conditionings))


def make_sampler_of(
  settings: SampleSettings,
  objective: ObjectiveSettings,
  model: FlowModel,
  widen: Callable[[MakeVelocity], MakeVelocity] | None = None,
  make: Callable[..., Any] = make_generate,
  times: Sequence[float] | None = None,
) -> Callable[..., Any]:
  """Makes `generate(params, batch, noise) -> latents`; `widen` as in `make_generate`.

  `make` makes it of the same arguments as `make_generate`. It takes the steps of
  `times`, by default all of the grid; X_t takes the place of the noise where they begin at t > 0.

  What the model answers is said by the `objective` that it was trained with. One that learned to
  take few steps learned their guidance too; one that learned guidance reads its scale. Raises
  ConfigError for guidance of a condition that the model does not have, or steps or guidance that it
  did not learn.
  """
  guidance, schedule = settings.guidance, settings.schedule
  unknown = sorted(
    {name for name, _ in guidance} - {conditioning.name for conditioning in model.conditionings}
  )
  if unknown:
    raise ConfigError(f'guidance names {unknown}, which the model has no conditioning for')
  grid = make_time_grid(steps=settings.steps, **schedule)
  student_inputs: dict[str, float | tuple[float, ...]] = {}
  if few := objective.steps_learnt:
    learnt = few.grid(settings.steps)
    student_inputs = {STEP_SIZE: 1 / settings.steps}
    if any(scale != 1 for _, scale in guidance):
      raise ConfigError(
        f'guidance {guidance} of a model that learned its few steps with guidance in them; give 1'
      )
    if settings.solver != 'euler' or settings.reuse or not np.allclose(grid, learnt):
      raise ConfigError(
        f'solver {settings.solver!r}, reuse {settings.reuse:g}, schedule {dict(schedule)}; a model '
        f"that learned to take {settings.steps} steps takes all of those of 'euler' with "
        f'{dict(few.schedule)}'
      )
  if distilled := objective.guidance_learnt:
    student_inputs = {SCALES: distilled.told(guidance)}
    guidance = ()
  return make(
    model,
    times=grid if times is None else np.asarray(times),
    solver=settings.solver,
    guidance=guidance,
    widen=widen,
    prediction=make_prediction(objective.prediction),
    told=student_inputs,
    reuse=settings.reuse,
  )


def make_flops(model: FlowModel) -> Callable[[Batch], int]:
  """Makes the function from a prepared batch to the operations of a training step on it."""
  known: dict[Hashable, int] = {}

  def flops(batch: Batch) -> int:
    shape = tuple(sorted((name, array.shape) for name, array in batch.items()))
    if shape not in known:
      shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
      latents = batch['latents'].shape
      lengths = context_lengths(model, shapes, latents[1:])
      known[shape] = backbone_flops(model.backbone, latents, *lengths).training
    return known[shape]

  return flops


def check_records(meta: Fields, fingerprints: Sequence[str], expected: Fields, name: str) -> None:
  """Checks that latents on disk are those that a configuration asks for.

  Args:
    fingerprints: of the autoencoder.
    expected: 'statistics' of its latents, and other values that must agree.

  Raises:
    DataError: they are of another autoencoder, or other data.
  """
  made_by = meta.get('autoencoder', fingerprints[0])
  if made_by not in fingerprints or meta['statistics'] != expected['statistics']:
    raise DataError(
      f'the latents of bucket {name!r} are of another autoencoder, {made_by}, than the one at '
      f'config.autoencoder, of the fingerprint {fingerprints[0]}; encode the data again with '
      'launch.data encode'
    )
  if changed := differences({key: meta[key] for key in expected if key in meta}, dict(expected)):
    raise DataError(
      f'the latents of bucket {name!r} are not those that the configuration asks for: '
      f'{"; ".join(changed)}; encode the data again'
    )


def check_training_inputs(
  autoencoder: str, fingerprints: Sequence[str], learnt: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
  """Checks that a checkpoint was trained on the latents and embeddings that a run has now.

  Args:
    fingerprints: of its autoencoder.
    learnt: identities that the run was trained with: `latents`, the statistics of its autoencoder's
      latents, and `encoders`, those of its text encoders.
    notes: of the checkpoint.

  Raises:
    ConfigError: it learned others.
  """
  recorded = notes.get('autoencoder', fingerprints[0])
  if recorded not in fingerprints or notes.get('latents', learnt['latents']) != learnt['latents']:
    raise ConfigError(
      f'the autoencoder at {autoencoder!r}, of the fingerprint {fingerprints[0]}, is not the one '
      f'that this run learned the latents of, {recorded} (was it trained on?); put that one back, '
      'or take another --workdir'
    )
  if changed := differences(notes.get('encoders', {}), learnt['encoders']):
    raise ConfigError(
      f'the embeddings are of other encoders than those that this run learned to read: '
      f'{"; ".join(changed)}; put those back, or take another --workdir'
    )


def _init(model: FlowModel, notes: Fields, key: jax.Array) -> Tree:
  inputs = small_inputs(model, len(notes['latents']['mean']))
  return nn.unbox(model.init(key, *inputs)['params'])


def published_names(fields: Fields) -> tuple[TensorName, ...]:
  """Returns the names that other projects give to the parameters of a flow model; () if none do.

  `fields` are those of `config.model`.
  """
  return rows_in('backbone') if fields.get('kind') == 'wan' else ()


# No other project has such a model, and its autoencoder is exported by itself.
FLOW_MODEL_FORMAT = WeightFormat(
  make_flow_model,
  _init,
  how=('dtype', 'products', 'remat', 'attention', 'exchange', 'unroll'),
  rows=published_names,
)
