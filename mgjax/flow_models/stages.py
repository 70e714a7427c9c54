"""Adapts weights to the next training stage (Movie Gen §3.2.2, §3.7)."""

from mgjax.backbone.position import grow_positions
from mgjax.core.typing import Tree


def grow(params: Tree, positions: tuple[int, int, int]) -> Tree:
  """Returns the parameters of a `FlowModel` with position tables stretched to `positions`.

  All else is the same array: from 256 px images to 256 px joint the spatial tables double, from
  256 px to 768 px they triple, from there to images of 1024 px they grow by 4 / 3.
  """
  backbone = params['backbone']
  grown = grow_positions(backbone['positions'], positions)
  return {**params, 'backbone': {**backbone, 'positions': grown}}
