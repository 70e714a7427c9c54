"""What transformers' CLIP towers answered, and ours with the same weights."""

import functools
import json

import flax.linen as nn
import jax
import numpy as np

from mgjax.models.clip.towers import clip_inputs, make_clip_text, make_clip_vision
from mgjax.models.clip.weights import clip_fields, clip_rows
from mgjax.models.foreign_weights.names import import_tensors
from tests.oracles import clip as oracle


@functools.cache
def vectors(tower, name):
  """The answers, transformers' config and the shapes of its tensors."""
  with np.load(oracle.VECTORS) as file:
    start = f'{tower}/{name}/'
    found = {key.removeprefix(start): file[key] for key in file if key.startswith(start)}
  return found | json.loads(str(found.pop('about')))


def tensors_of(tower, name):
  shapes = vectors(tower, name)['shapes']
  return {key: oracle.draw(key, tuple(shape)) for key, shape in shapes.items()}


def make(tower, fields):
  """The module that fields describe, in float32, and the shapes of its parameters."""
  end = {'eos': 2} if tower == 'text' else {}
  makers = {'text': make_clip_text, 'vision': make_clip_vision}
  model = makers[tower]({'dtype': 'float32'} | end | fields)
  init = jax.eval_shape(model.init, jax.random.key(0), *clip_inputs(model))
  return model, nn.unbox(init['params'])


@functools.cache
def imported(tower, name):
  """The tower with transformers' weights, as they would be imported."""
  tensors = tensors_of(tower, name)
  model, shapes = make(tower, clip_fields(tower, tensors, vectors(tower, name)['config']))
  params, left_out = import_tensors(clip_rows(tower, tensors), tensors, shapes, expected='those')
  assert not left_out
  return model, params
