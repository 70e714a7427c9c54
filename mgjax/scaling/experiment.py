"""An experiment: the arms of a configuration as a sweep, each run judged when it has ended."""

import os
import pathlib
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.evaluation.alignment import judge_model
from mgjax.video.pipeline import VideoPipeline
from mgjax.workflows.sweep import run_sweep


def run_experiment(config: ConfigDict, workdir: str | os.PathLike[str]) -> bool:
  """Trains and judges every arm with every seed, or goes on where an earlier call stopped.

  Args:
    config: `arms`, name -> configuration of text to video on moving digits, `seeds`, and `samples`,
      the videos of held-out captions by which a run is judged.
    workdir: of the sweep, see `run_sweep`; the scores of its rows are the judge's shares.

  Returns:
    Whether all is done: False if a signal asked to stop.

  Raises:
    ConfigError: it is the configuration of something else, or see `run_sweep`.
  """
  if missing := {'arms', 'seeds', 'samples'} - set(config):
    raise ConfigError(
      f'the configuration lacks {", ".join(sorted(missing))}; expected one of configs/scaling/'
    )
  samples = int(config.samples)

  def evaluate(folder: pathlib.Path) -> dict[str, Any]:
    found, _, _ = judge_model(VideoPipeline(folder), samples=samples)
    return {**found.scores, 'diversity': found.diversity, 'samples': found.samples}

  return run_sweep(dict(config.arms.items()), config.seeds, workdir, evaluate=evaluate)
