"""Parameters as training might leave them: of sensible size, and none of them zero."""

import flax.linen as nn
import jax
import numpy as np


def random_parameters(init, *inputs, seed=0):
  """Draws parameters of the shapes that `init(key, *inputs)` would make, compiling nothing."""
  shapes = nn.unbox(jax.eval_shape(init, jax.random.key(0), *inputs)).get('params', {})
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise = rng.normal(size=leaf.shape).astype(leaf.dtype)
    name = path[-1].key
    if name == 'kernel':
      return noise * np.float32(leaf.shape[-2] ** -0.5)
    return 1 + noise / 10 if name == 'scale' else noise / 10

  return jax.tree_util.tree_map_with_path(draw, shapes)
