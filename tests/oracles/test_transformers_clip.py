"""CLIP's towers against transformers: vectors made anew, its own initial weights, its files."""

import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs.text import metaclip_text, metaclip_vision
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.lab.benchmarks.forward import measure_forward
from mgjax.lab.planning.forward import read_forward
from mgjax.models.clip.towers import clip_inputs, make_clip_text, make_clip_vision
from mgjax.models.clip.weights import clip_fields, clip_rows, expected
from mgjax.models.foreign_weights.names import import_tensors
from mgjax.parallel.mesh import make_mesh
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests.oracles import clip as oracle

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')
transformers = pytest.importorskip('transformers')

pytestmark = pytest.mark.oracle

WITHIN = 3e-6
TOWERS = [*[('text', name) for name in oracle.TEXTS], *[('vision', name) for name in oracle.IMAGES]]
MAKE = {'text': make_clip_text, 'vision': make_clip_vision}


def answers(tower, name, model):
  """States that mean something, and vectors, of transformers' model: case -> both."""
  if tower == 'vision':
    found = oracle.vision_answers(name, model)
    return {'': (found['states'], found['pooled'])}
  found = oracle.text_answers(name, model)
  return {
    case: (found[f'{case}/states'][mask], found[f'{case}/pooled'])
    for case, (_, mask) in oracle.draw_prompts(name).items()
  }


def ours(tower, name, model, params):
  run = jax.jit(lambda *inputs: model.apply({'params': params}, *inputs))
  if tower == 'vision':
    return {'': run(oracle.draw_images(name))}
  found = {}
  for case, (tokens, mask) in oracle.draw_prompts(name).items():
    states, pooled = run(tokens, mask)
    found[case] = (np.asarray(states)[mask], pooled)
  return found


def compare(one, other):
  assert one.keys() == other.keys()
  for case, pair in one.items():
    for x, y in zip(pair, other[case], strict=True):
      np.testing.assert_allclose(x, y, rtol=0, atol=WITHIN, err_msg=case)


@pytest.mark.parametrize(('tower', 'name'), TOWERS)
def test_frozen_vectors_are_what_transformers_answers(tower, name):
  find = {'text': oracle.text_answers, 'vision': oracle.vision_answers}[tower]
  with np.load(oracle.VECTORS) as file:
    for key, array in find(name, oracle.make_model(tower, name).double()).items():
      array = oracle.shown(array) if tower == 'text' and key.endswith('states') else array
      np.testing.assert_allclose(file[f'{tower}/{name}/{key}'], array, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(('tower', 'name'), TOWERS)
def test_initial_weights_of_transformers_give_its_answers_in_float32(tower, name):
  torch.manual_seed(0)
  drawn = oracle.make_model(tower, name)
  theirs = type(drawn)(drawn.config).eval()
  tensors = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
  fields = {'dtype': 'float32'} | clip_fields(tower, tensors, theirs.config.to_dict())
  model = MAKE[tower](fields | ({'eos': 2} if fields.get('pooling') == 'largest' else {}))
  shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *clip_inputs(model))['params'])
  rows = clip_rows(tower, tensors)
  params, _ = import_tensors(rows, tensors, shapes, expected=expected(tower))
  compare(ours(tower, name, model, params), answers(tower, name, theirs))


def through_us(theirs, config, how, shard, folder):
  """The model again, whose files went into `run` and came out bit by bit."""
  if how == 'pickle':
    theirs.config.save_pretrained(folder / 'given')
    torch.save(theirs.state_dict(), folder / 'given/pytorch_model.bin')
  else:
    theirs.save_pretrained(folder / 'given', max_shard_size=shard if how == 'sharded' else '1GB')
    assert len(list((folder / 'given').glob('*.safetensors'))) > (how == 'sharded')
  import_weights(config, folder / 'given', folder / 'run')
  export_weights(folder / 'run', folder / 'out', 'transformers')
  again = type(theirs).from_pretrained(folder / 'out').eval()
  for key, tensor in theirs.state_dict().items():
    assert torch.equal(again.state_dict()[key], tensor), key
  return again


@pytest.mark.parametrize(('tower', 'name'), TOWERS)
@pytest.mark.parametrize('how', ['whole', 'sharded', 'pickle'])
def test_files_of_transformers_go_in_and_come_back_to_it(tower, name, how, tmp_path):
  config = {'text': metaclip_text, 'vision': metaclip_vision}[tower].get_config()
  again = through_us(oracle.make_model(tower, name), config, how, '9KB', tmp_path)
  model = MAKE[tower](read_config(tmp_path / 'run').model.to_dict() | {'dtype': 'float32'})
  params, _ = load_params(tmp_path / 'run')
  compare(ours(tower, name, model, params), answers(tower, name, again))


@pytest.mark.parametrize('module', [metaclip_text, metaclip_vision])
def test_the_rival_of_the_bench_answers_as_ours_does(module):
  config = module.get_config()
  config.model.update(dim=24, depth=2, heads=3, mlp_dim=40, projection=8, dtype='float32')
  if module is metaclip_text:
    config.model.update(vocabulary=50, positions=9, eos=49)
    config.length = 9
  else:
    config.model.update(size=12, patch=4)
  config.rows = 2
  baseline = pathlib.Path(__file__).with_name('transformers_clip.py')
  mesh, options = make_mesh(devices=jax.devices()[:1]), {'baselines': [str(baseline)], 'rounds': 1}
  report = measure_forward(read_forward(config), 'encode', mesh, **options)
  assert not report['failed'] and len(report['apart']) == 2
