"""What conditions a flow model, from samples on the host to the arrays of a batch."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Array, Batch, Sample, Tree
from mgjax.models.conditioning.contract import Conditioning, Latents
from mgjax.models.conditioning.ports import Ports, combine
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.tae.latents import PIXELS
from mgjax.models.text.prompts import EMBEDDINGS

LATENTS = 'latents'
RAW = 'raw_'  # a clip that the codec has yet to encode goes by this and the name of its latents

ConditionShapes = Mapping[str, tuple[int, ...]]  # what a model reads beside text -> its shape
Encode = Callable[[Array], Array]  # clips of a batch -> their latents (b t h w c)


def encoded_names(conditionings: Iterable[Conditioning]) -> tuple[str, ...]:
  """Returns the names of arrays that are latents of clips beside the generated one."""
  return tuple(name for conditioning in conditionings for name in conditioning.encodes())


def arrays_of(
  conditionings: Sequence[Conditioning], sample: Mapping[str, object]
) -> dict[str, np.ndarray]:
  """Turns a sample into the arrays that conditionings read, on the host.

  Clips that conditionings encode are already latents in a sample of stored latents. In other
  samples they are returned as pixels, with `RAW` before their names.
  """
  arrays: dict[str, np.ndarray] = {}
  for conditioning in conditionings:
    arrays |= conditioning.prepare(sample)
    if LATENTS in sample:
      arrays |= {
        name: np.asarray(sample[name]) for name in conditioning.encodes() if name in sample
      }
    else:
      arrays |= {RAW + name: clip for name, clip in conditioning.clips(sample).items()}
  return arrays


def derived_fields(
  conditionings: Iterable[Conditioning], sample: Mapping[str, object]
) -> dict[str, np.ndarray]:
  """Returns the fields, other than clips, that conditionings derive from a sample.

  Store them with the clip or its latents: nothing else can derive them later.
  """
  derived: dict[str, np.ndarray] = {}
  for conditioning in conditionings:
    if named := set(field_names([conditioning])) - set(conditioning.encodes()):
      derived |= {
        name: array for name, array in conditioning.prepare(sample).items() if name in named
      }
  return derived


def row_of(
  conditionings: Sequence[Conditioning], raw: str, sample: Mapping[str, object]
) -> dict[str, np.ndarray]:
  """Returns a sample's latents, or its clip `raw` where it has none, and its `arrays_of`."""
  name = LATENTS if LATENTS in sample else raw
  return {name: np.asarray(sample[name])} | arrays_of(conditionings, sample)


def clip_shapes(conditionings: Iterable[Conditioning], latents: Latents) -> JSON:
  """Returns {'clips': {name: shape of its latents}}, of those of `encoded_names`; {} if none.

  Args:
    conditionings: of a model.
    latents: shape (t h w c) of a row's latents.
  """
  shapes = {
    name: list(conditioning.requires(latents)[name].shape)
    for conditioning in conditionings
    for name in conditioning.encodes()
  }
  return {'clips': shapes} if shapes else {}


def encode_clips(batch: Batch, raw: str, encode: Encode) -> Batch:
  """Replaces the clips of a batch by their latents, the one of the name `raw` by 'latents'."""
  arrays = {}
  for name, array in batch.items():
    if name == raw:
      arrays[LATENTS] = encode(array)
    elif name.startswith(RAW):
      arrays[name.removeprefix(RAW)] = encode(array)
    else:
      arrays[name] = array
  return arrays


def prepare_samples(
  model: FlowModel, samples: Sequence[Mapping[str, object]], encode: Encode | None = None
) -> Batch:
  """Turns samples into the arrays that the model's conditionings read.

  A row whose sample lacks what another one has is zero there, which says that it is absent.

  Args:
    samples: one a row.
    encode: makes latents of clips, where conditionings want any.
  """
  rows = [arrays_of(model.conditionings, sample) for sample in samples]
  every = {name: array for row in rows for name, array in row.items()}
  batch: Batch = {}
  for name, like in every.items():
    # Not jnp.asarray, which compiles a program for every shape.
    array = jax.device_put(np.stack([row.get(name, np.zeros_like(like)) for row in rows]))
    if name.startswith(RAW) and encode is not None:
      there = jnp.array([name in row for row in rows])
      name = name.removeprefix(RAW)
      array = encode(array)
      array = jnp.where(there.reshape(-1, *[1] * (array.ndim - 1)), array, 0)
    batch[name] = array
  return batch


def condition_fields(
  conditionings: Sequence[Conditioning], shape: tuple[int, int, int], latents: Latents
) -> dict[str, tuple[int, ...]]:
  """Returns the fields of samples that conditionings read beside text, with their shapes.

  `conditionings` are of a model. Raises ConfigError if two of them read one field in different
  shapes.
  """
  fields: dict[str, tuple[int, ...]] = {}
  for conditioning in conditionings:
    for name, size in conditioning.fields(shape, latents).items():
      if fields.setdefault(name, size) != size:
        raise ConfigError(
          f'conditioning {conditioning.name!r} reads {name!r} as {size}, another one as '
          f'{fields[name]}; give one of them another name'
        )
  return fields


