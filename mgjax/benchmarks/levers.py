"""Ways to sample a trained model of the small world, side by side: what each costs and keeps.

Of every way passes, operations, seconds in turns with the others, and what the judge says of its
samples (`mgjax.evaluation`), so that nothing is called fast without what it is worth.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mgjax.audio.pipeline import AudioPipeline
from mgjax.benchmarks.timing import Timed, interleave
from mgjax.checkpoints.workdir import read_config
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of, unpack
from mgjax.core.tables import markdown
from mgjax.core.typing import Array
from mgjax.evaluation.alignment import judge_model
from mgjax.evaluation.audio_alignment import judge_soundtracks
from mgjax.flow.guidance import MakeVelocity
from mgjax.flow.solvers import Velocity
from mgjax.flow_models.build import make_sampler_of
from mgjax.flow_models.pipeline import FlowPipeline
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.planning.sampling.film import count_branches
from mgjax.planning.sampling.passes import count_passes, guidance_at
from mgjax.planning.workload import count_flops, make_workload
from mgjax.video.pipeline import VideoPipeline

CONFIGURED = 'as configured'
REREAD = 'the same, text read at every step'
FEWER = (12, 8, 4, 2)  # steps
EARLY = 0.3  # of the flow's time: guidance below it alone
REUSE = 0.2
WHOLE = 'alignment/all'  # of the shares that are right, the one in the table
TOGETHER = 8  # steps, where all levers are pulled
TIMED = 32  # samples by the clock, the batch in which they are judged: one program serves both


@dataclasses.dataclass(frozen=True)
class Way:
  """One way to sample one model.

  Attributes:
    name: in words.
    workdir: of the model.
    changes: of its `config.sample`.
    rereads: whether what the conditions say is asked for at every step, not once.
  """

  name: str
  workdir: str
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  rereads: bool = False


def list_ways(workdir: str, beside: Sequence[str] = ()) -> list[Way]:
  """Lists how a model can be sampled, lever by lever and with all of them, and others beside it.

  Args:
    workdir: of the model.
    beside: of others; one that learnt few steps takes those of 8, 4, 2 and one that it
      learnt, any other is sampled as configured and in fewer.

  Raises:
    ConfigError: one of them is no flow model.
  """
  sample, _ = _settings(workdir)
  early = tuple((name, (_scale(scale), (0.0, EARLY))) for name, scale in sample.guidance)
  ways = [Way(CONFIGURED, workdir), Way(REREAD, workdir, rereads=True)]
  ways += [Way(f'{n} steps', workdir, {'steps': n}) for n in FEWER if n < sample.steps]
  fewer = min(TOGETHER, sample.steps)
  if sample.schedule['name'] != 'linear':
    linear = {'steps': fewer, 'schedule': {'name': 'linear'}}
    ways.append(Way(f'{fewer} steps, linear', workdir, linear))
  ways.append(Way(f'guidance below t = {EARLY:g}', workdir, {'guidance': early}))
  reuse = {'reuse': REUSE} if sample.solver == 'euler' else {}
  if reuse:
    ways.append(Way(f'velocities reused ({REUSE:g})', workdir, reuse))
  ways += [Way(f'weights in {kind}', workdir, {'weights': kind}) for kind in ('bfloat16', 'int8')]
  every = {'steps': fewer, 'guidance': early, 'weights': 'int8', **reuse}
  ways.append(Way(f'all of these: {fewer} steps, int8', workdir, every))
  for other in beside:
    ways += _ways_of(other)
  return ways


def measure_ways(
  ways: Sequence[Way], *, samples: int = 216, seed: int = 0, rounds: int = 5
) -> dict[str, Any]:
  """Judges every way and times all in turns.

  Args:
    ways: of models of video or sound, of the small world.
    samples: that are judged.
    seed: of the noise.
    rounds: timed runs of each, of some samples from prompts to pixels or sound.

  Returns:
    Plain JSON values: `ways`, each with `name`, `workdir`, `changes`, `rows` (passes of the network
    of one row, a sample), `flops` of a sample, `seconds` of `timed` samples ('min', 'median',
    'cpu'), and `found`, metric -> value, low, high.

  Raises:
    ConfigError: a model was not trained on moving digits, or cannot be sampled so.
  """
  found: list[dict[str, Any]] = []
  timed: dict[int, Timed] = {}
  for place, way in enumerate(ways):
    pipeline = _open(way)
    metrics, again = _judge(pipeline, samples, seed)
    timed[place] = functools.partial(again, pipeline)
    rows = _count_rows(way, again) if pipeline.settings['reuse'] else None
    found.append({**dataclasses.asdict(way), **_cost(way, rows), 'found': metrics})
  for place, seconds in interleave(timed, rounds).items():
    found[place]['seconds'] = seconds
  return {
    'what': 'levers',
    'device': jax.devices()[0].device_kind,
    'samples': samples,
    'seed': seed,
    'rounds': rounds,
    'timed': min(TIMED, samples),
    'ways': found,
  }


def describe_ways(report: Mapping[str, Any]) -> str:
  """Returns what `measure_ways` found as a table in Markdown, with intervals of 95%."""
  every = report['ways'][0]['found']
  metrics = [name for name in every if 'alignment' not in name or name == WHOLE]
  header = ('', 'passes', 'GFLOP', f's, {report["timed"]} samples', 'processor s', *metrics)
  rows = [header]
  for way in report['ways']:
    seconds = way['seconds']
    told = [_told(way['found'][name]) if name in way['found'] else '-' for name in metrics]
    rows.append(
      (
        way['name'], f'{way["rows"]:g}', f'{way["flops"] / 1e9:.3g}', f'{seconds["median"]:.3f}',
        f'{seconds["cpu"]:.3f}', *told,
      )
    )  # fmt: skip
  ending = (
    f'{report["samples"]} samples of seed {report["seed"]} a row on {report["device"]}; the median '
    f'and, of the processor, the least of {report["rounds"]} runs in turns'
  )
  return f'{markdown(rows)}\n{ending}'


def curves_of(
  reports: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> dict[str, dict[str, list[tuple[float, float]]]]:
  """Returns how numbers go with passes, where nothing but the steps of a model is changed.

  Args:
    reports: of `measure_ways`.
    names: metric -> what it is called.

  Returns:
    Name -> model -> (passes, number), as `scaling.plots.curves.draw_curves` takes it.
  """
  panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
  for way in (way for report in reports for way in report['ways']):
    if way['rereads'] or set(way['changes']) - {'steps'}:
      continue
    for metric, name in names.items():
      if metric in way['found']:
        curve = panels.setdefault(name, {}).setdefault(_model(way['workdir']), [])
        curve.append((way['rows'], way['found'][metric]['value']))
  return panels


def _open(way: Way) -> FlowPipeline:
  kinds = {'video': VideoPipeline, 'audio': AudioPipeline}
  component = read_config(way.workdir).component
  if component not in kinds:
    raise ConfigError(f'ways to sample are compared of video and audio; {way.workdir} is no such')
  if not way.rereads:
    return kinds[component](way.workdir, **way.changes)
  return _rereading(kinds[component], lambda velocity: velocity)(way.workdir, **way.changes)


def _judge(
  pipeline: FlowPipeline, samples: int, seed: int
) -> tuple[dict[str, dict[str, float]], Callable[[Any], object]]:
  """Returns what the judge says, and what makes some of the samples again, by any pipeline."""
  if isinstance(pipeline, VideoPipeline):
    found, _, prompts = judge_model(pipeline, samples=samples, seed=seed)
    again = lambda pipeline: pipeline.generate(prompts[:TIMED], seed=seed)  # noqa: E731
  else:
    assert isinstance(pipeline, AudioPipeline)
    found, clips = judge_soundtracks(pipeline, samples=samples, seed=seed)
    some, fps = clips[:TIMED], pipeline.config.data.fps
    seen = [pipeline.frame_features(each.video, fps) for each in some if each.video is not None]
    told = {'frame_features': np.stack(seen)} if seen else {}
    prompts = [each.prompt for each in some]
    again = lambda pipeline: pipeline.generate(prompts, seed=seed, **told)  # noqa: E731
  metrics = found.as_dict()['metrics']
  kept = ('value', 'low', 'high')
  return {name: {key: each[key] for key in kept} for name, each in metrics.items()}, again


def _rereading(kind: type[FlowPipeline], see: Callable[[Velocity], Velocity]) -> type[FlowPipeline]:
  """Returns a kind of pipeline that asks its conditions at every step, and whose velocity is seen.

  What goes beyond the model's window asks at every step, and so does this, which goes nowhere.
  """

  class Rereading(kind):
    def _kept_sampler(self) -> Callable[..., Any]:
      def widen(make_velocity: MakeVelocity) -> MakeVelocity:
        return lambda batch: see(make_velocity(batch))

      return make_sampler_of(self._settings, self._objective, self._model, widen)

  return Rereading


def _count_rows(way: Way, again: Callable[[Any], object]) -> float:
  """Counts the rows, a sample, that a sampler computes which reuses velocities, by sampling."""
  times: list[float] = []

  def see(velocity: Velocity) -> Velocity:
    def seen(x: Array, time: Array) -> Array:
      jax.debug.callback(lambda now: times.append(float(now)), time[0])
      return velocity(x, time)

    return seen

  again(_rereading(VideoPipeline, see)(way.workdir, **way.changes))
  jax.effects_barrier()
  guidance = _settings(way.workdir)[0].changed(way.changes).guidance
  return float(sum(count_branches(guidance_at(guidance, time)) for time in times))


def _cost(way: Way, rows: float | None) -> dict[str, float]:
  """Returns passes of one row, and operations of a sample.

  Keys and values of the context, 4 m d^2 a layer, are made once a row of guidance, not a pass.
  """
  config = read_config(way.workdir)
  sample, objective = _settings(way.workdir)
  passes = count_passes(objective.in_passes(sample.changed(way.changes)))
  if rows is None:
    rows = float(sum(count * each for count, each in passes.items()))
  work = make_workload(config)
  once = 4 * work.depth * work.context * work.dim**2
  forward = count_flops(config)[0].forward
  reads = rows if way.rereads else max(passes)
  return {'rows': rows, 'flops': rows * (forward - once) + reads * once}


def _settings(workdir: str) -> tuple[SampleSettings, ObjectiveSettings]:
  config = read_config(workdir)
  return (
    unpack(SampleSettings, fields_of(config, 'sample'), 'sample'),
    unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective'),
  )


def _ways_of(workdir: str) -> list[Way]:
  sample, objective = _settings(workdir)
  name = _model(workdir)
  if not objective.steps_learnt:
    fewer = min(TOGETHER, sample.steps)
    steps = {'steps': fewer}
    return [Way(f'{name}, {CONFIGURED}', workdir), Way(f'{name}, {fewer} steps', workdir, steps)]
  learnt = [n for n in (8, 4, 2, 1) if n in objective.steps_learnt.learnt]
  ways = [Way(f'{name}, {n} step{"s" * (n > 1)}', workdir, {'steps': n}) for n in learnt]
  return [*ways, Way(f'{name}, 1 step, int8', workdir, {'steps': 1, 'weights': 'int8'})]


def _model(workdir: str) -> str:
  return os.path.basename(os.path.normpath(workdir))


def _scale(scale: float | tuple[float, tuple[float, float]]) -> float:
  return scale[0] if isinstance(scale, tuple) else scale


def _told(metric: Mapping[str, Any]) -> str:
  value, low, high = (metric[key] for key in ('value', 'low', 'high'))
  if value is None:
    return '-'
  return f'{value:.3f}' + (f' [{low:.3f}, {high:.3f}]' if low is not None else '')
