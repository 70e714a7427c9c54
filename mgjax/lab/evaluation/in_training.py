"""Evaluations at checkpoints of training: `config.evaluators`."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mgjax.core.configuration.keys import Fields, did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json
from mgjax.core.settings import Positive, checked, fields_of
from mgjax.core.typing import Metrics
from mgjax.lab.evaluation.evaluate import evaluator_of
from mgjax.parallel.mesh import make_mesh
from mgjax.training.settings import run_settings
from mgjax.training.spec import Callbacks, CallbacksAround, TrainSpec


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """One entry of `config.evaluators`: options and interval of an evaluation in training.

  Attributes:
    every: steps between evaluations, a multiple of `train.save_every`; the last step has one, too.
    options: of the evaluation, as for `mgjax.evaluate`: `samples`, `seed`, `guidance`.
  """

  every: Positive
  options: Fields


def read_evaluators(fields: Fields) -> dict[str, Evaluator]:
  """Reads `evaluators` of a configuration: name -> {every, options of the evaluation}.

  Raises ConfigError if the component has no evaluation or the evaluation has no such option, or if
  `every` is no multiple of `train.save_every`.
  """
  component = fields['component']
  save_every = run_settings(fields_of(fields, 'train'), fields['seed']).save_every
  evaluators = {}
  for name in fields_of(fields, 'evaluators'):
    key = f'evaluators.{name}'
    options = dict(fields_of(fields['evaluators'], name))
    every = checked(Positive, options.pop('every', None), f'{key}.every')
    if not save_every or every % save_every:
      raise ConfigError(
        f'{key}.every = {every}; expected a multiple of train.save_every = {save_every}, for it '
        'is a checkpoint that is evaluated'
      )
    known = evaluator_of(component).options
    if unknown := sorted(set(options) - set(known)):
      raise ConfigError(f'{key}: {did_you_mean(unknown[0], known)}')
    evaluators[name] = Evaluator(every, options)
  return evaluators


def evaluated(spec: TrainSpec, fields: Mapping[str, Any], workdir: pathlib.Path) -> TrainSpec:
  """Returns a spec that runs the configuration's `evaluators` at its checkpoints.

  Raises ConfigError as `read_evaluators`, or if several processes train. In that case evaluate the
  checkpoints with `launch.evaluate`.
  """
  evaluators = read_evaluators(fields)
  if evaluators and jax.process_count() > 1:
    raise ConfigError(
      f'config.evaluators is for one process, and {jax.process_count()} train; leave it out and '
      'evaluate checkpoints by launch.evaluate'
    )
  last = fields['train']['steps']
  callbacks = _Evaluating(spec.callbacks, evaluators, fields['component'], workdir, last)
  return dataclasses.replace(spec, callbacks=callbacks)


def evaluator_options(
  workdir: str | os.PathLike[str], name: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the options of an evaluator of a run's configuration; raises ConfigError if unknown."""
  evaluators = read_evaluators(fields) if fields.get('evaluators') else {}
  if name not in evaluators:
    known = ', '.join(evaluators) or 'none'
    raise ConfigError(
      f'{os.fspath(workdir)!r} has no evaluator {name!r}; its config.evaluators has {known}'
    )
  return dict(evaluators[name].options)


class _Evaluating(CallbacksAround):
  """Runs evaluations besides the callbacks of a section."""

  def __init__(
    self,
    callbacks: Callbacks,
    evaluators: Mapping[str, Evaluator],
    component: str,
    workdir: pathlib.Path,
    last: int,
  ):
    super().__init__(callbacks)
    self._evaluators = evaluators
    self._component = component
    self._workdir = workdir
    self._last = last

  def at_checkpoint(self, step: int, finish: Callable[[], None]) -> Metrics:
    metrics = dict(super().at_checkpoint(step, finish))
    due = {n: evaluator for n, evaluator in self._evaluators.items() if not step % evaluator.every}
    due = self._evaluators if step == self._last else due
    if not due:
      return metrics
    finish()
    evaluate = evaluator_of(self._component)
    # The training mesh would shard the few samples over all of its devices.
    mesh = make_mesh({'data': 1}, 'single', devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
      for name, evaluator in due.items():
        record = read_json(evaluate(self._workdir, **evaluator.options).paths[-1])
        for metric, measured in record['measured']['metrics'].items():
          if measured['value'] is not None:
            metrics[f'evaluation/{name}/{metric}'] = measured['value']
    return metrics
