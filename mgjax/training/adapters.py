"""Adapters in place of parameters: changes the spec of any component for `config.lora`."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from mgjax.core.configuration.keys import JSON, Fields, differences
from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE
from mgjax.core.typing import Tree
from mgjax.nn import lora
from mgjax.nn.quantize import dequantised, store
from mgjax.parallel.rules import ambient
from mgjax.parallel.shard import make_place
from mgjax.training.checkpoints.load_params import identity_of, load_base
from mgjax.training.spec import Adapters, Callbacks, CallbacksAround, TrainSpec

TEACHER = 'teacher'  # the name of a reference among frozen parameters

_log = logging.getLogger(__name__)


def adapted(spec: TrainSpec, fields: Fields) -> TrainSpec:
  """Returns a spec that trains the adapters of a configuration's `lora`.

  If the rank is 0, all parameters are trained. In both cases `frozen` gets the reference, if the
  spec needs one. It takes no extra memory with adapters, which keep that model anyway.

  Optimizer, gradients and averages are of the adapters alone. Callbacks of the section still get
  all parameters, with the adapters merged. Raises ConfigError if `config.start_from` is no run of
  this model, or no kernel matches.
  """
  settings = lora.lora_settings(fields)
  start_from = fields.get('start_from')
  if not settings.rank and not spec.reference:
    return spec
  boxed = jax.eval_shape(spec.model.init, jax.random.key(0), *spec.inputs)['params']
  sharding_of = None if ambient() is None else make_place(boxed, jax.sharding.get_mesh())
  what = f'config.lora.rank = {settings.rank}' if settings.rank else 'config.objective.preference'
  params, meta = load_base(start_from, what, sharding_of)
  if wrong := differences(lora.shapes_of(params), lora.shapes_of(nn.unbox(boxed))):
    raise ConfigError(
      f'{what}: this is another model than that of {str(start_from)!r}: '
      f'{"; ".join(wrong[:5])}; take its configuration'
    )
  base = store(params, settings.weights)
  frozen = {**spec.frozen, **({TEACHER: base} if spec.reference else {})}
  if not settings.rank:
    return dataclasses.replace(spec, frozen=frozen)
  for line in lora.describe(settings, boxed):
    _log.info('%s', line)
  identity = identity_of(params, meta)

  return dataclasses.replace(
    spec,
    adapters=Adapters(
      init=functools.partial(lora.init, lora=settings, boxed=boxed), adapt=lora.make_adapt(settings)
    ),
    start=None,
    frozen={**frozen, BASE: base},
    callbacks=_Merging(spec.callbacks, base, settings.scale, str(start_from), identity),
  )


class _Merging(CallbacksAround):
  """Callbacks of a section, which get the parameters of the base with the adapters merged."""

  def __init__(self, callbacks: Callbacks, base: Tree, scale: float, workdir: str, identity: JSON):
    """Takes the base, its work directory, and its identity in the notes."""
    super().__init__(callbacks)
    self._base = base
    self._scale = scale
    self._workdir = workdir
    self._identity = identity

  def _merged(self, adapters: Tree) -> Tree:
    return lora.merge(adapters, self._base, self._scale)

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path | None:
    """Shows samples, and in 'before' those of the model without adapters at the same noise."""
    self._callbacks.show(dequantised(self._base), directory / 'before')
    return self._callbacks.show(self._merged(params), directory)

  def notes(self, get_params: Callable[[], Tree]) -> dict[str, Any]:
    """Adds the identity of the model that the adapters change."""
    return self._callbacks.notes(lambda: self._merged(get_params())) | {BASE: self._identity}

  def check(self, notes: JSON) -> None:
    """Also raises ConfigError if the adapters were started on another model."""
    if notes.get(BASE) != self._identity:
      raise ConfigError(
        f'{self._workdir!r} is not the model that these adapters were begun on (was it trained '
        f'on?): {notes.get(BASE)}, and now {self._identity}; put that one back'
      )
    self._callbacks.check(notes)
