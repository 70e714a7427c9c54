"""The bench: what it times, how it counts, what it does when memory or a baseline fails."""

import json

import jax
import pytest

from configs.bench.cpu import get_config as cpu
from configs.bench.h200 import get_config as h200
from mgjax.core.errors import ConfigError
from mgjax.lab.benchmarks import flow_model
from mgjax.lab.benchmarks.flow_model import measure_flow_model
from mgjax.lab.benchmarks.programs import WHAT, make_programs
from mgjax.lab.benchmarks.report import describe_benchmark, rates
from mgjax.lab.planning.step_spec import FlowRun, make_flow_step_spec
from mgjax.lab.planning.workload import make_workload
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.flops import backbone_flops
from mgjax.parallel.chips import Chip, find_chip
from mgjax.parallel.mesh import make_mesh

ORACLES = 'tests/oracles'
PROGRAMS = {
  'step': ['step'],
  'forward': ['forward'],
  'blocks': ['forward', 'forward_backward'],
  'attention': ['forward', 'forward_backward'],
  'sample': ['guided_step', 'sample'],
}
# The bucket's rows, tokens and latents, the model's width, the text's length.
ROWS, TOKENS, LATENTS, WIDTH, CONTEXT = 8, 8, (2, 4, 4, 16), 16, 7


def tiny(**changes):
  config = cpu()
  config.model.update(dim=WIDTH, depth=2, heads=2, mlp_dim=32, positions=(4, 4, 4))
  config.model.conditionings.text.update(width=8, depth=1, length=CONTEXT)
  config.buckets.video.update(frames=16, height=32, width=32, batch_size=ROWS)
  config.update_from_flattened_dict({key.replace('__', '.'): v for key, v in changes.items()})
  return config


def workload(config):
  return make_workload(FlowRun.of(config))


def one_device():
  return jax.devices()[:1]


def timed(what, config=None, devices=None, **options):
  config = config or tiny()
  mesh = make_mesh(config.mesh.to_dict(), config.rules, devices=devices or one_device())
  return measure_flow_model(FlowRun.of(config), what, mesh, rounds=2, **options)


def expected_flops(what, tokens=TOKENS, latents=LATENTS):
  """Operations of each program; those of the layers by hand, with L = 2."""
  backbone = make_flow_model(tiny().model.to_dict()).backbone
  forward = backbone_flops(backbone, (ROWS, *latents), CONTEXT).forward
  attention = 4 * tokens**2 * WIDTH
  square, mlp_dim = WIDTH**2, WIDTH * 32
  # Six maps of tokens and three of the FFN, two of the context, self- and cross-attention.
  linear = 2 * tokens * (6 * square + 3 * mlp_dim) + 4 * CONTEXT * square
  layers = 2 * (linear + attention + 4 * tokens * CONTEXT * WIDTH)
  return {
    'step': {'step': 3 * forward},
    'forward': {'forward': forward},
    'blocks': {'forward': ROWS * layers, 'forward_backward': 3 * ROWS * layers},
    'attention': {'forward': ROWS * attention, 'forward_backward': 3 * ROWS * attention},
  }[what]


@pytest.mark.parametrize('what', WHAT)
def test_numbers_of_everything_that_can_be_timed(what):
  report = json.loads(json.dumps(timed(what)))
  assert report['latents'] == [ROWS, *LATENTS]
  assert report['tokens_per_sample'] == TOKENS
  assert report['layers'] == (0 if what == 'attention' else 2)
  assert list(report['programs']) == ['mgjax'] and not report['failed']
  assert report['compiled_while_timed'] == 0
  assert report['peak_gib'] > 0 and report['peak_rss_mib'] > 0
  assert 'attention counted' in report['counted']
  ours = report['programs']['mgjax']
  assert list(ours) == PROGRAMS[what]
  assert {name: numbers['flops'] for name, numbers in ours.items()} == expected_flops(what)
  for numbers in ours.values():
    assert 0 < numbers['min'] <= numbers['median']
    assert numbers['samples_per_second'] == pytest.approx(ROWS / numbers['median'])
    assert numbers['tokens_per_second'] == pytest.approx(ROWS * TOKENS / numbers['median'])
    assert numbers['tflops_per_second'] == pytest.approx(
      numbers['flops'] / numbers['median'] / 1e12
    )
    assert numbers['mfu'] is None and numbers['compile_seconds'] > 0
    assert numbers['compiled_gib'] * 1024 >= numbers['temporary_mib']
  text = describe_benchmark(report)
  assert 'no peak is known' in text and report['counted'] in text
  assert all(program in text for program in ours)


