"""A stack of equal layers as one scan, with a named rematerialisation policy."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.tree import named_leaves
from mgjax.nn.multihead import READ

# Activations that are saved for the backward pass, beside each layer's input. Others are
# recomputed. Weights that a mesh gathers are never saved, whatever the policy (parallel/gather.py).
SAVED = {
  'full': (),
  'attention': ('attention', 'attention_sums'),
  'attention_and_inputs': ('attention', 'attention_sums', 'attention_inputs'),
  'attention_and_projections': (
    'attention',
    'attention_sums',
    'attention_inputs',
    'projections',
    'projections_sums',
    'projections_inputs',
  ),
  'offload': ('attention_sums',),
}
# Activations that are offloaded to the host's memory instead.
OFFLOADED = ('inputs', 'attention')
REMAT = ('nothing', *SAVED)


def stack(
  layer: type[nn.Module], *, depth: int, remat: str, unroll: int = 1, tapped: bool = False
) -> type[nn.Module]:
  """Turns `layer.__call__(x, *shared) -> (x, None)` into a module of `depth` such layers.

  Parameters get a leading axis `layers`; `shared` arguments go unchanged to every layer. Compile
  time does not grow with depth.

  Args:
    remat: 'nothing' saves every activation. 'full' saves only the layers' inputs. 'attention' and
      'attention_and_projections' save those results as well. 'attention_and_inputs' also saves the
      queries, keys and values, which then cross the context axis once. 'offload' keeps the layers'
      inputs and attention in the host's memory; on a CPU it saves what 'attention' does.
    unroll: layers a scan step; `depth` removes the loop, for counting operations.
    tapped: returns the result of one layer as well. The carry is then (x, kept, number), and `kept`
      becomes the x of the layer with that number, counted from 1.

  Raises:
    ConfigError: `remat` is not a known policy.
  """
  if remat not in REMAT:
    raise ConfigError(f'unknown remat policy {remat!r}; expected one of {", ".join(REMAT)}')
  if remat != 'nothing':
    policies = jax.checkpoint_policies
    if remat == 'offload':
      policy = policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(SAVED[remat]),
        names_which_can_be_offloaded=list(OFFLOADED),
        offload_src='device',
        offload_dst='pinned_host',
      )
    else:
      policy = policies.save_only_these_names(*SAVED[remat])
    layer = nn.remat(layer, policy=policy, prevent_cse=False)
  return nn.scan(
    _tapped(layer) if tapped else layer,
    variable_axes={'params': 0, READ: 0},
    split_rngs={'params': True},
    in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]  # annotated as int in Flax
    length=depth,
    unroll=unroll,
    metadata_params={nn.PARTITION_NAME: 'layers'},
    check_constancy_invariants=False,  # the check would trace the layer once more
  )


def check_layers(module: nn.Module, depth: int) -> None:
  """Raises CheckpointError if the parameters at 'layers' of a module are not of `depth` layers.

  Call it before `stack`, whose own error speaks of scans.
  """
  layers = module.variables.get('params', {}).get('layers', {})
  for name, leaf in named_leaves(layers).items():
    if jnp.shape(leaf)[:1] != (depth,):
      path = '/'.join((*module.path, 'layers', name))
      raise CheckpointError(
        f'the weights are not of this model: {path} is of shape {jnp.shape(leaf)}, expected '
        f'{depth} layers as its first axis; use the configuration that they were trained with, or '
        'get them again'
      )


def _tapped(layer: type[nn.Module]) -> type[nn.Module]:
  class Tapped(layer):
    def __call__(self, carry, *shared):
      x, kept, number = carry
      x, _ = super().__call__(x, *shared)
      return (x, jnp.where(number == 1, x, kept), number - 1), None

  return Tapped
