"""A run that begins with the parameters of another one says which ones are its own."""

import logging
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves, nest
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import make_place
from mgjax.training.checkpoints.warm_start import make_start, start_from
from mgjax.training.checkpoints.workdir import write_workdir
from tests import tiny

THERE = {'backbone': {'kernel': jnp.full((2, 3), 5.0)}, 'text': {'bias': jnp.full(4, 6.0)}}


def here(**more):
  params = {'backbone': {'kernel': jnp.zeros((2, 3))}, 'text': {'bias': jnp.zeros(4)}}
  return {**params, **more}


def test_leaves_that_are_missing_begin_as_initialised_and_are_listed(caplog):
  face = {'in': {'kernel': jnp.full((2, 2), 7.0)}, 'scale': jnp.full(3, 8.0)}
  with caplog.at_level(logging.INFO):
    params = start_from(THERE, here(face=face))
  assert np.all(params['backbone']['kernel'] == 5) and np.all(params['text']['bias'] == 6)
  assert np.all(params['face']['in']['kernel'] == 7) and np.all(params['face']['scale'] == 8)
  assert caplog.text.count('start_from has no face: it begins as initialised') == 1
  assert '7 new parameters in 2 leaves, of 17 in all' in caplog.text
  assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_new_leaves_in_a_module_that_was_there_are_warned_of(caplog):
  params = here()
  params['backbone'] = params['backbone'] | {'norm': jnp.ones(3)}
  half = {'backbone': {'kernel': THERE['backbone']['kernel'].astype(jnp.bfloat16)}}
  found = start_from(THERE | half, params)['backbone']
  assert np.all(found['norm'] == 1) and found['kernel'].dtype == jnp.float32
  (warning,) = [record for record in caplog.records if record.levelno > logging.INFO]
  assert 'no backbone/norm (3,)' in warning.getMessage()


@pytest.mark.parametrize(
  ('there', 'said'),
  [
    ({**THERE, 'lora': {'down': jnp.zeros(2)}}, r'lora/down is \(2,\) there and absent here'),
    ({**THERE, 'text': {'bias': jnp.zeros(5)}}, r'text/bias is \(5,\) there and \(4,\) here'),
  ],
)
def test_what_does_not_fit_is_an_error(there, said):
  with pytest.raises(ConfigError, match=said):
    start_from(there, here())


def drawn(**shapes):
  numbers = np.random.default_rng(len(shapes))
  leaves = {name: jnp.float32(numbers.normal(size=shape)) for name, shape in shapes.items()}
  return nest({name.replace('__', '/'): leaf for name, leaf in leaves.items()})


VIDEO = drawn(backbone__kernel=(8, 4), backbone__norm=(4,), identity__tower__kernel=(2, 2))
CLIP = drawn(vision__patch__kernel=(8, 2), vision__norm=(2,), head=(3,))
MODEL = drawn(
  backbone__kernel=(8, 4),
  backbone__norm=(4,),
  identity__gate=(2,),
  identity__tower__norm=(2,),
  identity__tower__patch__kernel=(8, 2),
)


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('runs')
  for name, component, params in (('t2v', 'video', VIDEO), ('clip', 'clip_vision', CLIP)):
    origin = {'order': 'made'}
    write_workdir({'component': component}, params, {}, folder / name, origin=origin, frozen=True)
  return folder


def started(config, adapt=lambda params: params):
  """MODEL as it begins, and where each leaf that was read lies."""
  mesh = make_mesh({'fsdp': 4, 'data': 2}, 'fsdp')
  names = {1: ('channels',), 2: ('embed', 'hidden')}
  boxed = jax.tree.map(lambda leaf: nn.LogicallyPartitioned(leaf, names[leaf.ndim]), MODEL)
  start = make_start(config, 'video', adapt)
  assert start is not None
  read = start(make_place(boxed, mesh))
  return start_from(read, MODEL), {name: leaf.sharding for name, leaf in named_leaves(read).items()}


@pytest.mark.parametrize('as_text', [False, True])
def test_every_subtree_begins_bit_by_bit_as_the_run_that_it_comes_from(runs, as_text, caplog):
  sources = {'identity/tower': f'{runs}/clip:vision', '': f'{runs}/t2v'}
  text = f'{runs}/t2v,identity/tower={runs}/clip:vision'
  with caplog.at_level(logging.INFO):
    params, places = started(text if as_text else ConfigDict(sources))
  found, model = tiny.bits(params), tiny.bits(MODEL)
  assert found.keys() == model.keys()
  assert found['identity/gate'] == model['identity/gate']
  assert found.items() >= tiny.bits({'backbone': VIDEO['backbone']}).items()
  assert found.items() >= tiny.bits({'identity': {'tower': CLIP['vision']}}).items()
  # Straight from disk to the shards of this model's leaf, whatever it was called there.
  assert not places['identity/tower/patch/kernel'].is_fully_replicated
  assert f'identity/tower from {runs}/clip:vision: 18 parameters in 2 leaves' in caplog.text
  assert 'start_from has no identity/gate (2,): it begins as initialised' in caplog.text


def test_what_adapts_a_whole_model_sees_no_subtree(runs):
  seen = []
  adapt = lambda params: seen.append(set(named_leaves(params))) or params  # noqa: E731
  started({'backbone': f'{runs}/t2v:backbone', 'identity/tower': f'{runs}/clip:vision'}, adapt)
  assert seen == []
  started({'': f'{runs}/t2v', 'identity/tower': f'{runs}/clip:vision'}, adapt)
  assert seen == [set(named_leaves(VIDEO))]


@pytest.mark.parametrize(
  ('sources', 'said'),
  [
    ({'': 'clip'}, "trained 'clip_vision', not 'video'"),
    ({'identity/towr': 'clip:vision'}, "no 'identity/towr'; did you mean identity/tower?"),
    ({'identity/tower': 'clip'}, "there and absent here (it has no 'identity/tower/head'"),
    ({'identity/tower': 'clip:visoin'}, "no parameters 'visoin'; did you mean vision?"),
    ({'backbone/norm': 'clip:vision/norm'}, 'backbone/norm is (2,) there and (4,) here'),
    ({'backbone': ''}, "has '' for 'backbone'; expected"),
  ],
)
def test_sources_that_do_not_fit_are_named(runs, sources, said):
  assert make_start('', 'video') is None and make_start({}, 'video') is None
  sources = {key: f'{runs}/{value}' if value else value for key, value in sources.items()}
  with pytest.raises(ConfigError) as refused:
    started(sources)
  assert said in str(refused.value)
