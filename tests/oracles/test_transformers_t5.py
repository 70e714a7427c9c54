"""The T5 family against transformers: vectors made anew, its own initial weights, its files."""

import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs.text import t5_base
from mgjax.lab.benchmarks.forward import measure_forward
from mgjax.lab.planning.forward import read_forward
from mgjax.models.foreign_weights.names import import_tensors
from mgjax.models.text.t5 import buckets_of, make_t5, t5_inputs
from mgjax.models.text.t5_weights import EXPECTED, t5_fields, t5_rows
from mgjax.parallel.mesh import make_mesh
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests.oracles import t5 as oracle

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')
transformers = pytest.importorskip('transformers')

from tests.oracles.test_transformers_clip import through_us  # noqa: E402

pytestmark = pytest.mark.oracle

WITHIN = 1e-5


@pytest.mark.parametrize('name', oracle.MODELS)
def test_frozen_vectors_are_what_transformers_answers(name):
  encoder = oracle.make_model(name).double()
  with np.load(oracle.VECTORS) as file:
    for length in oracle.LENGTHS:
      states = oracle.shown(oracle.answer(encoder, *oracle.draw_tokens(name, length)))
      np.testing.assert_allclose(file[f'{name}/{length}'], states, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('length', oracle.LENGTHS)
@pytest.mark.parametrize('name', oracle.MODELS)
def test_initial_weights_of_transformers_give_its_states_in_float32(name, length):
  torch.manual_seed(0)
  config = oracle.make_config(name)
  theirs = type(oracle.make_model(name))(config).eval()
  tensors = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
  fields = t5_fields(tensors, config.to_dict())
  encoder = make_t5(fields | {'dtype': 'float32'})
  shapes = nn.unbox(jax.eval_shape(encoder.init, jax.random.key(0), *t5_inputs())['params'])
  params, _ = import_tensors(t5_rows(fields), tensors, shapes, expected=EXPECTED)
  tokens, mask = oracle.draw_tokens(name, length)
  ours = jax.jit(encoder.apply)({'params': params}, tokens, mask)
  expected = oracle.answer(theirs, tokens, mask)
  np.testing.assert_allclose(np.asarray(ours)[mask], expected[mask], rtol=0, atol=WITHIN)


@pytest.mark.parametrize('table', [(32, 128), (64, 128), (32, 20), (16, 512), (128, 777)])
def test_distances_fall_into_the_same_buckets(table):
  place = torch.arange(2500)
  bucket = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
  theirs = bucket(place[None] - place[:, None], True, *table)
  np.testing.assert_array_equal(buckets_of(2500, *table), theirs.numpy())


@pytest.mark.parametrize('name', ['t5_base', 'umt5'])
@pytest.mark.parametrize('how', ['whole', 'sharded', 'pickle'])
def test_files_of_transformers_go_in_and_come_back_to_it(name, how, tmp_path):
  again = through_us(oracle.make_model(name), t5_base.get_config(), how, '5KB', tmp_path)
  tokens, mask = oracle.draw_tokens(name, 7)
  encoder = make_t5(read_config(tmp_path / 'run').model.to_dict() | {'dtype': 'float32'})
  ours = jax.jit(encoder.apply)({'params': load_params(tmp_path / 'run')[0]}, tokens, mask)
  expected = oracle.answer(again, tokens, mask)
  np.testing.assert_allclose(np.asarray(ours)[mask], expected[mask], rtol=0, atol=WITHIN)


def test_the_rival_of_the_bench_answers_as_ours_does():
  config = t5_base.get_config()
  config.model.update(oracle.MODELS['umt5'], dtype='float32')
  config.rows, config.length = 2, 9
  baseline = pathlib.Path(__file__).with_name('transformers_t5.py')
  mesh, options = make_mesh(devices=jax.devices()[:1]), {'baselines': [str(baseline)], 'rounds': 1}
  report = measure_forward(read_forward(config), 'encode', mesh, **options)
  assert not report['failed'] and len(report['apart']) == 2
