"""Builds flow models, their objectives, samplers and inputs from settings and samples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.backbone.transformer import Transformer
from mgjax.conditioning.kinds import make_conditioning
from mgjax.conditioning.ports import Ports, combine
from mgjax.core.config import differences
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import unpack
from mgjax.core.typing import Batch, Objective, Tree
from mgjax.core.weights.format import WeightFormat
from mgjax.flow.guidance import MakeVelocity
from mgjax.flow.objective import make_objective
from mgjax.flow.prediction import make_prediction
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.times import make_sampler
from mgjax.flow_models.flops import backbone_flops
from mgjax.flow_models.model import FlowModel
from mgjax.flow_models.sampling import make_generate
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.text.prompts import EMBEDDINGS


def make_flow_model(fields: Mapping[str, Any]) -> FlowModel:
  """Makes the module that the fields of `config.model` describe.

  They are those of `Transformer`, `dtype` by its name, and `conditionings`: name -> `kind`
  (`mgjax.conditioning.kinds`) and its fields.
  """
  fields = dict(fields)
  described = fields.pop('conditionings')
  backbone = unpack(Transformer, fields, 'model', name='backbone')
  conditionings = [
    make_conditioning(described[name], name=name, dim=backbone.dim, dtype=backbone.dtype)
    for name in sorted(described)
  ]
  return FlowModel(backbone, tuple(conditionings))


def make_objectives(settings: ObjectiveSettings, model: FlowModel) -> tuple[Objective, Objective]:
  """Makes the objectives of training and of validation.

  Raises:
    ConfigError: dropout names other conditionings than the model has.
  """
  dropout, names = settings.dropout, {each.name for each in model.conditionings}
  if set(dropout) != names:
    raise ConfigError(
      f'objective.dropout names {sorted(dropout)}, the conditionings are {sorted(names)}; give '
      'each a rate, 0 for never: guidance means nothing for a condition that is never dropped'
    )
  prediction = make_prediction(settings.prediction)
  objective = make_objective(
    dropout=dropout,
    drop_all_probability=settings.drop_all_probability,
    sample_time=make_sampler(**settings.time),
    prediction=prediction,
  )
  fixed = make_sampler('stratified')
  return objective, make_objective(dropout={}, sample_time=fixed, prediction=prediction)


def make_sampler_of(
  settings: SampleSettings,
  objective: ObjectiveSettings,
  model: FlowModel,
  widen: Callable[[MakeVelocity], MakeVelocity] | None = None,
) -> Callable[..., Any]:
  """Makes `generate(params, batch, noise) -> latents`; `widen` as in `make_generate`.

  What the model answers is said by the `objective` that it was trained with.

  Raises:
    ConfigError: guidance of a condition that the model does not have.
  """
  guidance, schedule = settings.guidance, settings.schedule
  unknown = sorted(set(guidance) - {each.name for each in model.conditionings})
  if unknown:
    raise ConfigError(f'guidance names {unknown}, which the model has no conditioning for')
  times = make_time_grid(steps=settings.steps, **schedule)
  return make_generate(
    model, times=times, solver=settings.solver, guidance=guidance, widen=widen,
    prediction=make_prediction(objective.prediction),
  )  # fmt: skip


def prepare_samples(model: FlowModel, samples: Sequence[Mapping[str, Any]]) -> Batch:
  """Turns samples into the arrays that the model's conditionings read."""
  rows: list[Mapping[str, np.ndarray]] = []
  for sample in samples:
    row: dict[str, np.ndarray] = {}
    for conditioning in model.conditionings:
      row |= conditioning.prepare(sample)
    rows.append(row)
  return {key: jnp.asarray(np.stack([row[key] for row in rows])) for key in rows[0]}


def example_batch(model: FlowModel, caption: str, latents: tuple[int, ...], rows: int = 1) -> Batch:
  """Returns the conditions of latents of a shape (t h w c): a caption, no video, nothing known."""
  nothing = np.zeros(latents, np.float32)
  sample = {'caption': caption, 'frames': latents[0], 'context': nothing, EMBEDDINGS: {}}
  return prepare_samples(model, [sample] * rows)


