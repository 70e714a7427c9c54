"""What distinguishes one trainable part of Movie Gen from another."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from mgjax.core.typing import Batch, Metrics, Objective, Tree
from mgjax.data.mixture import Bucket
from mgjax.parallel.shard import Place


@dataclasses.dataclass(frozen=True)
class Opponent:
  """The other player of a part that trains against one; see `two_player.py`.

  Attributes:
    model: the Linen module.
    inputs: arguments of `model.init` after the key, arrays or shapes.
    judged: what the part itself minimises, with the opponent's judgement:
      `judged(predict, batch, key, judge) -> (loss, metrics, made)`; `made` is for the opponent.
    objective: what the opponent minimises: `objective(predict, batch, made, key) -> (loss,
      metrics)`, its metrics named unlike those of `judged`.
    optimizer: fields of its optimizer, as a configuration's `optimizer`.
    start: step from which on it plays.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  judged: Callable[..., tuple[Any, Metrics, Any]]
  objective: Callable[..., tuple[Any, Metrics]]
  optimizer: Mapping[str, Any]
  start: int


@dataclasses.dataclass(frozen=True)
class Part:
  """A model and everything the common loop needs to train it.

  Attributes:
    model: the Linen module.
    inputs: arguments of `model.init` after the key, arrays or shapes.
    objective: what training minimises.
    validate: the objective of validation, without drawn times or dropped conditions.
    buckets: the training data.
    validation: the validation data, read in order.
    prepare: maps a batch from the loader, on the devices, to what the objective reads.
    show: `show(params, directory) -> path` writes pictures of what the model does, or None.
    notes: `notes(params) -> dict` what every checkpoint keeps beside the weights, or None.
    check: raises if a checkpoint with these notes was trained on something else, or None.
    start: `start(place) -> params` reads parameters to begin from instead of random ones, each to
      where `place(name, shape)` says; or None.
    opponent: the player it trains against, or None.
    frozen: parameters that the objectives find as `batch['frozen']`, or None.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  objective: Objective
  validate: Objective
  buckets: Sequence[Bucket]
  validation: Sequence[Bucket]
  prepare: Callable[[Batch], Batch]
  show: Callable[[Tree, pathlib.Path], pathlib.Path] | None = None
  notes: Callable[[Tree], dict[str, Any]] | None = None
  check: Callable[[dict[str, Any]], None] | None = None
  start: Callable[[Place], Tree] | None = None
  opponent: Opponent | None = None
  frozen: Tree = None
