"""Training of adapters in place of parameters: what `config.lora` makes of any component's spec."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from mgjax.checkpoints import lora
from mgjax.checkpoints.fingerprints import fingerprint_of
from mgjax.checkpoints.lora import Lora
from mgjax.checkpoints.quantize import dequantised, store
from mgjax.checkpoints.workdir import load_params
from mgjax.core.config import differences
from mgjax.core.errors import ConfigError
from mgjax.core.settings import unpack
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Array, Key, Tree
from mgjax.parallel.rules import ambient
from mgjax.parallel.shard import make_place
from mgjax.training.spec import TrainSpec
from mgjax.core.precision import BASE

_log = logging.getLogger(__name__)


def lora_settings(config: Mapping[str, Any]) -> Lora | None:
  """Reads `config.lora`; None where all parameters train."""
  found = unpack(Lora, dict(config.get('lora') or {}), 'lora')
  return found if found.rank else None


def with_adapters(spec: TrainSpec, settings: Lora, start_from: Any) -> TrainSpec:
  """Returns a spec whose state has adapters, of the frozen model of another run.

  Optimizer, gradients and averages are of the adapters alone. Hooks of the component still get
  whole parameters, with the adapters merged.

  Args:
    start_from: the work directory of that run; its parameters are those of this model.

  Raises:
    ConfigError: there is no such run, its parameters are others, or no kernel is reached.
  """
  if not start_from or not isinstance(start_from, str | os.PathLike) or '=' in str(start_from):
    raise ConfigError(
      f'config.lora.rank = {settings.rank} with config.start_from = {start_from!r}; expected the '
      'work directory of the model that adapters change, as in --config.start_from=digits/video'
    )
  boxed = jax.eval_shape(spec.model.init, jax.random.key(0), *spec.inputs)['params']
  for line in lora.describe(settings, boxed):
    _log.info('%s', line)
  place = None if ambient() is None else make_place(boxed, jax.sharding.get_mesh())
  params, meta = load_params(start_from, place=place)
  there, here = (
    {name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()}
    for tree in (jax.eval_shape(dequantised, params), nn.unbox(boxed))
  )
  if wrong := differences(there, here):
    raise ConfigError(
      f'adapters of another model than that of {os.fspath(start_from)!r}: {"; ".join(wrong[:5])}; '
      'take its configuration, or train all parameters: --config.lora.rank=0'
    )
  identity = {'fingerprint': fingerprint_of({}, params), 'step': meta['step']}
  base = store(params, settings.weights)

  def merged(adapters: Tree) -> Tree:
    return lora.merge(adapters, base, settings.scale)

  def check(notes: dict[str, Any]) -> None:
    if notes.get(BASE) != identity:
      raise ConfigError(
        f'{os.fspath(start_from)!r} is not the model that these adapters were begun on (was it '
        f'trained on?): {notes.get(BASE)}, and now {identity}; put that one back'
      )
    if spec.check is not None:
      spec.check(notes)

  def adapt(adapters: Tree, base: Tree, key: Key | None = None) -> Tree:
    return lora.attach(adapters, base, settings.scale, settings.dropout, key)

  return dataclasses.replace(
    spec,
    init=functools.partial(_init, settings, spec),
    adapt=adapt,
    start=None,
    frozen={**spec.frozen, BASE: base},
    check=check,
    notes=lambda adapters: (spec.notes(merged(adapters)) if spec.notes else {}) | {BASE: identity},
    show=spec.show and (lambda adapters, folder: spec.show(merged(adapters), folder)),
  )


def _init(settings: Lora, spec: TrainSpec, key: Key) -> Tree:
  boxed = jax.eval_shape(spec.model.init, key, *spec.inputs)['params']
  return lora.init(key, settings, boxed)
