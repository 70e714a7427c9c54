"""A flow model: the backbone and whatever conditions it (Movie Gen §3.1, §6), and its stages."""

import flax.linen as nn
import jax.numpy as jnp

from mgjax.core.errors import DataError
from mgjax.core.typing import Array, Batch, Drop, Float, Tree
from mgjax.models.backbone.convolutions import Convolutions
from mgjax.models.backbone.position import grow_positions
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.contract import Conditioning, Latents
from mgjax.models.conditioning.ports import Ports, combine
from mgjax.models.flow_model.alignment import Projector
from mgjax.models.wan.transformer import WanTransformer
from mgjax.nn.patch import grid


class FlowModel(nn.Module):
  """u(X_t, P, t): velocity of latents under the conditions that a batch carries.

  Of videos and of sound, which is a video of one pixel: latents (b t 1 1 c) in patches of one.

  Attributes:
    backbone: the transformer, which knows ports only.
    conditionings: each is named (`name='text'`), and its parameters, its dropout and its guidance
      scale go by that name.
    alignment: makes features of tokens that are tapped, where training aligns them.
  """

  # Convolutions of a discriminator.
  backbone: Transformer | WanTransformer | Convolutions
  conditionings: tuple[Conditioning, ...] = ()
  alignment: Projector | None = None
  # Or Linen would call the first one 'conditionings_0', and no dropout would ever find 'text'.
  preserve_adopted_names = True

  def __call__(
    self,
    x: Float[Array, 'b t h w c'],
    time: Float[Array, ' b'],
    batch: Batch,
    drop: Drop,
    tap: int | None = None,
  ) -> Float[Array, 'b t h w c'] | tuple[Float[Array, 'b t h w c'], Float[Array, 'b n d']]:
    """Returns the velocity; a conditioning that `drop` does not name is never dropped.

    With `tap` it also returns the tokens behind that layer of the backbone, counted from 1, or what
    `alignment` makes of them.
    Raises DataError if the batch lacks what a conditioning requires.
    """
    return self.velocity(x, time, self.read(batch, drop, len(x), x.shape[1:]), tap)

  def velocity(
    self,
    x: Float[Array, 'b t h w c'],
    time: Float[Array, ' b'],
    ports: Ports,
    tap: int | None = None,
  ) -> Float[Array, 'b t h w c'] | tuple[Float[Array, 'b t h w c'], Float[Array, 'b n d']]:
    """Returns the velocity under conditions that were read; `tap` as in `__call__`."""
    output = self.backbone(x, time, ports, tap)
    if tap is None:
      return _added(output, ports)
    velocity, tokens = output
    if self.alignment is not None:
      tokens = self.alignment(tokens, grid(x.shape, self.backbone.patch))
    return _added(velocity, ports), tokens

  def read(self, batch: Batch, drop: Drop, rows: int, latents: Latents) -> Ports:
    """Returns what the conditionings say of a batch; neither x nor the time are in it.

    Raises DataError as `__call__`.
    """
    ports: list[Ports] = []
    keep = jnp.zeros(rows, bool)
    for conditioning in self.conditionings:
      missing = [key for key in conditioning.requires(latents) if key not in batch]
      if missing and not conditioning.optional:
        raise DataError(
          f'conditioning {conditioning.name!r} requires {missing}, the batch has {sorted(batch)}'
        )
      ports.append(conditioning(batch, drop.get(conditioning.name, keep), latents))
    return combine(ports)


def _added(velocity: Array, ports: Ports) -> Array:
  return velocity if ports.answer is None else velocity + ports.answer.astype(velocity.dtype)


def grow(params: Tree, positions: tuple[int, int, int]) -> Tree:
  """Adapts a `FlowModel` to the next stage (§3.2.2, §3.7): stretches its position tables.

  All else is the same array. The spatial tables double from images to joint training at 256 px, and
  triple from there to 768 px. For images of 1024 px they grow by 4 / 3.
  """
  backbone = params['backbone']
  if 'positions' not in backbone:  # rotary
    return params
  grown = grow_positions(backbone['positions'], positions)
  return {**params, 'backbone': {**backbone, 'positions': grown}}
