"""Evaluations at checkpoints of training: `config.evaluators`."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

import jax

from mgjax.core.configuration.keys import JSON, Fields, did_you_mean
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
  """One entry of `config.evaluators`: the evaluation of the run's component, and when.

  Attributes:
    every: steps between evaluations, a multiple of `train.save_every`; the last step has one, too.
    options: of the evaluation, as of `mgjax.evaluate`: `samples`, `seed`, `guidance`.
  """

  every: Positive
  options: Fields


def read_evaluators(fields: Fields) -> dict[str, Evaluator]:
  """Reads `evaluators` of a configuration: name -> {every, options of the evaluation}.

  Raises ConfigError if the component has no evaluation, it takes no such option, or there is no
  checkpoint so often.
  """
  component = fields['component']
  save_every = run_settings(fields_of(fields, 'train'), fields['seed']).save_every
  found = {}
  for name in fields_of(fields, 'evaluators'):
    place = f'evaluators.{name}'
    options = dict(fields_of(fields['evaluators'], name))
    every = checked(Positive, options.pop('every', None), f'{place}.every')
    if not save_every or every % save_every:
      raise ConfigError(
        f'{place}.every = {every}; expected a multiple of train.save_every = {save_every}, for it '
        'is a checkpoint that is evaluated'
      )
    known = evaluator_of(component).options
    if unknown := sorted(set(options) - set(known)):
      raise ConfigError(f'{place}: {did_you_mean(unknown[0], known)}')
    found[name] = Evaluator(every, options)
  return found


def evaluated(spec: TrainSpec, fields: Fields, workdir: pathlib.Path) -> TrainSpec:
  """Returns a spec whose checkpoints are evaluated as a configuration's `evaluators` ask.

  Raises ConfigError as `read_evaluators`, or where several processes train: then `launch.evaluate`
  measures the checkpoints.
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


def evaluator_options(workdir: str | os.PathLike[str], name: str, fields: Fields) -> JSON:
  """Returns the options of the evaluator that the configuration of a run has by this name.
  Raises ConfigError if it has none.
  """
  evaluators = read_evaluators(fields) if fields.get('evaluators') else {}
  if name not in evaluators:
    known = ', '.join(evaluators) or 'none'
    raise ConfigError(
      f'{os.fspath(workdir)!r} has no evaluator {name!r}; its config.evaluators has {known}'
    )
  return dict(evaluators[name].options)


class _Evaluating(CallbacksAround):
  """Those of a section, and evaluations."""

  def __init__(
    self,
    callbacks: Callbacks,
    evaluators: Mapping[str, Evaluator],
    component: str,
    workdir: pathlib.Path,
    last: int,
  ):
    super().__init__(callbacks)
    self._evaluators, self._component = evaluators, component
    self._workdir, self._last = workdir, last

  def at_checkpoint(self, step: int, finish: Callable[[], None]) -> Metrics:
    found = dict(super().at_checkpoint(step, finish))
    due = {n: each for n, each in self._evaluators.items() if not step % each.every}
    due = self._evaluators if step == self._last else due
    if not due:
      return found
    finish()
    evaluate = evaluator_of(self._component)
    # The mesh of training would cut a few samples over all of its devices.
    alone = make_mesh({'data': 1}, 'single', devices=jax.devices()[:1])
    with jax.set_mesh(alone):
      for name, each in due.items():
        record = read_json(evaluate(self._workdir, **each.options).paths[-1])
        for metric, measured in record['measured']['metrics'].items():
          if measured['value'] is not None:
            found[f'evaluation/{name}/{metric}'] = measured['value']
    return found
