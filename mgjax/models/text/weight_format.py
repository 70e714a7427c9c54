"""Imports and exports frozen text and image encoders by the names of transformers."""

import logging
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.files import write_json
from mgjax.core.safetensors_files import AnyTensor, listed, write_tensors
from mgjax.core.settings import Range
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.files import read_weights
from mgjax.models.foreign_weights.format import (
  ImportedWeights,
  WeightFormat,
  parameter_shapes,
  understanding,
)
from mgjax.models.foreign_weights.names import TensorName, export_tensors, import_tensors

_log = logging.getLogger(__name__)


Epsilon = Annotated[float, Range(above=0, most=1)]  # of a norm


class Family(NamedTuple):
  """Encoders of one kind, as transformers has them.

  Attributes:
    make: makes the module that `config.model` describes.
    inputs: model -> arguments of its `init` after the key.
    fields: tensors, config.json or None -> the fields of `config.model` that they show.
    rows: fields of `config.model`, names of tensors -> the table of names.
    config: fields of `config.model` -> config.json.
    expected: whose tensors these should be, for messages.
  """

  make: Callable[[Fields], nn.Module]
  inputs: Callable[[Tree], tuple[Tree, ...]]
  fields: Callable[[Mapping[str, AnyTensor], Fields | None], JSON]
  rows: Callable[[Fields, Collection[str]], Sequence[TensorName]]
  config: Callable[[Fields], JSON]
  expected: str


def make_encoder_format(family: Family) -> WeightFormat:
  """Makes the format of a frozen encoder, which is exported as it came: names, types and bits."""

  def init(model: nn.Module, _: Fields, key: jax.Array) -> Tree:
    return nn.unbox(model.init(key, *family.inputs(model))['params'])

  def read(
    fields: Fields, source: str | os.PathLike[str], *, seed: int, keep_type: bool
  ) -> ImportedWeights:
    del seed  # the file holds everything
    weights = read_weights(source)
    with understanding(repr(os.fspath(source))):
      file_fields = family.fields(weights.tensors, weights.config)
      fields = {**fields, **file_fields}
      shapes = parameter_shapes(kind, fields, {})
    if weights.config is None:
      unseen = [
        f'{name} = {fields[name]!r}' for name in sorted(fields.keys() - {*file_fields, *kind.how})
      ]
      _log.warning('no config.json: taken from config.model: %s', ', '.join(unseen))
    params, left_out = import_tensors(
      family.rows(fields, weights.tensors),
      weights.tensors,
      shapes,
      expected=family.expected,
      keep_type=keep_type,
    )
    if left_out:
      _log.info('%s are left out: no part of the encoder', listed({'tensors': left_out}))
    digests = weights.digests()
    for name, digest in digests.items():
      _log.info('%s  %s', digest, name)
    types = {name: dtype for name, dtype in weights.types().items() if name not in left_out}
    return ImportedWeights(fields, params, {'source': {'sha256': digests, 'types': types}})

  def write(params: Tree, fields: Fields, notes: Fields, out: pathlib.Path) -> str:
    types = notes['source']['types']
    tensors = export_tensors(family.rows(fields, types), params, types)
    write_json(out / 'config.json', family.config(fields))
    write_tensors(out / 'model.safetensors', tensors, {'format': 'pt'})
    return 'the encoder by the names of its source'

  kind = WeightFormat(
    family.make, init, read, {'transformers': write}, True, ('source',), frozen=True
  )
  return kind