MESHES = {'fsdp': {'slice': 2, 'fsdp': 4}, 'fsdp_tp_cp': {'fsdp': 2, 'context': 2, 'tensor': 2}}


@pytest.mark.parametrize(
  ('what', 'rules'),
  [
    pytest.param('step', 'fsdp', marks=pytest.mark.slow),
    ('blocks', 'fsdp_tp_cp'),
    pytest.param('attention', 'fsdp_tp_cp', marks=pytest.mark.slow),
  ],
)
def test_devices_of_a_mesh_share_what_is_timed(what, rules):
  config = tiny(rules=rules)
  config.mesh = MESHES[rules]
  latents = (1, 4, 6, 16)  # 6 tokens, which four devices cannot share equally
  report = timed(what, config, latents=(ROWS, *latents), devices=jax.devices())
  assert report['devices'] == 8 and report['tokens_per_sample'] == 6
  assert {axis: size for axis, size in report['mesh'].items() if size > 1} == MESHES[rules]
  assert report['compiled_while_timed'] == 0
  programs = report['programs']['mgjax']
  # Of all devices together, and not of the tokens that fill up.
  flops = {name: numbers['flops'] for name, numbers in programs.items()}
  assert flops == expected_flops(what, tokens=6, latents=latents)


def test_utilisation_is_operations_over_time_and_peak():
  chip = Chip('made', flops=2e12, memory=1e9, memory_bandwidth=1e9, link=1e9)
  found = rates(0.5, int(3e12), tokens=100, rows=4, devices=6, chip=chip)
  expected = {'tokens_per_second': 200.0, 'samples_per_second': 8.0, 'tflops_per_second': 6.0}
  assert found == pytest.approx(expected | {'mfu': 0.5})


def test_a_peak_is_known_of_whole_names_alone():
  assert find_chip('NVIDIA H200').flops == 989e12
  assert find_chip('TPU v5 lite').name == 'v5e'
  for other in ('NVIDIA GH200 480GB', 'NVIDIA H200 NVL', 'NVIDIA H100', 'cpu'):
    assert find_chip(other) is None


def test_jax_own_attention_takes_turns_with_ours():
  report = timed('attention', baselines=['jax.nn'])
  theirs = report['programs']['jax.nn xla']  # cuDNN's on a GPU
  assert list(theirs) == PROGRAMS['attention']
  for name, numbers in theirs.items():
    ratio = report['baseline_over_mgjax']['jax.nn xla'][name]['min']
    assert ratio == pytest.approx(numbers['min'] / report['programs']['mgjax'][name]['min'])
  assert report['compiled_while_timed'] == 0
  assert 'jax.nn xla / mgjax, forward' in describe_benchmark(report)


BASELINE = """
WHAT = ('attention',)

def make_programs(task):
  assert task['what'] == 'attention' and task['platform'] == 'cpu' and task['threads'] > 0
  assert task['latents'] == (8, 2, 4, 4, 16) and task['grid'] == (2, 2, 2)
  assert task['context'] == 7 and task['heads'] == 2 and task['dtype'] == 'float32'
  def fail():
    raise RuntimeError('CUDA out of memory')
  return {
    'quick': {'forward': lambda: None, 'forward_backward': lambda: None},
    'large': {'forward': fail},
  }
"""


def test_a_baseline_that_fails_stops_nobody(tmp_path):
  path = tmp_path / 'baseline.py'
  path.write_text(BASELINE)
  broken = tmp_path / 'broken.py'
  broken.write_text("WHAT = ('attention',)\ndef make_programs(task):\n  raise ValueError('no GPU')")
  report = timed('attention', baselines=[str(path), str(broken)])
  assert list(report['programs']) == ['mgjax', 'quick']
  assert report['failed'] == {'large': 'CUDA out of memory', str(broken): 'no GPU'}
  assert 'large failed: CUDA out of memory' in describe_benchmark(report)


