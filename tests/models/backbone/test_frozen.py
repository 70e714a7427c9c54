"""The whole backbone against the frozen answers of a float64 twin (tests/oracles/backbone.py).

Between them they use every operation: SiLU and shared table of the modulation, norms with their
epsilon, three position tables, the mask of the context, tokens and vector.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.ports import Ports
from tests.oracles.backbone import COMMON, MODELS, TIMES, VECTORS, answer, inputs
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
# Of the root of the mean square. The roundings of each layer, and as many around them
# (tests/models/backbone/test_transformer.py), add like their square root. So do those of the time's
# 128 angles 1000 t w_i, each of which is rounded twice: the mean of w_i^2 is 1 / (8 ln 10).
ANGLES = 1000 * max(TIMES) / math.sqrt(8 * math.log(10))
TOLERANCE = (math.sqrt((COMMON['depth'] + 1) * 400) + ANGLES) * EPS


def rms(a):
  return np.sqrt(np.mean(np.square(np.asarray(a, np.float64))))


def read(name):
  data = {key: jnp.asarray(array) for key, array in inputs(name).items()}
  return data.pop('x'), data.pop('time'), Ports(**data)


@functools.cache
def parameters(name):
  return random_parameters(Transformer(**MODELS[name]).init, *read(name))


@pytest.mark.parametrize('name', MODELS)
def test_the_backbone_answers_what_its_twin_answered(name):
  expected = np.load(VECTORS)[name]
  y = jax.jit(Transformer(**MODELS[name]).apply)({'params': parameters(name)}, *read(name))
  assert rms(y - expected) < TOLERANCE * rms(expected)


@pytest.mark.parametrize('name', MODELS)
def test_the_twin_is_the_one_that_made_the_vector(name):
  expected = np.load(VECTORS)[name]
  y = answer(name, parameters(name))
  np.testing.assert_allclose(y, expected, atol=EPS * np.abs(expected).max(), rtol=0)
