"""The bench of passes: what it times, how it counts, when it trusts a baseline."""

import json

import jax
import pytest

from configs.bench.tae_cpu import get_config
from configs.text import metaclip_text, metaclip_vision, t5_base
from mgjax.lab.benchmarks.forward import measure_forward
from mgjax.lab.benchmarks.report import describe_benchmark
from mgjax.lab.planning.forward import read_forward
from mgjax.parallel.mesh import make_mesh

WIDTH, LATENT, FRAMES, SIDE = 4, 2, 2, 4


def tiny(**changes):
  config = get_config()
  config.model.update(widths=(WIDTH,), strides=(), blocks=1, groups=2, latent_channels=LATENT)
  config.buckets.video.update(frames=FRAMES, height=SIDE, width=SIDE)
  config.update_from_flattened_dict({key.replace('__', '.'): v for key, v in changes.items()})
  return config


def timed(what, config=None, devices=1, video=None, **options):
  config = config or tiny()
  mesh = make_mesh(config.mesh.to_dict(), config.rules, devices=jax.devices()[:devices])
  return measure_forward(read_forward(config, video=video), what, mesh, rounds=2, **options)


def expected_flops(what):
  """Operations for one place of one frame, by hand: no stride, so all places are alike."""

  def conv(inputs, outputs):  # over 3 x 3 places, then over 3 frames and those beyond both ends
    return 9 * inputs * outputs + (3 + 2 / FRAMES) * outputs * outputs

  block = 2 * conv(WIDTH, WIDTH)
  # Four maps, and products of queries with keys and of weights with values; of places, of frames.
  attention = 2 * 4 * WIDTH**2 + 2 * SIDE**2 * WIDTH + 2 * FRAMES * WIDTH
  middle = 2 * block + attention
  encode = conv(3, WIDTH) + block + middle + conv(WIDTH, 2 * LATENT)
  decode = conv(LATENT, WIDTH) + middle + 2 * block + 9 * WIDTH * 3
  places = FRAMES * SIDE**2
  return 2 * places * {'encode': encode, 'decode': decode}[what]


@pytest.mark.parametrize('what', ['encode', pytest.param('decode', marks=pytest.mark.slow)])
def test_numbers_of_an_autoencoder(what):
  report = json.loads(json.dumps(timed(what)))
  assert report['sizes'] == [1, FRAMES, SIDE, SIDE] and not report['failed']
  assert report['compiled_while_timed'] == 0
  assert report['peak_gib'] > 0 and report['peak_rss_mib'] > 0 and report['parameters'] > 0
  numbers = report['programs']['mgjax'][what]
  assert numbers['flops'] == expected_flops(what)
  assert 0 < numbers['min'] <= numbers['median']
  assert numbers['frames_per_second'] == pytest.approx(FRAMES / numbers['median'])
  assert numbers['samples_per_second'] == pytest.approx(1 / numbers['median'])
  assert numbers['compile_seconds'] > 0 and numbers['compiled_gib'] > 0
  text = describe_benchmark(report)
  assert f'{what} on 1 x cpu: 1 x 2 x 4 x 4, float32' in text
  assert 'frames/s' in text and report['counted'] in text


def test_devices_share_the_rows():
  report = timed('decode', video=(8, FRAMES, SIDE, SIDE), devices=8)
  assert report['devices'] == 8
  # Of all devices together.
  assert report['programs']['mgjax']['decode']['flops'] == 8 * expected_flops('decode')


@pytest.mark.parametrize(
  'module', [t5_base, metaclip_text, pytest.param(metaclip_vision, marks=pytest.mark.slow)]
)
def test_numbers_of_an_encoder(module):
  config, tokens = module.get_config(), 9
  config.model.update(dim=16, depth=2, heads=2, mlp_dim=24, dtype='float32')
  changes = {
    't5': {'vocabulary': 20, 'head_size': 8},
    'clip_text': {'vocabulary': 20, 'positions': tokens, 'eos': 19, 'projection': 8},
    'clip_vision': {'size': 6, 'patch': 2, 'projection': 8},
  }
  config.model.update(changes[config.component])
  config.rows = 4
  if config.component == 'clip_vision':
    tokens += 1
  else:
    config.length = tokens
  report = timed('encode', config, devices=2)
  assert report['sizes'] == [4, tokens] and report['devices'] == 2
  # Four maps, the two of the network, and scores with what they weigh; of both layers.
  layers = 2 * 4 * tokens * (4 * 16 * 16 + 2 * 16 * 24 + 2 * tokens * 16)
  # The vectors, and what patches go through.
  rest = 4 * 16 * 8 * (config.component != 't5') + 4 * 9 * 12 * 16 * (tokens > 9)
  numbers = report['programs']['mgjax']['encode']
  assert numbers['flops'] == 2 * (layers + rest)
  assert numbers['tokens_per_second'] == pytest.approx(4 * tokens / numbers['median'])


# `same` answers as we do; the others do not, each in another way.
BASELINE = """
import jax
import numpy as np
from mgjax.models.tae.autoencoder import make_autoencoder

WHAT = ('encode',)

def make_programs(task):
  assert task['what'] == 'encode' and task['frames'] == 2 and task['dtype'] == 'float32'
  assert task['platform'] == 'cpu' and task['threads'] > 0
  tree = jax.tree.map(jax.numpy.asarray, task['params'])
  fields = ('latent_channels', 'widths', 'strides', 'blocks', 'groups', 'patch', 'dtype')
  model = make_autoencoder({name: task[name] for name in fields})
  encode = jax.jit(lambda p, x: model.apply({'params': p}, x, method='encode').mean)
  y = np.asarray(encode(tree, jax.numpy.asarray(task['x'])))
  return {
    'same': {'encode': lambda: y},
    'almost': {'encode': lambda: y + 0.01 * np.abs(y).max()},
    'no number': {'encode': lambda: y * np.nan},
    'a frame less': {'encode': lambda: y[:, 1:]},
  }
"""
OTHER = """
WHAT = ('encode', 'decode')
DIFFERS = 'images alone'

def make_programs(task):
  return {'other': {'encode': lambda: None}}
"""


def test_only_baselines_that_give_our_results_are_timed_unless_they_say_how_they_differ(tmp_path):
  paths = [tmp_path / 'baseline.py', tmp_path / 'other.py']
  for path, text in zip(paths, (BASELINE, OTHER), strict=True):
    path.write_text(text)
  report = timed('encode', baselines=[str(path) for path in paths])
  assert list(report['baseline_over_mgjax']) == ['same', 'other']
  assert list(report['apart']) == ['same'] and report['apart']['same']['encode'] < 1e-6
  failed = report['failed']
  assert '1.0e-02 of the largest number away from ours, more than 0.0001' in failed['almost']
  assert 'nan of the largest number away' in failed['no number']
  assert failed['a frame less'] == 'encode gives (1, 1, 4, 4, 2) and ours (1, 2, 4, 4, 2)'
  text = describe_benchmark(report)
  assert 'almost failed: encode is 1.0e-02' in text and 'same / mgjax, encode' in text
  assert 'other does other work: images alone' in text


@pytest.mark.slow
def test_the_configuration_has_the_size_it_speaks_of():
  found = read_forward(get_config(), video=(1, 17, 128, 128))
  shapes = jax.eval_shape(found.init, jax.random.key(0))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 114_062_019
