"""Averages the weights of several finetunes, weighted or greedily (Movie Gen §3.3)."""

import dataclasses
import functools
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, differences
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.core.settings import fields_of
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Tree
from mgjax.lab.report.tables import aligned
from mgjax.nn.quantize import is_quantised
from mgjax.parallel.distributed import fetch
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import make_place
from mgjax.registry import make_spec
from mgjax.training.checkpoints.load_params import load_params, read_shapes
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config, write_workdir
from mgjax.training.monitoring.metrics import validation_loss
from mgjax.training.monitoring.workdir_lock import hold
from mgjax.training.spec import TrainSpec, init_params
from mgjax.training.validation import make_evaluate

REPORT = 'average.json'

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AverageCandidate:
  """The averaged parameters of one checkpoint of a run; the newest good one without a step."""

  workdir: str
  step: int | None = None

  def __str__(self) -> str:
    return self.workdir if self.step is None else f'{self.workdir}@{self.step}'


@dataclasses.dataclass(frozen=True)
class Averaged:
  """The result of an average.

  `losses` are of each candidate alone, by the validation data of the first one's run, None where
  nothing was validated. `trials` are those of a greedy average, in order: candidate, loss of the
  mean with it, whether it stayed. `shares` are those of each candidate in the average, in sum 1.
  """

  steps: dict[str, int]
  losses: dict[str, float | None]
  trials: list[tuple[str, float, bool]]
  shares: dict[str, float]
  loss: float | None

  def table(self) -> str:
    rows = [('', 'step', 'validation loss', 'share')]
    for name, loss in self.losses.items():
      share = f'{self.shares.get(name, 0.0):.3f}'
      rows.append((name, str(self.steps[name]), _format_loss(loss), share))
    for name, loss, taken in self.trials[1:]:
      rows.append((f'... with {name}', '', _format_loss(loss), 'taken' if taken else 'left out'))
    return '\n'.join(aligned([*rows, ('average', '', _format_loss(self.loss), '1.000')]))


def _format_loss(loss: float | None) -> str:
  return 'not known' if loss is None else f'{loss:.6f}'


def average_runs(
  candidates: Sequence[AverageCandidate],
  workdir: str | os.PathLike[str],
  *,
  weights: Sequence[float] | None = None,
  greedy: bool = False,
  validate: bool = True,
) -> Averaged:
  """Averages checkpoints of one run or of several of the same model into a new work directory.

  That directory serves sampling, evaluation and `config.start_from` as a run would. Its
  configuration is that of the first candidate, and so is the validation data.

  Args:
    candidates: at least one.
    workdir: without checkpoints.
    weights: one for each candidate; by default all the same.
    greedy: take candidates by ascending loss, those alone that lower the loss of the mean.
    validate: measure each candidate alone, and the average.

  Raises:
    ConfigError: candidates of different models, weights that do not fit, or a work directory that
      is in use.
    CheckpointError: a candidate cannot be read.
  """
  workdir = pathlib.Path(workdir)
  config = _same_model(candidates)
  if weights is not None and (greedy or len(weights) != len(candidates)):
    raise ConfigError(
      f'{len(weights)} weights for {len(candidates)} candidates; give one for each, and none to a '
      'greedy average'
    )
  if greedy and not validate:
    raise ConfigError('a greedy average needs validation')
  config.train.checkpoints = ''  # those of the first run stay its own
  with hold(workdir):
    if (workdir / 'config.json').exists() or open_checkpoints(workdir, '').begun():
      raise ConfigError(f'{os.fspath(workdir)!r} is in use; take another --workdir')
    mesh = make_mesh(fields_of(config, 'mesh'), config.rules)
    measure = None
    with jax.set_mesh(mesh):
      spec = make_spec(config, workdir) if validate else None
      if spec is not None:
        measure = make_validate(spec, mesh, batches=config.train.validation_batches)
      params, averaged, notes = _average(candidates, weights, measure, greedy)
      average_notes = notes[0]
      if any(other != average_notes for other in notes):
        average_notes = _notes_of(spec or make_spec(config, workdir), notes, params)
    record = dataclasses.asdict(averaged)
    origin = {'order': 'averaged', 'averaged': record}
    write_workdir(
      config.to_dict(), params, average_notes, workdir, origin=origin, loss=averaged.loss
    )
    write_json(workdir / REPORT, record)
  return averaged


