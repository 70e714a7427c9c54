"""Steps compiled for TPUs and GPUs that are not there: what fits, what travels, and what waits."""

import re

import pytest

from configs.video import t2iv_768
from mgjax.lab.planning import aot
from mgjax.lab.planning import plan as planning
from mgjax.lab.planning.programs.gpu_targets import TARGETS
from mgjax.lab.planning.programs.placement import list_kernels
from mgjax.lab.planning.report import plan_as_json
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_workload
from mgjax.parallel.chips import find_chip, parse_topology


def needs_compiler(topology):
  pytest.importorskip('jax_plugins.xla_cuda13' if topology.startswith('h100') else 'libtpu')


def small():
  """Two layers of the 30B model's form, with tokens enough for the accelerator's own kernel."""
  config = t2iv_768.get_config('30b')
  config.model.update(dim=2048, depth=2, heads=16, mlp_dim=4096)
  config.model.conditionings.text.update(width=256, depth=1, heads=2, length=128)
  config.buckets = {
    'video': {'frames': 64, 'height': 256, 'width': 256, 'batch_size': 4, 'weight': 1}
  }
  return config


def planned(config, topology, choices):
  work = make_workload(FlowRun.of(config))
  return planning.make_plan(work, topology, choices)


def compiled(config, topology, choices):
  return plan_as_json(planning.compile_plan(FlowRun.of(config), planned(config, topology, choices)))


def by_kind(answer, what):
  return {
    (each['kind'], each['asynchronous']) for each in answer['collectives'] if each['what'] == what
  }


@pytest.mark.parametrize(
  ('topology', 'exchange'),
  [('v5e:4x4', 'ulysses'), ('v6e:4x4', 'ring'), ('h100:8x2', 'ulysses'), ('h100:8x2', 'ring')],
)
@pytest.mark.tpu_aot
def test_weights_are_gathered_in_bfloat16_and_gradients_scattered(topology, exchange):
  needs_compiler(topology)
  mesh = {'fsdp': 4, 'context': 4}
  choices = planning.Choices(mesh, remat='attention', exchange=exchange)
  estimated = plan_as_json(planned(small(), topology, choices))
  answer = compiled(small(), topology, choices)
  assert not [note for note in answer['notes'] if note.startswith('FAIL')]
  assert any(note.startswith('compiled, not run') for note in answer['notes'])
  assert any(note.startswith('kernels: ') for note in answer['notes'])
  assert {kind for kind, _ in by_kind(answer, 'weights')} == {'all-gather'}
  assert {kind for kind, _ in by_kind(answer, 'gradients')} == {'reduce-scatter'}
  if exchange == 'ring':
    assert by_kind(answer, 'attention') == {('collective-permute', True)}
  else:
    assert {kind for kind, _ in by_kind(answer, 'attention')} == {'all-to-all'}

  def bytes_of(answer, what):
    return sum(each['bytes'] for each in answer['collectives'] if each['what'] == what)

  # Of GPUs, over 4 nodes first and 4 GPUs of each second: a quarter more, and the formula has none.
  more = {'weights': 1.25 if topology.startswith('h100') else 1.0, 'gradients': 1.0}
  for what in ('weights', 'gradients'):
    assert bytes_of(answer, what) <= 1.05 * more[what] * bytes_of(estimated, what)


@pytest.mark.parametrize(('topology', 'extra'), [('v5p:3x5x7', 'tpu'), ('h100:8', 'cuda_compile')])
def test_a_topology_without_a_compiler_that_knows_it_is_a_sentence(topology, extra, monkeypatch):
  def unknown(**fields):
    raise NotImplementedError('no such plug-in')

  if topology == 'h100:8':
    monkeypatch.setattr(aot.topologies, 'get_topology_desc', unknown)
  said = rf"cannot compile for {topology}: .*'\.\[{extra}\]'.* without --compile"
  with pytest.raises(planning.ConfigError, match=said):
    aot.devices_of(parse_topology(topology))


@pytest.mark.tpu_aot
@pytest.mark.parametrize('chip', TARGETS)
def test_xla_reads_the_description_of_every_gpu(chip):
  needs_compiler('h100')
  found = aot.devices_of(parse_topology(f'{chip}:8'))
  assert len(found) == 8 and find_chip(found[0].device_kind).name == chip


def test_attention_on_gpus_is_a_kernel_of_cudnn_and_what_is_not_is_complained_of():
  needs_compiler('h100')
  config, choices = small(), planning.Choices({'fsdp': 8}, rows=8)
  notes = compiled(config, 'h100:8', choices)['notes']
  assert any(
    re.match(r'kernels: attention of cuDNN [1-9]\d* times forward, [1-9]', note) for note in notes
  )
  assert not [note for note in notes if note.startswith('FAIL')]
  result = aot.compile_step(
    FlowRun.of(config).with_backbone(attention='blockwise'),
    parse_topology('h100:8'),
    {'fsdp': 8},
    (8, 32, 32, 16),
    8,
  )
  work = planned(config, 'h100:8', choices).work
  assert [each[:4] for each in list_kernels(result.hlo, work, parse_topology('h100:8'))] == [
    'kern',
    'FAIL',
  ]


def test_attention_on_tpus_is_a_kernel_of_pallas_and_what_is_not_is_complained_of():
  work = planned(small(), 'v5p:2x2x1', planning.Choices()).work
  chips = parse_topology('v5p:2x2x1')
  text = 'custom_call_target="tpu_custom_call"'
  assert list_kernels(text, work, chips) == ['kernels: 1 of Pallas']
  assert [each[:4] for each in list_kernels('', work, chips)] == ['kern', 'FAIL']


# Mesh, GiB a chip of the leanest policy, policy and samples a step that are recommended, and the
# utilisation of that at the high end, with all exposed that its schedule has no work beside.
PODS = {
  'v5p:4x4x4': ({'fsdp': 4, 'context': 16}, 17, 'attention_and_projections', 8, 0.50),
  'v5p:8x8x8': ({'fsdp': 64, 'context': 8}, 11, 'attention_and_projections', 64, 0.50),
  'v5e:16x16': ({'fsdp': 16, 'context': 16}, 9, 'attention', 16, 0.40),
  'v6e:16x16': ({'fsdp': 16, 'context': 16}, 11, 'attention', 48, 0.41),
}


@pytest.mark.tpu_aot
@pytest.mark.timeout(900)
@pytest.mark.parametrize('topology', PODS)
def test_the_30b_model_at_73728_tokens_fits_its_pods(topology):
  needs_compiler(topology)
  mesh, leanest, remat, rows, utilisation = PODS[topology]
  config = t2iv_768.get_config('30b')
  lean = compiled(config, topology, planning.Choices(mesh, remat='offload'))
  assert lean['peak_gib_per_chip'] <= leanest
  default = planned(config, topology, planning.Choices(mesh, remat=remat, rows=rows))
  answer = plan_as_json(planning.compile_plan(FlowRun.of(config), default))
  assert answer['fits'] and not [note for note in answer['notes'] if note.startswith('FAIL')]
  assert answer['peak_gib_per_chip'] == pytest.approx(default.peak_gib, rel=0.1)
  assert answer['roofline_mfu']['high'] >= utilisation
