"""Plans a configuration of any component: by formula, by the compiler, or by search."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.planning import plan as planning
from mgjax.planning import report
from mgjax.planning.autoencoder import compile_autoencoder, describe_autoencoder
from mgjax.planning.reconstruction.training import (
  CLIP,
  describe_encoding,
  describe_reconstruction,
  plan_encoding,
  plan_reconstruction,
)
from mgjax.planning.sampling.generation import plan_generation
from mgjax.planning.sampling.report import describe_generation
from mgjax.planning.sampling.upsampling import describe_upsampling, plan_upsampling
from mgjax.planning.text_encoder import describe_encoder, plan_encoder
from mgjax.registry import section

HOW = ('estimate', 'compile', 'search')
TRAIN, SAMPLE, ENCODE = 'train', 'sample', 'encode'
# Component -> what plans its sampling, what makes text of the answer, and its options beside rows.
_GENERATION = (plan_generation, describe_generation, ('bucket', 'exchange'))
SAMPLING = {
  'upsampler': (plan_upsampling, describe_upsampling, ('frames', 'size')),
  **dict.fromkeys(('video', 'audio', 'personalization'), _GENERATION),
}


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a plan says.

  Attributes:
    text: a table for people.
    numbers: the same as plain JSON values.
  """

  text: str
  numbers: dict[str, Any]


def plan_any(
  config: ConfigDict,
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
  clips: int = 0,
) -> Answer:
  """Says whether a model fits a machine and how fast it could be.

  Args:
    config: of any component.
    topology: as 'v5p:8x8x8' or 'h100:8x64'.
    mesh: sizes of mesh axes; by default the best.
    bucket: of the samples; by default the longest.
    rows: samples a step; of sampling, those at a time, or windows a call. 0 is one a group of
      chips, or one sample.
    remat: policy; by default the fastest that fits.
    exchange: of context shards; by default as configured.
    how: 'estimate' by formula, 'compile' for TPUs that are not there, or 'search' of the best.
    what: 'train', 'sample' of a component in `SAMPLING`, or 'encode' of an autoencoder.
    frames: of what an upsampler makes, or of a clip; 0 is the component's own.
    size: height and width of it; by default the component's own.
    clips: that an autoencoder encodes.

  Raises:
    ConfigError: the component or the topology has no such plan.
  """
  if how not in HOW:
    raise ConfigError(f'how = {how!r}; expected one of {", ".join(HOW)}')
  family = section(config.component).family
  if what == SAMPLE:
    options = {'bucket': bucket, 'exchange': exchange, 'frames': frames, 'size': size}
    if remat or how == 'search':
      raise ConfigError(
        'of sampling there is nothing to search, and no remat; leave --search and --remat away'
      )
    return _plan_sampling(config, topology, mesh, rows, how == 'compile', options)
  if what == ENCODE:
    if family != 'autoencoder' or how != 'estimate' or not clips:
      raise ConfigError(
        f'--what={ENCODE} is planned by formula, of an autoencoder; take its --config and --clips, '
        'how many there are'
      )
    length, given = CLIP[0], CLIP[1:]
    answer = plan_encoding(config, topology, clips, (frames or length, *(size or given)))
    return Answer(describe_encoding(answer), answer)
  if what != TRAIN:
    raise ConfigError(f'what = {what!r}; expected {TRAIN}, {SAMPLE} or {ENCODE}')
  if clips:
    raise ConfigError(f'--clips are what is encoded; add --what={ENCODE}')
  if frames or size:
    raise ConfigError(f'--frames and --size are of what is sampled; add --what={SAMPLE}')
  if family in ('autoencoder', 'codec'):
    if how == 'estimate':
      answer = plan_reconstruction(config, topology, mesh, rows)
      return Answer(describe_reconstruction(answer), answer)
    if how == 'search' or family == 'codec':
      raise ConfigError(
        f'of {"a codec" if family == "codec" else "an autoencoder"} there is nothing to '
        f'{how}; leave --{how} away'
      )
    answer = compile_autoencoder(config, topology, mesh)
    return Answer(describe_autoencoder(answer), answer)
  if family == 'encoder':
    if how == 'search':
      raise ConfigError('of an encoder there is nothing to search; leave --search away')
    answer = plan_encoder(config, topology, mesh, compiled=how == 'compile')
    return Answer(describe_encoder(answer), answer)
  choices = planning.Choices(mesh, bucket, rows, remat, exchange)
  if how == 'search':
    found = planning.search_plans(config, topology, choices)
    return Answer(report.describe_search(*found), report.search_as_json(*found))
  plan = planning.make_plan(config, topology, choices)
  if how == 'compile':
    plan = planning.compile_plan(config, plan)
  return Answer(report.describe_plan(plan), report.plan_as_json(plan))


def _plan_sampling(
  config: ConfigDict,
  topology: str,
  mesh: Mapping[str, int] | None,
  rows: int,
  compiled: bool,
  options: Mapping[str, Any],
) -> Answer:
  if config.component not in SAMPLING:
    raise ConfigError(
      f'sampling of the component {config.component!r} is not planned; expected one of '
      f'{", ".join(SAMPLING)}, or leave --what away to plan its training'
    )
  plan, describe, able = SAMPLING[config.component]
  asked = {name: value for name, value in options.items() if value}
  if others := [name for name in asked if name not in able]:
    raise ConfigError(
      f'--{others[0]} says nothing about sampling of the component {config.component!r}, which '
      f'takes --{" and --".join(able)}; leave it away'
    )
  asked |= {'rows': rows} if rows else {}
  answer = plan(config, topology, mesh, compiled=compiled, **asked)
  return Answer(describe(answer), answer)