def field_names(conditionings: Sequence[Conditioning]) -> tuple[str, ...]:
  """Names the fields of `condition_fields`, which are the same for every shape."""
  return tuple(condition_fields(conditionings, (1, 1, 1), (1, 1, 1, 1)))


def spread_conditions(
  conditions: Mapping[str, Any], fields: ConditionShapes, count: int
) -> list[Sample]:
  """Returns the conditions of each of `count` samples, without opening files.

  Args:
    conditions: by name, one for all samples, or a list or array with one more axis of one each; a
      None is a condition that is not given.
    fields: from `condition_fields`.

  Raises:
    ConfigError: a condition that the model does not read, or not as many as there are samples.
    DataError: a file is not there.
  """
  samples: list[Sample] = [{} for _ in range(count)]
  for name, condition in conditions.items():
    if condition is None:
      continue
    if name not in fields:
      known = ', '.join(sorted(fields)) or 'none beside the prompt'
      raise ConfigError(f'the model reads no condition {name!r}; it reads {known}')
    values = _one_each(condition, fields[name], name)
    if values is None:
      values = [condition] * count
    if len(values) != count:
      raise ConfigError(
        f'{len(values)} values of the condition {name!r} for {count} samples; give one for all of '
        'them, or a list of one each'
      )
    for sample, value in zip(samples, values, strict=True):
      if is_file(value, fields[name]) and not os.path.exists(value):
        raise DataError(f'condition {name!r}: there is no file {os.fspath(value)!r}')
      if value is not None:
        sample[name] = value
  return samples


def check_condition(condition: object, shape: tuple[int, ...], name: str) -> object:
  """Returns a condition of one sample, which is no file, as an array of `shape`.

  Raises ConfigError if it has another shape; () accepts anything.
  """
  if not shape:
    return condition
  array = np.asarray(condition)
  pictures = _are_pictures(shape)
  if pictures and array.shape == shape[1:]:
    array = array[None]
  if array.shape != shape or (pictures and array.dtype not in PIXELS):
    expected = 'uint8 (t h w 3)' if pictures else 'an array'
    raise ConfigError(
      f'the condition {name!r} is {array.dtype} of shape {array.shape}; expected {expected} of '
      f'shape {shape}' + (', or a file, which is brought to it' if pictures else '')
    )
  return array


def example_batch(model: FlowModel, caption: str, latents: tuple[int, ...], rows: int = 1) -> Batch:
  """Returns the conditions of latents of a shape (t h w c): a caption, and zeros for all else."""
  batch = {
    name: jnp.zeros((rows, *like.shape), like.dtype)
    for conditioning in model.conditionings
    for name, like in conditioning.requires(latents).items()
  }
  samples = [{'caption': caption, EMBEDDINGS: {}}] * rows
  return batch | prepare_samples(model, samples)


def small_inputs(model: FlowModel, channels: int) -> tuple[Tree, ...]:
  """Returns the smallest arguments of `model.init` after the key: parameters depend on no more."""
  latents = (*model.backbone.patch, channels)
  return jnp.zeros((1, *latents)), jnp.zeros(1), example_batch(model, 'a', latents), {}


def context_lengths(
  model: FlowModel, batch: Batch, latents: Latents
) -> tuple[int, tuple[int, ...]]:
  """Counts the tokens that cross-attention reads, and those of every group behind a gate.

  `latents` is the shape (t h w c) of a row.
  """

  def ports(batch: Batch) -> Ports:
    key = jax.random.key(0)
    keep = jnp.zeros(next(iter(batch.values())).shape[0], bool)
    modules = [conditioning.clone(parent=None) for conditioning in model.conditionings]
    return combine([module.init_with_output(key, batch, keep, latents)[0] for module in modules])

  shapes = jax.eval_shape(ports, batch)
  context = 0 if shapes.context is None else shapes.context.shape[1]
  return context, tuple(group.tokens.shape[1] for group in shapes.gated)


def _are_pictures(shape: tuple[int, ...]) -> bool:
  return len(shape) == 4 and shape[-1] == 3


def is_file(condition: object, shape: tuple[int, ...]) -> bool:
  """Says whether a condition of this shape is given as a file of pictures."""
  return isinstance(condition, str | os.PathLike) and _are_pictures(shape)


def _one_each(condition: Any, shape: tuple[int, ...], name: str) -> list[Any] | None:
  """Returns the values of the samples; None if one value is for all."""
  if isinstance(condition, list | tuple):
    return list(condition)
  if not shape or not hasattr(condition, 'ndim'):
    return None
  still = _are_pictures(shape) and shape[0] == 1  # a picture may do without its axis of time
  if condition.ndim == len(shape) - still or condition.shape == shape:
    return None
  if condition.ndim in (len(shape), len(shape) + 1):
    return list(condition)
  raise ConfigError(
    f'the condition {name!r} has {condition.ndim} axes; expected {len(shape)}, or one more '
    'for one each'
  )
