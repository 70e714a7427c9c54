"""The parameters of codecs as shapes, for which nothing is computed."""

import functools

import flax.linen as nn
import jax

from mgjax.sections.codec.section import codec_inputs


@functools.cache
def boxed_shapes(codec):
  """Shapes in the boxes that name their axes."""
  return jax.eval_shape(codec.init, jax.random.key(0), *codec_inputs(codec))['params']


def shapes(codec):
  """Shapes alone."""
  return nn.unbox(boxed_shapes(codec))
