"""Plans a configuration of any component: by formula, by the compiler, or by search."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mgjax.core.errors import ConfigError, check_one_of
from mgjax.lab.planning import plan as planning
from mgjax.lab.planning import report
from mgjax.lab.planning.forward import describe_forward, plan_forward
from mgjax.lab.planning.sampling.film import describe_film, plan_film
from mgjax.lab.planning.sampling.generation import describe_generation, plan_generation
from mgjax.lab.planning.stages import describe_stages, plan_stages
from mgjax.lab.planning.workload import make_workload, read_outline
from mgjax.parallel.chips import parse_topology
from mgjax.registry import find_component

HOW = ('estimate', 'compile', 'search')
TRAIN, SAMPLE = WHAT = ('train', 'sample')
# Component -> what plans its sampling, what makes text of the answer, and its options beside rows.
_GENERATION = (plan_generation, describe_generation, ('bucket', 'exchange', 'compiled'))
SAMPLING = {
  'upsampler': (plan_film, describe_film, ('frames', 'size')),
  **dict.fromkeys(('video', 'audio', 'personalization'), _GENERATION),
}


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a plan or a benchmark says: a table for people, and the same as plain JSON values."""

  text: str
  numbers: dict[str, Any]


def plan_any(
  fields: Mapping[str, Any], topology: str, *, price: float | None = None, **options: Any
) -> Answer:
  """Says whether a model fits a machine, how fast it could be and, at a price, what it costs.

  Args:
    topology: as 'v5p:8x8x8' or 'h100:8x64'.
    price: dollars a chip-hour; None leaves costs away, and what does not fit has none.
    **options: see `_plan`.

  Raises:
    ConfigError: the component or the topology has no such plan.
  """
  answer = _plan(fields, topology, **options)
  if price is None:
    return answer
  if answer.numbers.get('fits') is False:
    told = 'cost        none: it does not fit'
    return Answer(f'{answer.text}\n{told}', answer.numbers | {'dollars': {'chip-hour': price}})
  place = parse_topology(topology)
  chips = place.devices // place.chip.cores
  dollars = {
    unit: {end: each[end] * chips * price / 3600 for end in ('low', 'high')}
    for unit, each in _seconds(answer.numbers).items()
  }
  costs = ', '.join(
    f'${" to ".join(dict.fromkeys(map(_in_three_digits, each.values())))} {unit}'
    for unit, each in dollars.items()
  )
  line = f'cost        {costs}: {chips:,} chip(s) at the price you gave, ${price:g} a chip-hour'
  numbers = answer.numbers | {'dollars': {'chip-hour': price, **dollars}}
  return Answer(f'{answer.text}\n{line}', numbers)


def _in_three_digits(dollars: float) -> str:
  return f'{float(f"{dollars:.3g}"):,.15g}'


def _seconds(numbers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """Returns what a plan takes the seconds of, in words, and their bounds."""
  if 'seconds_a_second_of_film' in numbers:
    return {'a second of film': numbers['seconds_a_second_of_film']}
  if 'samples' in numbers:  # that many at a time
    seconds = numbers['seconds']
    return {'a sample': {end: seconds[end] / numbers['samples'] for end in ('low', 'high')}}
  if 'passes' in numbers:
    return {'a step' if numbers['passes'] > 1 else 'a pass': numbers['seconds']}
  found = {}
  for each in (numbers, *numbers.get('candidates', ())[:1]):
    if 'step_seconds' in each:
      found['a step'] = each['step_seconds']
  if stage := numbers.get('stage'):
    name = 'all stages' if 'stages' in numbers else 'the stage'
    found[name] = {end: 86_400 * days for end, days in stage['days'].items()}
  return found


def _plan(
  fields: Mapping[str, Any],
  topology: str,
  *,
  mesh: Mapping[str, int] | None = None,
  bucket: str = '',
  rows: int = 0,
  remat: str = '',
  exchange: str = '',
  how: str = 'estimate',
  what: str = TRAIN,
  frames: int = 0,
  size: tuple[int, int] | None = None,
) -> Answer:
  """Plans without costs.

  Args:
    mesh: sizes of mesh axes; by default the best.
    bucket: of the samples; by default the longest.
    rows: samples a step; of sampling, those at a time, or windows a call. 0 is one a group of
      chips, or one sample.
    remat: policy; by default as configured.
    exchange: of context shards; by default as configured.
    how: 'estimate' by formula, 'compile' for TPUs that are not there, or 'search' of the best.
    what: 'train', or 'sample' of a component in `SAMPLING`.
    frames: of what an upsampler makes; 0 is 256.
    size: height and width of it; by default 1080, 1920.
  """
  check_one_of(f'how = {how!r}', how, HOW)
  check_one_of(f'what = {what!r}', what, WHAT)
  if 'stages' in fields:
    if mesh or bucket or rows or remat or exchange or how != 'estimate' or what != TRAIN:
      raise ConfigError(
        f'this is a recipe of {", ".join(fields["order"])}; its stages are planned as they are '
        'configured: give --topology and --price alone, or the configuration of one stage'
      )
    answer = plan_stages(fields, topology)
    return Answer(describe_stages(answer), answer)
  component = fields['component']
  if what == SAMPLE:
    asked = {
      'bucket': bucket,
      'exchange': exchange,
      'frames': frames,
      'size': size,
      'rows': rows,
      'compiled': how == 'compile',
      'remat': remat,
      'search': how == 'search',
    }
    given = {name: value for name, value in asked.items() if value}
    plan, describe = _find_sampling(component, given)
    answer = plan(fields, read_outline(fields), topology, mesh, **given)
    return Answer(describe(answer), answer)
  if frames or size:
    raise ConfigError(f'--frames and --size are of what is sampled; add --what={SAMPLE}')
  if find_component(component).family != 'flow model':
    if how != 'estimate' or bucket or remat or exchange:
      raise ConfigError(
        f'of {find_component(component).noun} a plan is by formula, of the longest bucket; leave '
        '--search, --compile, --bucket, --remat and --exchange away'
      )
    answer = plan_forward(fields, topology, mesh, rows)
    return Answer(describe_forward(answer), answer)
  work = make_workload(fields, read_outline(fields), bucket)
  choices = planning.Choices(mesh, rows, remat, exchange)
  if how == 'search':
    found = planning.search_plans(work, topology, choices)
    return Answer(report.describe_search(*found), report.search_as_json(*found))
  plan = planning.make_plan(work, topology, choices)
  if how == 'compile':
    plan = planning.compile_plan(fields, plan)
  return Answer(report.describe_plan(plan), report.plan_as_json(plan))


def _find_sampling(component: str, given: Mapping[str, Any]) -> tuple[Callable, Callable]:
  """Returns what plans the sampling of a component and what describes it, if it has the options."""
  if component not in SAMPLING:
    raise ConfigError(
      f'sampling of the component {component!r} is not planned; expected one of '
      f'{", ".join(SAMPLING)}, or leave --what away to plan its training'
    )
  plan, describe, able = SAMPLING[component]
  if others := [name for name in given if name not in (*able, 'rows')]:
    flags = [each.replace('compiled', 'compile') for each in (others[0], *able)]
    raise ConfigError(
      f'--{flags[0]} says nothing about sampling of the component {component!r}, which '
      f'takes --rows, --{" and --".join(flags[1:])}; leave it away'
    )
  return plan, describe
