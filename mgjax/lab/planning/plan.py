"""Plans a training step on a topology: whether it fits, and how fast it could be."""

import dataclasses
import functools
import math
import operator
from collections.abc import Mapping

from mgjax.core.errors import ConfigError
from mgjax.lab.planning.efficiency import Ends
from mgjax.lab.planning.policies import ORDER, find_policy
from mgjax.lab.planning.programs.audit import audit
from mgjax.lab.planning.programs.placement import audit_failures, group_collectives, list_kernels
from mgjax.lab.planning.search import (
  ANY,
  FREE,
  Choices,
  MeshCandidate,
  check_exchange,
  estimate,
  fits,
  ranking,
  search,
  with_collectives,
)
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import Workload
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.rules import AXES

# Samples that the report's stages see (Movie Gen Table 3), by the tokens of their longest sample.
STAGES = {'t2i_256': (256, 1.94e9), 't2iv_256': (8_192, 394.8e6), 't2iv_768': (73_728, 73.8e6)}
ROWS_PER_GROUP = (1, 2, 3, 4)  # samples for every group of chips that a search tries
ESTIMATED = 'estimated by formula'
COMPILED = 'compiled, not run'


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a configuration runs on a topology, with the other policies on the same mesh by name.

  `measured` is the compiler's own memory, GiB by kind; empty for an estimate.
  """

  work: Workload
  topology: Topology
  chosen: MeshCandidate
  policies: Mapping[str, MeshCandidate]
  notes: tuple[str, ...] = (ESTIMATED,)
  measured: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def peak_gib(self) -> float:
    """GiB on one chip: the compiler's where it was asked."""
    return self.measured.get('peak', self.chosen.peak / GIB)

  @property
  def fits(self) -> bool:
    """Whether a tenth of the memory stays free."""
    return self.free >= FREE

  @property
  def free(self) -> float:
    """The share of a chip's memory that is left.

    A compiled program gets its arguments and one block for the rest, gaps between what lives at
    different times included, which may be well above the most that lives at once.
    """
    used = self.measured.get('allocated', self.peak_gib)
    return 1 - used * GIB / self.topology.chip.memory

  def stage(self) -> tuple[str, Ends[float]] | None:
    """Returns the paper's stage that has samples of this length, and its days at both ends."""
    for name, (tokens, samples) in STAGES.items():
      if 0.8 < self.work.tokens / tokens < 1.25:
        days = samples / 86_400
        return name, self.chosen.rate.map(functools.partial(operator.truediv, days))
    return None


def make_plan(work: Workload, topology: str, choices: Choices = ANY) -> Plan:
  """Makes a plan by formula, in seconds; raises ConfigError for what does not fit together.

  Without a mesh it takes the configuration's, if all its sizes are positive and make up the
  topology, else the one that the search ranks first. Without a policy or an exchange it takes the
  configuration's own, even if another is faster or this one does not fit.
  """
  chips = parse_topology(topology)
  choices = dataclasses.replace(
    choices,
    mesh=choices.mesh or _mesh_of(work, chips),
    exchange=choices.exchange or work.exchange,
  )
  _check(work, chips, choices)
  configured = dataclasses.replace(choices, remat=choices.remat or work.remat)
  candidates = search(work, chips, configured, include_unfit=True)
  if not candidates:
    raise ConfigError(
      f'no mesh on {topology} takes {choices.rows or work.batch} rows in equal parts; '
      'give other --rows'
    )
  chosen = candidates[0]
  every = dataclasses.replace(choices, mesh=chosen.sizes, remat='')
  same = search(work, chips, every, include_unfit=True)
  policies = {candidate.remat: candidate for candidate in same}
  return Plan(work, chips, chosen, policies, notes=(ESTIMATED, *work.notes))


def _check(work: Workload, topology: Topology, choices: Choices) -> None:
  """Raises ConfigError for choices that cannot work; a search passes over them in silence."""
  exchange = choices.exchange or work.exchange
  check_exchange(exchange)
  if choices.remat:
    find_policy(choices.remat)
  if choices.mesh:
    remat = choices.remat or ORDER[0]
    estimate(work, topology, choices.mesh, remat=remat, exchange=exchange, rows=choices.rows)


def _mesh_of(work: Workload, topology: Topology) -> dict[str, int] | None:
  sizes = {axis: work.mesh.get(axis, 1) for axis in AXES}
  positive = all(size > 0 for size in sizes.values())
  return sizes if positive and math.prod(sizes.values()) == topology.devices else None


def search_plans(
  work: Workload, topology: str, choices: Choices = ANY
) -> tuple[Workload, Topology, list[MeshCandidate]]:
  """Ranks meshes, policies and exchanges by formula."""
  chips = parse_topology(topology)
  _check(work, chips, choices)
  return work, chips, search(work, chips, choices, rows_per_group=ROWS_PER_GROUP)


def compile_plan(run: FlowRun, plan: Plan) -> Plan:
  """Compiles a plan's step for its topology, without devices, and puts its numbers into the plan.

  Memory is the compiler's. If it gives its program as text, collectives are read from there. Raises
  ConfigError if the compiler of the topology's chips is not installed.
  """
  # Not above: an estimate needs no compiler.
  from mgjax.lab.planning.aot import compile_step

  work, chosen = plan.work, plan.chosen
  run = run.with_backbone(remat=chosen.remat, exchange=chosen.exchange)
  result = compile_step(run, plan.topology, chosen.sizes, work.latents, chosen.rows)
  measured = {
    'arguments': result.arguments_gib,
    'temporary': result.temporary_gib,
    'peak': result.peak_gib,
    'allocated': result.arguments_gib + result.temporary_gib,
  }
  notes = [f'{COMPILED}, in {result.seconds:.0f} s', *work.notes]
  if result.hlo is None:
    notes.append('the compiler gave no text: collectives are those of the formula')
  else:
    collectives = audit(result.hlo)
    notes += list_kernels(result.hlo, work, plan.topology)
    notes += audit_failures(collectives, work.dim**2 * work.itemsize // chosen.sizes['tensor'])
    placed = group_collectives(collectives, chosen.sizes, plan.topology)
    chosen = with_collectives(work, plan.topology, chosen, placed)
  return dataclasses.replace(plan, chosen=chosen, notes=tuple(notes), measured=measured)


def recommended_remat(plan: Plan) -> str:
  """Returns the fastest remat policy that fits the plan's mesh, with a tenth left; '' for none."""
  able = [candidate for candidate in plan.policies.values() if fits(candidate, plan.topology)]
  return min(able, key=ranking).remat if able else ''
