"""The Python API: what a notebook or a script calls, for any component.

import mgjax

video = mgjax.load('runs/quickstart/video')
clips = video.generate(['the green digit 3 moves left'], seed=0)
mgjax.show(clips)
"""

import inspect
import os
import pathlib
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.configuration.config_files import load_config
from mgjax.parallel import compilation_cache
from mgjax.parallel.tpu_presence import leave_out_tpu
from mgjax.registry import COMPONENTS, feature, make_spec
from mgjax.training.monitoring.garbage_collection import uncollected

Path = str | os.PathLike[str]


def _set_up_jax() -> None:
  leave_out_tpu()
  compilation_cache.use()


def list_models() -> dict[str, str]:
  """Returns what mgjax ships, by the names that `load` takes: 'digits/video' -> 'a video model'."""
  from mgjax.core.files import read_json
  from mgjax.training.checkpoints.find_run import SHIPPED, shipped_names

  configs = {name: read_json(SHIPPED / name / 'config.json') for name in shipped_names()}
  return {name: COMPONENTS[config['component']].noun for name, config in configs.items()}


def load(
  workdir: Path,
  *,
  steps: int | None = None,
  guidance: object = None,
  solver: str | None = None,
  schedule: object = None,
  weights: str | None = None,
  lora: str | None = None,
  mesh: object = None,
  **options: object,
) -> Any:
  """Loads what a work directory holds.

  From here on JAX keeps what it compiles for the next process, unless it is set up otherwise
  (`mgjax.parallel.compilation_cache.use`); so it does from `train` and `evaluate` on.

  Args:
    workdir: of a finished or running training, of imported weights, what mgjax ships
      ('digits/video'), or what is published ('hf://owner/name@revision', 's3://bucket/run').
    steps, guidance, solver, schedule: of sampling, in place of those of the run; see
      `mgjax.models.flow_model.settings.SampleSettings`, whose other fields are options too.
    weights: the type that kernels are stored in, as 'int8' or 'bfloat16'.
    lora: adapters, as 'style.safetensors:0.8'.
    mesh: sizes of the mesh axes, as 'context=8'.
    **options: more of the pipeline.

  Returns:
    A pipeline with `generate`, `stream` and `save` for a video or an audio model. For an
    autoencoder or a codec, an object with `encode` and `decode`. For a text encoder, a function of
    texts to states; for a CLIP, one of images and texts to vectors of one space.

  Raises:
    ConfigError: there is no run there, nothing to load of its component, or it has no such option.
    CheckpointError: it has no checkpoint that can be trusted.
  """
  with uncollected():
    from mgjax.sections.flow.diffusers_names import renamed, unknown_option
    from mgjax.training.checkpoints.workdir import read_config

    _set_up_jax()
    component = read_config(workdir).component
    make = feature(component, 'load', 'can be loaded').get()
    own = {'steps': steps, 'guidance': guidance, 'solver': solver, 'schedule': schedule}
    own |= {'weights': weights, 'lora': lora, 'mesh': mesh}
    arguments = renamed(
      {**{name: value for name, value in own.items() if value is not None}, **options}
    )
    known = inspect.signature(make).parameters
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    if not takes_more and (wrong := arguments.keys() - known):
      raise unknown_option(min(wrong), [*known][1:], COMPONENTS[component].noun)
    return make(workdir, **arguments)


def config(name: str, **changes: object) -> ConfigDict:
  """Reads a configuration: `mgjax.config('digits/video', **{'model.depth': 8})`.

  Args:
    name: of a file in `configs/`, or a path; `:argument` may follow, as in
      'video/t2iv_256:30b'.
    **changes: key -> value.

  Raises:
    ConfigError: there is no such file or key.
  """
  return load_config(name, changes)


def train(config: ConfigDict | str, workdir: Path, **options: Any) -> Any:
  """Trains what a configuration describes, or goes on where the work directory stopped.

  Args:
    config: the configuration, or its name.
    workdir: of this run.
    **options: `stop_at`, `new_data`, `new_rate`; see `mgjax.training.run.train`.

  Returns:
    The final state.
  """
  from mgjax.training import run

  _set_up_jax()
  config = load_config(config) if isinstance(config, str) else config
  return run.train(config, workdir, make_spec, **options)


def evaluate(workdir: Path | None = None, *, against: Path = '', **options: Any) -> Any:
  """Judges a trained model: prints nothing, writes its numbers and pictures, and returns them.

  Args:
    workdir: of the model; None of videos that any model made.
    against: an evaluation.json, or its folder, that the numbers are compared with on the page.
    **options: those of the component's evaluation, such as `samples` or `seed`; of videos `videos`,
      `prompts`, `clip`, `judge` and `reference`, see
      `mgjax.lab.evaluation.evaluate.evaluate_suite`.

  Returns:
    Findings: `table` for people, and the `paths` of what was written, the last two of them a page
    and JSON.

  Raises:
    ConfigError: there is nothing to evaluate, or no record to compare with.
    DataError: that record, or the data, cannot be used.
  """
  from mgjax.lab.evaluation.evaluate import evaluate_suite, evaluator_of
  from mgjax.lab.evaluation.record.against import read_other
  from mgjax.lab.evaluation.record.write import add_comparison
  from mgjax.training.checkpoints.workdir import read_config

  _set_up_jax()
  # Before the work: this one may be written over it, and a wrong path shall not cost hours.
  other = read_other(against) if against else None
  if workdir is None:
    findings = evaluate_suite(**options)
  else:
    findings = evaluator_of(read_config(workdir).component)(pathlib.Path(workdir), **options)
  return findings if other is None else add_comparison(findings, other)


def plan(config: ConfigDict | str, topology: str, **options: Any) -> Any:
  """Says whether a configuration fits a machine and how fast it could be; needs no devices.

  Args:
    config: the configuration, or its name.
    topology: as 'v5p:8x8x8' or 'h100:8x64'.
    **options: `mesh`, `bucket`, `rows`, `remat`, `exchange`, `how` ('estimate', 'compile' or
      'search'); of sampling `what='sample'`, of an upsampler with `frames` and `size`; see
      `mgjax.lab.planning.dispatch`.

  Returns:
    An answer with `text` for people and `numbers` as plain JSON values.
  """
  from mgjax.lab.planning.dispatch import plan_any

  config = load_config(config) if isinstance(config, str) else config
  return plan_any(config, topology, **options)