def _average(
  candidates: Sequence[AverageCandidate],
  weights: Sequence[float] | None,
  measure: Callable[[Tree], float] | None,
  greedy: bool,
) -> tuple[Tree, Averaged, list[dict[str, Any]]]:
  """Returns the average, its report, and the notes of every candidate's checkpoint."""
  names = list(map(str, candidates))
  steps: dict[str, int] = {}
  notes: list[JSON] = [{} for _ in candidates]

  def load(index: int) -> Tree:
    params, meta = load_params(candidates[index].workdir, step=candidates[index].step)
    steps[names[index]], notes[index] = meta['step'], meta['notes']
    _log.info('read %s: step %d', names[index], meta['step'])
    return params

  alone: dict[str, float | None] = dict.fromkeys(names)
  if measure is not None:
    alone = {name: measure(load(index)) for index, name in enumerate(names)}
    _log.info('validation loss alone: %s', alone)
  if greedy:
    params, greedy_trials = greedy_mean(list(alone.values()), load, measure)
    trials = [(names[trial.index], trial.loss, trial.taken) for trial in greedy_trials]
    taken = {name: loss for name, loss, stays in trials if stays}
    shares = dict.fromkeys(taken, 1 / len(taken))
    loss = list(taken.values())[-1]
  else:
    factors = [1.0] * len(candidates) if weights is None else list(weights)
    params = mean_params(map(load, range(len(candidates))), factors)
    trials = []
    shares = {name: w / math.fsum(factors) for name, w in zip(names, factors, strict=True)}
    loss = measure and measure(params)
  steps = {name: steps[name] for name in names if name in steps}
  return params, Averaged(steps, alone, trials, shares, loss), notes


def _same_model(candidates: Sequence[AverageCandidate]) -> ConfigDict:
  """Returns the configuration of the first candidate; all must be of the same model."""
  if not candidates:
    raise ConfigError('there is nothing to average; name at least one run')
  if len(set(candidates)) < len(candidates):
    raise ConfigError('a candidate is named twice; give it a larger weight instead')
  first, *others = (read_config(candidate.workdir) for candidate in candidates)
  shapes = read_shapes(candidates[0].workdir)
  if is_quantised(shapes):
    raise ConfigError(
      f'the kernels in {candidates[0].workdir!r} are quantised, and integers of other scales have '
      'no mean; average the runs that they are from'
    )
  for candidate, config in zip(candidates[1:], others, strict=True):
    changed = differences({'component': first.component}, {'component': config.component})
    changed += differences(
      {'model': fields_of(first, 'model')}, {'model': fields_of(config, 'model')}
    )
    if changed or read_shapes(candidate.workdir) != shapes:
      raise ConfigError(
        f'{candidates[0].workdir!r} and {candidate.workdir!r} are not of the same model: '
        f'{"; ".join(changed[:5]) or "their parameters have other names or shapes"}'
      )
  return first


def make_validate(spec: TrainSpec, mesh: Mesh, *, batches: int) -> Callable[[Tree], float]:
  """Makes `measure(params) -> validation loss`, of parameters from anywhere; see `make_evaluate`.

  `measure` raises ConfigError if there is too little data to validate on.
  """
  boxed = jax.eval_shape(functools.partial(init_params, spec), jax.random.key(0))
  sharding_of = make_place(boxed, mesh)
  evaluate = make_evaluate(spec, mesh, batches=batches)

  def measure(params: Tree) -> float:
    leaves = [
      jax.device_put(leaf, sharding_of(name, leaf.shape))
      for name, leaf in named_leaves(params).items()
    ]
    loss = validation_loss(evaluate(jax.tree.unflatten(jax.tree.structure(params), leaves)))
    if loss is None:
      raise ConfigError(
        'there is too little validation data for one batch; take runs with more, or average '
        'without validation'
      )
    return loss

  return measure