def out_of_memory_above(depth, monkeypatch):
  """Makes programs of more layers than `depth` too large."""
  real = flow_model.make_programs

  def make_programs(what, spec, *rest):
    if spec.model.backbone.depth > depth:
      raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.')
    return real(what, spec, *rest)

  monkeypatch.setattr(flow_model, 'make_programs', make_programs)


@pytest.mark.slow
def test_layers_are_halved_until_they_fit(monkeypatch):
  out_of_memory_above(1, monkeypatch)
  report = timed('blocks', layers=0)
  assert report['layers'] == 1 and report['layers_configured'] == 2
  assert report['notes'][0].startswith('2 layers were out of memory')
  assert report['programs']['mgjax']['forward']['flops'] == expected_flops('blocks')['forward'] / 2
  assert '1 of 2 layers' in describe_benchmark(report)


def test_out_of_memory_says_what_to_do(monkeypatch):
  out_of_memory_above(0, monkeypatch)
  with pytest.raises(ConfigError, match=r'out of memory with 2 layers .*take --layers=0'):
    timed('blocks')
  with pytest.raises(ConfigError, match='not even one layer fits'):
    timed('blocks', layers=0)


def test_configurations_have_the_sizes_they_speak_of():
  work = workload(cpu())
  assert (cpu().buckets.video.batch_size, work.tokens, work.latents) == (2, 1024, (4, 32, 32, 16))
  for tokens in (73_728, 8_192):
    work = workload(h200(str(tokens)))
    assert (work.tokens, work.dim, work.heads, work.mlp_dim) == (tokens, 6144, 48, 16384)
  with pytest.raises(ConfigError, match='expected one of 73728, 8192'):
    h200('1')


def test_the_30b_layers_are_programs_for_a_gpu_without_one():
  config = h200('73728')
  config.model.depth = 4
  work, mesh = workload(config), make_mesh(config.mesh.to_dict(), 'single', devices=one_device())
  with jax.set_mesh(mesh):
    spec = make_flow_step_spec(FlowRun.of(config), work.latents[-1])
    programs = make_programs('blocks', spec, (1, *work.latents), work.context, mesh)
    traced = jax.jit(programs.programs['forward_backward']).trace(*programs.shapes)
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert programs.parameters == pytest.approx(4 * 604e6, rel=1e-3)  # 8 d^2 + 3 d f a layer
  # 10.2 PFLOP a sample.
  assert programs.flops['forward'] == pytest.approx(4 / 48 * 10.20e15, rel=0.005)
  assert text.count('cudnn') >= 3  # self-attention forward and backward, and cross-attention


@pytest.mark.oracle
@pytest.mark.parametrize(
  ('baseline', 'what', 'remat', 'dtype'),
  [
    ('torch_attention', 'attention', 'nothing', 'bfloat16'),
    ('torch_backbone', 'step', 'full', 'float32'),
    ('torch_backbone', 'blocks', 'nothing', 'float32'),
    ('torch_backbone', 'blocks', 'attention', 'bfloat16'),
    ('torch_backbone', 'sample', 'nothing', 'float32'),
  ],
)
def test_torch_takes_turns_with_ours(baseline, what, remat, dtype):
  pytest.importorskip('torch')
  config = tiny(model__remat=remat, model__dtype=dtype)
  report = timed(what, config, baselines=[f'{ORACLES}/{baseline}.py'])
  assert not report['failed']
  (name,) = report['baseline_over_mgjax']
  assert name.startswith('PyTorch') and list(report['programs'][name]) == PROGRAMS[what]


@pytest.mark.parametrize('what', ['blocks', 'attention'])
@pytest.mark.slow
def test_windows_of_tiles_are_timed_where_they_are_configured(what):
  windows = tiny(model__tile=(1, 1, 1), model__window=(1, 1, 1))  # of 8 keys a query reads one
  near, whole = (timed(what, config)['programs']['mgjax']['forward'] for config in (windows, None))
  # 4 L b n (n - 1) d, with the layers that there are.
  each = 4 * (2 if what == 'blocks' else 1) * ROWS * TOKENS * WIDTH
  assert whole['flops'] - near['flops'] == (TOKENS - 1) * each
  chosen = tiny(model__tile=(1, 1, 1), model__window=(1, 1, 1), model__chosen=2)
  more = timed(what, chosen)['programs']['mgjax']['forward']['flops'] - near['flops']
  assert more == (2 + (2 * TOKENS if what == 'blocks' else 0)) * each  # and means of all tiles
