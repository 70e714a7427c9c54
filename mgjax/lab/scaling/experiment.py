"""An experiment: the arms or the grid of a configuration as a sweep of runs."""

import functools
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import mgjax
from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json, write_bytes
from mgjax.lab.evaluation.worlds.alignment import judge_for
from mgjax.lab.scaling.design.grid import make_grid
from mgjax.lab.scaling.sweep import OF, digest, run_sweep
from mgjax.sections.video.pipeline import VideoPipeline

_PEAK = 255.0  # of pixels


def run_experiment(config: Mapping[str, Any], workdir: str | os.PathLike[str]) -> bool:
  """Trains every arm or point with its seeds, or resumes where an earlier call stopped.

  `config` has `samples`, how many a run is judged by as `launch.evaluate` does, 0 for none, and
  either `arms`, name -> configuration, with `seeds`, of all arms or by arm, or what `make_grid`
  reads. An arm may be a run that is there, `of`, with `changes` of its configuration, as
  {'sample': {'steps': 8}}: nothing is trained then, and a seed is that of the noise. `evaluate` has
  further options, of all arms, or below its name of one. With `reference`, changes of a sampler
  that is followed closely, a score `psnr` says how near to its videos those of the same noise are,
  in dB of clips in [0, 255].

  Scores in the rows are what the evaluation measured. Returns whether all is done; ConfigError: it
  is the configuration of something else, or see `run_sweep`.
  """
  required = {'grid', 'recipes', 'samples'} if 'grid' in config else {'arms', 'seeds', 'samples'}
  if missing := required - set(config):
    raise ConfigError(
      f'the configuration lacks {", ".join(sorted(missing))}; expected one of configs/scaling/'
    )
  arms = config.get('arms', {})
  judge = None
  options = {'samples': int(config['samples']), **config.get('evaluate', {})}
  if options['samples']:
    of = {name: arm[OF] for name, arm in arms.items() if OF in arm}
    own = {name: options.pop(name) for name in set(options) & set(arms)}
    judge = functools.partial(_judge, options, own, of, config.get('reference', {}))
  if 'grid' not in config:
    arms = {name: ConfigDict(arm) for name, arm in arms.items()}
    return run_sweep(arms, config['seeds'], workdir, evaluate=judge)
  points = {point.name: point for point in make_grid(config)}
  return run_sweep(
    {name: point.config for name, point in points.items()},
    {name: point.seeds for name, point in points.items()},
    workdir,
    evaluate=judge,
    about={name: point.about() for name, point in points.items()},
  )


def _judge(
  options: Fields,
  own: Mapping[str, Fields],
  of: Mapping[str, str],
  reference: Fields,
  folder: pathlib.Path,
) -> dict[str, Any]:
  """Returns the scores of a run: their means over groups of captions.

  Scores of baselines have the baseline's name behind a comma. A run of an arm that is `of` another
  one is sampled with the noise of its own seed, others with that of seed 0.
  """
  arm = folder.parent.name
  seed = int(folder.name.removeprefix('seed_'))
  noise = {'seed': seed} if arm in of else {}
  evaluation = mgjax.evaluate(folder, **{**options, **own.get(arm, {}), **noise})
  measured = read_json(evaluation.paths[-1], mend='evaluate the run again')['measured']
  names: dict[str, list[float]] = {}
  for name, metric in measured['metrics'].items():
    kind = name.split('/')[-1] if name.startswith('alignment/') else name
    ways = {f'{kind}, {way}': number for way, number in metric['beside'].items()}
    for score, number in {kind: metric['value'], **ways}.items():
      names.setdefault(score, []).extend([] if number is None else [number])
  scores = {name: float(np.mean(numbers)) for name, numbers in names.items() if numbers}
  if reference:
    scores['psnr'] = _nearness(folder, of[arm], seed, options['samples'], reference)
  return scores | {'samples': len(measured['samples'])}


def _nearness(
  folder: pathlib.Path, of: str, seed: int, samples: int, reference: Mapping[str, Any]
) -> float:
  """Returns the mean PSNR between videos of a run and of a reference sampler from the same noise.

  The reference videos are generated once and saved beside the arms.
  """
  pipeline = VideoPipeline(folder)
  requests = [request for group in judge_for(pipeline).asks(samples).values() for request in group]
  prompts = [request.caption for request in requests]
  about = digest({'of': of, 'seed': seed, 'prompts': prompts, **reference})
  path = folder.parents[1] / 'references' / f'{about[:16]}.npy'
  data = io.BytesIO()
  if not path.exists():
    np.save(data, pipeline.changed(**reference).generate(prompts, seed=seed))
    write_bytes(path, data.getvalue())
  followed = np.load(path)
  errors = np.square(pipeline.generate(prompts, seed=seed) - followed.astype(float))
  return float(np.mean(10 * np.log10(_PEAK**2 / np.maximum(errors.mean(axis=(1, 2, 3, 4)), 1e-3))))