def small_inputs(model: FlowModel, channels: int) -> tuple[Any, ...]:
  """Returns the smallest arguments of `model.init` after the key: parameters depend on no more."""
  latents = (*model.backbone.patch, channels)
  return jnp.zeros((1, *latents)), jnp.zeros(1), example_batch(model, 'a', latents), {}


def context_lengths(model: FlowModel, batch: Batch) -> tuple[int, tuple[int, ...]]:
  """Counts the tokens that cross-attention reads, and those of every group behind a gate."""

  def ports(batch: Batch) -> Ports:
    keep = jnp.zeros(next(iter(batch.values())).shape[0], bool)
    modules = [each.clone(parent=None) for each in model.conditionings]
    return combine([each.init_with_output(jax.random.key(0), batch, keep)[0] for each in modules])

  shapes = jax.eval_shape(ports, batch)
  context = 0 if shapes.context is None else shapes.context.shape[1]
  return context, tuple(group.tokens.shape[1] for group in shapes.gated)


def make_flops(model: FlowModel) -> Callable[[Batch], int]:
  """Makes the function from a prepared batch to the operations of a training step on it."""
  known: dict[Any, int] = {}

  def flops(batch: Batch) -> int:
    shape = tuple(sorted((name, array.shape) for name, array in batch.items()))
    if shape not in known:
      # What of a sound is known, which the objective draws, is as large as the sound.
      inputs = {'context': batch['latents']} | batch
      shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in inputs.items()}
      latents = batch['latents'].shape
      read = context_lengths(model, shapes)
      known[shape] = backbone_flops(model.backbone, latents, *read).training
    return known[shape]

  return flops


def check_records(meta: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> None:
  """Checks that latents on disk are those that a configuration asks for.

  Args:
    meta: of their records.
    wanted: 'statistics' of the autoencoder's latents, and what else must agree.
    name: of the bucket.

  Raises:
    DataError: they are of another autoencoder, or other data.
  """
  if meta['statistics'] != wanted['statistics']:
    raise DataError(
      f'the latents of bucket {name!r} were normalised for another autoencoder than the one at '
      'config.autoencoder; encode the data again with launch.encode'
    )
  if changed := differences({key: meta[key] for key in wanted}, dict(wanted)):
    raise DataError(
      f'the latents of bucket {name!r} are not those that the configuration asks for: '
      f'{"; ".join(changed)}; encode the data again'
    )


def check_learnt(autoencoder: str, learnt: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
  """Checks that a checkpoint was trained on the latents and embeddings that a run has now.

  Args:
    autoencoder: its work directory, for the message.
    learnt: `latents`, the statistics of those of its autoencoder, and `encoders`, the identities of
      its encoders of text.
    notes: of the checkpoint.

  Raises:
    ConfigError: it learnt others.
  """
  if notes.get('latents', learnt['latents']) != learnt['latents']:
    raise ConfigError(
      f'the autoencoder at {autoencoder!r} is not the one that this run learnt the latents of (was '
      'it trained on?); put that one back, or take another --workdir'
    )
  if changed := differences(notes.get('encoders', {}), learnt['encoders']):
    raise ConfigError(
      f'the embeddings are of other encoders than those that this run learnt to read: '
      f'{"; ".join(changed)}; put those back, or take another --workdir'
    )


def _init(model: FlowModel, notes: Mapping[str, Any], key: jax.Array) -> Tree:
  inputs = small_inputs(model, len(notes['latents']['mean']))
  return nn.unbox(model.init(key, *inputs)['params'])


# No other project has such a model, and its autoencoder is exported by itself.
FORMAT = WeightFormat(
  make_flow_model, _init, how=('dtype', 'remat', 'attention', 'exchange', 'unroll')
)
