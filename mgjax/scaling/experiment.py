"""An experiment: the arms or the grid of a configuration as a sweep of runs."""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.evaluation.worlds.alignment import judge_model
from mgjax.scaling.design.grid import make_grid
from mgjax.video.pipeline import VideoPipeline
from mgjax.workflows.sweep import run_sweep


def run_experiment(config: Mapping[str, Any], workdir: str | os.PathLike[str]) -> bool:
  """Trains every arm or point with its seeds, or goes on where an earlier call stopped.

  `config` has `samples`, the videos of held-out captions by which a run on a world is judged,
  0 for none, and either `arms`, name -> configuration, with `seeds`, of all arms or by arm, or what
  `make_grid` reads. Scores in the rows of the sweep are the judge's shares. Returns whether all is
  done; ConfigError: it is the configuration of something else, or see `run_sweep`.
  """
  wanted = {'grid', 'recipes', 'samples'} if 'grid' in config else {'arms', 'seeds', 'samples'}
  if missing := wanted - set(config):
    raise ConfigError(
      f'the configuration lacks {", ".join(sorted(missing))}; expected one of configs/scaling/'
    )
  evaluate = (
    functools.partial(_judge, samples=int(config['samples'])) if config['samples'] else None
  )
  if 'grid' not in config:
    arms = {name: ConfigDict(arm) for name, arm in config['arms'].items()}
    return run_sweep(arms, config['seeds'], workdir, evaluate=evaluate)
  points = {point.name: point for point in make_grid(config)}
  return run_sweep(
    {name: point.config for name, point in points.items()},
    {name: point.seeds for name, point in points.items()},
    workdir,
    evaluate=evaluate,
    about={name: point.about() for name, point in points.items()},
  )


def _judge(folder: pathlib.Path, samples: int) -> dict[str, Any]:
  """Returns what a judge reads of a run, factor by factor: the mean over groups of captions."""
  found, _, _ = judge_model(VideoPipeline(folder), samples=samples)
  told = found.record
  groups = [each['alignment'] for each in told.get('groups', {'': told}).values()]
  names = dict.fromkeys(name for group in groups for name in group)
  shares = {name: float(np.mean([each[name] for each in groups if name in each])) for name in names}
  rest = {name: told[name] for name in ('diversity', 'samples') if name in told}
  return shares | rest