def _notes_of(
  spec: TrainSpec, notes: Sequence[Mapping[str, Any]], params: Tree
) -> Mapping[str, Any]:
  """Returns the notes of an average of runs whose notes differ."""
  for run_notes in notes:
    spec.callbacks.check(dict(run_notes))
  return spec.callbacks.notes(lambda: params)


class Mean:
  """A weighted mean of parameters that grows, in float64 on the host.

    p = sum_i w_i p_i / sum_i w_i

  A sum in float32 would lose a bit of every parameter with each model; here the result alone is
  rounded. It takes 8 bytes a parameter, and as many again while one more is added.
  """

  def __init__(self, total: Tree = None, weight: float = 0.0):
    self._total, self._weight = total, weight

  def plus(self, params: Tree, weight: float = 1.0) -> 'Mean':
    """Returns the mean with one more model, of a `weight` above 0; this one stays as it is."""
    if self._total is None:
      total = jax.tree.map(lambda p: weight * p.astype(np.float64), fetch(params))
    else:  # leaf by leaf, or the products would lie in memory all at once
      total = jax.tree.map(
        lambda t, p: t + weight * p.astype(np.float64), self._total, fetch(params)
      )
    return Mean(total, self._weight + weight)

  def value(self) -> Tree:
    return jax.tree.map(lambda total: (total / self._weight).astype(np.float32), self._total)


def mean_params(trees: Iterable[Tree], weights: Sequence[float]) -> Tree:
  """The weighted mean of the parameters of several runs, float32 on the host; see `Mean`.

  Movie Gen averages models fine-tuned with different data, hyper-parameters and pre-trained
  checkpoints (§3.3); its weights are not in public sources. `trees` are read one after the other.
  Raises ConfigError if weights that are no shares.
  """
  if not weights or not all(math.isfinite(w) and w > 0 for w in weights):
    raise ConfigError(f'cannot average with the weights {list(weights)}; each must be above 0')
  mean = Mean()
  for params, weight in zip(trees, weights, strict=True):
    mean = mean.plus(params, weight)
  return mean.value()


class Trial(NamedTuple):
  """A candidate for a greedy mean: its index, the loss of the mean with it, whether it stays."""

  index: int
  loss: float
  taken: bool


def greedy_mean(
  losses: Sequence[float], load: Callable[[int], Tree], validate: Callable[[Tree], float]
) -> tuple[Tree, list[Trial]]:
  """The mean of those models that make it better, as in model soups (Wortsman et al., 2022).

    S = {best};  for i by ascending loss:  S <- S + {i}  if  L(mean(S + {i})) < L(mean(S))

  So it is never worse, by the validation loss L, than the best model alone. `losses` are L of each;
  `load` is called once for each, in the order of their losses. Returns the mean, float32 on the
  host, and what was tried, in that order. Raises ConfigError if no model has a finite loss.
  """
  order = sorted(
    (i for i, loss in enumerate(losses) if math.isfinite(loss)), key=losses.__getitem__
  )
  if not order:
    raise ConfigError(f'no model to average has a finite validation loss: {list(losses)}')
  first, *others = order
  mean = Mean().plus(load(first))
  best = losses[first]
  trials = [Trial(first, best, True)]
  for index in others:
    wider = mean.plus(load(index))
    loss = validate(wider.value())
    if taken := loss < best:
      mean, best = wider, loss
    trials.append(Trial(index, loss, taken))
  return mean.value(), trials
