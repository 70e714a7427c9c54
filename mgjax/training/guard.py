"""The update guard: skips updates with non-finite or spiking gradients, inside the jitted step.

A step is bad if its loss or a norm of its gradients is not finite, or if a norm is a spike
(`UpdateGuard.spike`). A bad step does not change parameters, optimizer, average and discriminator
by a bit. It counts as a step, and the data continue. After more bad steps in a row than allowed,
the guard skips all later steps, so the host finds the parameters that failed whenever it checks. A
parameter that is not finite makes every loss so. One that no loss reads is found when norms are
reported and before a state is saved: reading all parameters in every step would cost more than
the guard.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Magnitude, check
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Array, Metrics, Tree

HORIZON = 100  # steps over which norms are averaged
WARM_UP = 20  # good steps before any norm is called a spike


@dataclasses.dataclass(frozen=True)
class UpdateGuard:
  """Which updates are skipped: `train.faults` of a configuration.

  Attributes:
    skip: the most bad steps in a row that are skipped; one more ends the run.
    spike: a norm of gradients is a spike above this multiple of its running mean; 0 for never.
  """

  skip: Count = 10
  spike: Magnitude = 0.0

  def __post_init__(self):
    check(self)
    if self.spike and not self.spike > 1:
      raise ConfigError(f'spike = {self.spike}; expected a factor above 1, or 0 for none')


@flax.struct.dataclass
class SkipCounters:
  """Counts of steps (int32 scalars) and running means of the guard, part of the state.

  `in_a_row` are the bad steps since the last good one, `taken` the good ones so far; `norms` are
  float32 scalars by name, over good steps.
  """

  skipped: Array
  in_a_row: Array
  taken: Array
  norms: dict[str, Array]


def start_counters(adversarial: bool = False) -> SkipCounters:
  """Returns the counters before the first step."""
  names = ('gradient_norm', *(('discriminator_gradient_norm',) if adversarial else ()))
  # Arrays of their own: all are donated.
  skipped, in_a_row, taken = (jnp.zeros((), jnp.int32) for _ in range(3))
  norms = {name: jnp.zeros((), jnp.float32) for name in names}
  return SkipCounters(skipped, in_a_row, taken, norms)


class Verdict(NamedTuple):
  """The result of `check_update`. Without a guard `good` is None.

  `metrics` are norms of gradients, in all and by group. With a guard they have `skipped` (1 if the
  step was bad), `stopped` (1 if all later steps are skipped), counts and running means.
  """

  good: Array | None
  counters: SkipCounters | None
  metrics: Metrics


def check_update(
  guard: UpdateGuard | None,
  counters: SkipCounters | None,
  loss: Array,
  gradients: Mapping[str, Tree],
) -> Verdict:
  """Decides whether to make an update. Without a guard it allows all, and counts nothing.

    mean <- mean + (norm - mean) max(1 / (taken + 1), 1 / HORIZON)    over good steps

  The loss includes that of the discriminator, if there is one. The keys of `gradients` are the
  prefixes of their norms: '' and 'discriminator_'.
  """
  norms = {f'{prefix}gradient_norm': optax.tree.norm(tree) for prefix, tree in gradients.items()}
  groups = {
    name: norm
    for prefix, tree in gradients.items()
    for name, norm in norms_by_group(f'{prefix}gradient_norm', tree).items()
  }
  if guard is None or counters is None:
    return Verdict(None, counters, norms | groups)
  good = jnp.isfinite(loss) & (counters.in_a_row <= guard.skip)
  for name, norm in norms.items():
    good &= jnp.isfinite(norm)
    if guard.spike:
      mean = counters.norms[name]  # 0 of a discriminator that has not started to learn
      good &= (norm <= guard.spike * mean) | (mean == 0) | (counters.taken < WARM_UP)
  gain = jnp.maximum(1 / (counters.taken + 1), 1 / HORIZON)
  means = {
    name: jnp.where(good, mean + gain * (norms[name] - mean), mean)
    for name, mean in counters.norms.items()
  }
  bad = 1 - good.astype(jnp.int32)
  in_a_row = (counters.in_a_row + 1) * bad
  counters = SkipCounters(counters.skipped + bad, in_a_row, counters.taken + 1 - bad, means)
  counted = {
    'skipped': bad,
    'stopped': (in_a_row > guard.skip).astype(jnp.int32),
    'skipped_in_a_row': in_a_row,
    'skipped_steps': counters.skipped,
    **{f'running_{name}': mean for name, mean in means.items()},
  }
  return Verdict(good, counters, norms | groups | counted)


def apply_if(good: Array | None, update: Callable[[Tree], Tree], state: Tree) -> Tree:
  """Returns update(state) if a step is good or there is no guard, else the state.

  This is a while loop of one iteration or none, which updates its carry in place. With `cond` on
  GPUs, or `where` on CPUs, programs hold the old state and the new one at once.
  """
  if good is None:
    return update(state)

  def once(carried: tuple[Array, Tree]) -> tuple[Array, Tree]:
    return jnp.zeros_like(good), update(carried[1])

  return jax.lax.while_loop(lambda carried: carried[0], once, (good, state))[1]


def parameter_norms(state: Tree) -> Metrics:
  """Returns the norms of a state's parameters by group, the discriminator's too."""
  norms = norms_by_group('parameter_norm', state.params)
  if state.discriminator is not None:
    norms |= norms_by_group('discriminator_parameter_norm', state.discriminator['params'])
  return norms


def momentary(name: str) -> bool:
  """Says whether a metric is reported by its last value instead of its mean over steps.

  That saves fetching the many norms by group at every step.
  """
  return '_norm/' in name or name.startswith('running_') or name == 'skipped_steps'


def norms_by_group(name: str, tree: Tree) -> Metrics:
  """Returns the norms of parameters or gradients by group: the first two parts of their names."""
  groups: dict[str, list[Array]] = {}
  for leaf_name, leaf in named_leaves(tree).items():
    groups.setdefault('/'.join(leaf_name.split('/')[:2]), []).append(leaf)
  return {f'{name}/{group}': optax.tree.norm(leaves) for group, leaves in groups.items()}


def reopened(counters: SkipCounters, guard: UpdateGuard) -> SkipCounters:
  """Returns counters for a resumed run, so that a smaller `skip` does not end it at once."""
  return dataclasses.replace(counters, in_a_row=jnp.minimum(counters.in_a_row, guard.skip))
