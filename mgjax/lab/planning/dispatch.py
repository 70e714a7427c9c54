"""Plans a configuration of any component: by formula, by the compiler, or by search."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.lab.planning import plan as planning
from mgjax.lab.planning import report
from mgjax.lab.planning.forward import describe_forward, plan_forward, read_forward
from mgjax.lab.planning.sampling.decoding import describe_decoding, plan_decoding
from mgjax.lab.planning.sampling.film import FRAMES, SIZE, describe_film, plan_film, read_film
from mgjax.lab.planning.sampling.generation import describe_generation, plan_generation
from mgjax.lab.planning.stages import describe_stages, plan_stages, read_stages
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_workload
from mgjax.parallel.chips import parse_topology
from mgjax.registry import find_component

HOW = ('estimate', 'compile', 'search')
TRAIN, SAMPLE = WHAT = ('train', 'sample')
# Component -> the flags that a plan of its sampling takes beside --rows.
_GENERATION = ('bucket', 'exchange', 'compile')
SAMPLING = {
  'upsampler': ('frames', 'size'),
  'autoencoder': ('frames', 'size', 'compile'),
  **dict.fromkeys(('video', 'audio', 'personalization'), _GENERATION),
}


@dataclasses.dataclass(frozen=True)
class Options(planning.Choices):
  """What is asked of a plan.

  Attributes:
    mesh: sizes of mesh axes; by default the best.
    rows: samples a step; of sampling, those at a time, or windows a call. 0 is one a group of
      chips, or one sample.
    remat: policy; by default as configured.
    exchange: of context shards; by default as configured.
    bucket: of the samples; by default the longest.
    how: 'estimate' by formula, 'compile' for TPUs that are not there, or 'search' of the best.
    what: 'train', or 'sample' of a component in `SAMPLING`.
    frames: of what an upsampler makes, 0 is 256; or of what an autoencoder decodes.
    size: height and width of it; of an upsampler by default 1080, 1920.
  """

  bucket: str = ''
  how: str = 'estimate'
  what: str = TRAIN
  frames: int = 0
  size: tuple[int, int] | None = None

  def __post_init__(self):
    check_one_of(f'how = {self.how!r}', self.how, HOW)
    check_one_of(f'what = {self.what!r}', self.what, WHAT)


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a plan or a benchmark says: a table for people, and the same as plain JSON values."""

  text: str
  numbers: JSON


def plan_any(
  config: ConfigDict, topology: str, *, price: float | None = None, **options: Any
) -> Answer:
  """Estimates whether a model fits a machine, how fast it runs and, at a price, what it costs.

  Args:
    topology: as 'v5p:8x8x8' or 'h100:8x64'.
    price: dollars a chip-hour; None leaves costs away, and what does not fit has none.
    **options: fields of `Options`.

  Raises:
    ConfigError: the component or the topology has no such plan.
  """
  answer = _plan(config, topology, Options(**options))
  if price is None:
    return answer
  if answer.numbers.get('fits') is False:
    verdict = 'cost        none: it does not fit'
    return Answer(f'{answer.text}\n{verdict}', answer.numbers | {'dollars': {'chip-hour': price}})
  cluster = parse_topology(topology)
  chips = cluster.devices // cluster.chip.cores
  dollars = {
    unit: {end: seconds[end] * chips * price / 3600 for end in ('low', 'high')}
    for unit, seconds in _seconds(answer.numbers).items()
  }
  costs = ', '.join(
    f'${" to ".join(dict.fromkeys(map(_in_three_digits, amounts.values())))} {unit}'
    for unit, amounts in dollars.items()
  )
  line = f'cost        {costs}: {chips:,} chip(s) at the price you gave, ${price:g} a chip-hour'
  numbers = answer.numbers | {'dollars': {'chip-hour': price, **dollars}}
  return Answer(f'{answer.text}\n{line}', numbers)


def _in_three_digits(dollars: float) -> str:
  return f'{float(f"{dollars:.3g}"):,.15g}'


def _seconds(numbers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """Returns the bounds of a plan's seconds by what they measure, in words."""
  if 'seconds_a_second_of_film' in numbers:
    return {'a second of film': numbers['seconds_a_second_of_film']}
  if 'samples' in numbers:  # that many at a time
    seconds = numbers['seconds']
    return {'a sample': {end: seconds[end] / numbers['samples'] for end in ('low', 'high')}}
  if 'passes' in numbers:
    return {'a step' if numbers['passes'] > 1 else 'a pass': numbers['seconds']}
  times = {}
  for plan in (numbers, *numbers.get('candidates', ())[:1]):
    if 'step_seconds' in plan:
      times['a step'] = plan['step_seconds']
  if stage := numbers.get('stage'):
    name = 'all stages' if 'stages' in numbers else 'the stage'
    times[name] = {end: 86_400 * days for end, days in stage['days'].items()}
  return times


def _plan(config: ConfigDict, topology: str, options: Options) -> Answer:
  """Plans without costs."""
  if 'stages' in config:
    if options != Options():
      raise ConfigError(
        f'this is a recipe of {", ".join(config.order)}; its stages are planned as they are '
        'configured: give --topology and --price alone, or the configuration of one stage'
      )
    answer = plan_stages(read_stages(config), topology)
    return Answer(describe_stages(answer), answer)
  if options.what == SAMPLE:
    return _plan_sampling(config, topology, options)
  if options.frames or options.size:
    raise ConfigError(f'--frames and --size are of what is sampled; add --what={SAMPLE}')
  row = find_component(config.component)
  if row.family != 'flow model':
    if options != Options(mesh=options.mesh, rows=options.rows):
      raise ConfigError(
        f'of {row.noun} a plan is by formula, of the longest bucket; leave --search, --compile, '
        '--bucket, --remat and --exchange away'
      )
    answer = plan_forward(read_forward(config, options.rows), topology, options.mesh)
    return Answer(describe_forward(answer), answer)
  run = FlowRun.of(config)
  work = make_workload(run, options.bucket)
  if options.how == 'search':
    result = planning.search_plans(work, topology, options)
    return Answer(report.describe_search(*result), report.search_as_json(*result))
  plan = planning.make_plan(work, topology, options)
  if options.how == 'compile':
    plan = planning.compile_plan(run, plan)
  return Answer(report.describe_plan(plan), report.plan_as_json(plan))


def _plan_sampling(config: ConfigDict, topology: str, options: Options) -> Answer:
  """Plans the sampling of a component, if there is such a plan and it has the options."""
  component = config.component
  if component not in SAMPLING:
    raise ConfigError(
      f'sampling of the component {component!r} is not planned; expected one of '
      f'{", ".join(SAMPLING)}, or leave --what away to plan its training'
    )
  names = ('bucket', 'exchange', 'frames', 'size', 'remat')
  chosen = [name for name in names if getattr(options, name)]
  chosen += [options.how] * (options.how != 'estimate')
  supported = SAMPLING[component]
  if unsupported := [name for name in chosen if name not in supported]:
    raise ConfigError(
      f'--{unsupported[0]} says nothing about sampling of the component {component!r}, which '
      f'takes --rows, --{" and --".join(supported)}; leave it away'
    )
  if component == 'upsampler':
    film = read_film(config, options.frames or FRAMES, options.size or SIZE, options.rows)
    answer = plan_film(film, topology, options.mesh)
    return Answer(describe_film(answer), answer)
  compiled = options.how == 'compile'
  if component == 'autoencoder':
    clip = options.frames, options.size
    answer = plan_decoding(config, topology, *clip, rows=options.rows or 1, compiled=compiled)
    return Answer(describe_decoding(answer), answer)
  answer = plan_generation(
    FlowRun.of(config),
    topology,
    options.mesh,
    bucket=options.bucket,
    exchange=options.exchange,
    rows=options.rows or 1,
    compiled=compiled,
  )
  return Answer(describe_generation(answer), answer)
