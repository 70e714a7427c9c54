"""Plans of the 30B model by formula: the report's numbers, what compilers said, and sentences."""

import dataclasses
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from configs.video import node, t2iv_256, t2iv_768
from mgjax.api import plan
from mgjax.core.configuration.config_files import load_config
from mgjax.core.errors import ConfigError
from mgjax.experimental.tpu_attention import backward
from mgjax.lab.planning import aot
from mgjax.lab.planning.dispatch import plan_any
from mgjax.lab.planning.efficiency import Ends, describe_efficiency, lasting, rates_of
from mgjax.lab.planning.memory import (
  attention_call,
  parameter_bytes,
  partial_gradients,
  peak_memory,
  share_of_chip,
)
from mgjax.lab.planning.plan import Choices, compile_plan, make_plan, search_plans
from mgjax.lab.planning.report import describe_plan, describe_search, plan_as_json, search_as_json
from mgjax.lab.planning.search import estimate, mesh_flag
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_sizes, make_workload
from mgjax.nn.kernels import splash
from mgjax.parallel.chips import GIB, parse_topology
from mgjax.training.optimizers.muon import orthogonalised

CHECKOUT = pathlib.Path(__file__).parent.parent.parent.parent
TOPOLOGIES = (
  'v5p:8x8x8',
  'v5p:4x4x4',
  'v5e:16x16',
  'v6e:16x16',
  'tpu7x:4x4x4',
  'h100:8x64',
  'h200:8',
)
SEARCHED_LONG = ('tpu7x:4x4x4', 'h100:8x64')  # three times as many meshes to rank


@pytest.fixture(scope='module')
def config():
  return t2iv_768.get_config('30b')


def workload(config, bucket=''):
  return make_workload(FlowRun.of(config), bucket)


@pytest.fixture(scope='module')
def work(config):
  return workload(config, 'video_1x1_16s')


def test_the_workload_is_the_report_s(work):
  assert work.tokens == 73_728
  assert 29.2e9 < work.count < 29.5e9
  assert work.flops.training == pytest.approx(30.6e15, rel=5e-3)
  assert work.latents == (32, 96, 96, 16)


def test_state_lies_in_equal_pieces_on_all_chips(work):
  whole = parameter_bytes(work, make_sizes({}))
  assert whole == 4 * work.count
  for sizes in ({'fsdp': 4, 'context': 16}, {'fsdp': 8, 'context': 4, 'tensor': 2}):
    chips = math.prod(sizes.values())
    # Vectors and a few odd tables are whole everywhere.
    assert parameter_bytes(work, make_sizes(sizes)) == pytest.approx(whole / chips, rel=0.02)
  assert parameter_bytes(work, make_sizes({'data': 64})) == whole


@pytest.mark.parametrize(('weights', 'itemsize'), [('', 4), ('bfloat16', 2), ('int8', 1)])
def test_adapters_have_all_of_the_state_and_their_model_its_type_alone(
  config, work, weights, itemsize
):
  config = config.copy_and_resolve_references()
  config.lora.update(rank=16, weights=weights, targets=('backbone/layers/*',))
  adapted = workload(config, 'video_1x1_16s')
  sizes, chip = make_sizes({'fsdp': 8}), parse_topology('v5p:2x2x2').chip
  found = peak_memory(adapted, sizes, 8, 'full', '', chip)
  whole = peak_memory(work, sizes, 8, 'full', '', chip)
  d, f, layers = work.dim, work.mlp_dim, work.depth
  numbers = 16 * layers * (8 * 2 * d + 3 * (d + f))  # of eight maps of attention, three of the FFN
  assert found['moments'] == 2 * found['gradients'] == 2 * found['average']
  assert found['gradients'] == pytest.approx(4 * numbers / 8, rel=1e-6)
  kernels = layers * (8 * d * d + 3 * d * f)
  saved = ((4 - itemsize) * kernels - 4 * numbers) / 8
  assert whole['parameters'] - found['parameters'] == pytest.approx(saved, rel=0.05, abs=1e6)


def test_a_pair_of_preferences_is_two_clips(config, work):
  config = config.copy_and_resolve_references()
  config.objective.preference = {'beta': 500.0, 'supervised': 0.1}
  config.model.conditionings.rejected = {'kind': 'rejected'}
  config.objective.dropout.rejected = 0.0
  pairs, sizes = workload(config, 'video_1x1_16s'), make_sizes({'fsdp': 64})
  assert pairs.flops.training == 2 * work.flops.training
  chip = parse_topology('v5p:4x4x4').chip
  two, one, of_two = (
    peak_memory(each, sizes, rows, 'full', 'gather', chip)
    for each, rows in ((pairs, 64), (work, 64), (work, 128))
  )
  assert two == of_two != one


def test_frozen_parameters_have_neither_moments_nor_gradients(config, work):
  config = config.copy_and_resolve_references()
  config.optimizer.rates = (('backbone/*', 0.0),)
  frozen = workload(config, 'video_1x1_16s')
  sizes, chip = make_sizes({'fsdp': 64}), parse_topology('v5p:4x4x4').chip
  rest = sum(each.size for each in work.parameters if not each.name.startswith('backbone/'))
  assert (
    0 < parameter_bytes(frozen, make_sizes({}), trained_only=True) == 4 * rest < work.count / 10
  )
  full, less = (peak_memory(each, sizes, 64, 'full', 'gather', chip) for each in (work, frozen))
  changed = {kind: (full[kind], less[kind]) for kind in full if full[kind] != less[kind]}
  assert changed.keys() == {'moments', 'gradients'}
  assert less['moments'] == 2 * less['gradients'] < full['moments'] / 10


# What the compiler said of whole steps, forward, backward and AdamW
# (docs/experiments/tpu_pods_30b.md).
V5P_64 = ('v5p:4x4x4', {'fsdp': 4, 'context': 16})
V5P_512 = ('v5p:8x8x8', {'fsdp': 64, 'context': 8})
V5E_256 = ('v5e:16x16', {'fsdp': 16, 'context': 16})
V6E_256 = ('v6e:16x16', {'fsdp': 16, 'context': 16})
COMPILED = [
  (*V5P_64, 'full', 4, 15.21),
  (*V5P_64, 'attention', 4, 18.00),
  (*V5P_64, 'attention_and_projections', 4, 43.75),
  (*V5P_64, 'attention_and_projections', 8, 76.33),
  (*V5P_64, 'offload', 4, 12.93),
  ('v5p:4x4x4', {'fsdp': 16, 'context': 4}, 'attention', 16, 36.90),
  (*V5P_512, 'full', 64, 11.84),
  (*V5P_512, 'attention_and_projections', 64, 68.57),
  (*V5E_256, 'full', 16, 8.67),
  (*V5E_256, 'attention', 16, 11.24),
  (*V6E_256, 'attention', 32, 17.90),
  (*V6E_256, 'attention', 48, 24.65),
]


def test_muon_keeps_one_moment_and_its_products_are_those_of_its_program(config, work):
  config = config.copy_and_resolve_references()
  config.optimizer.name = 'muon'
  place, d, f = parse_topology('v5p:4x4x4'), work.dim, work.mlp_dim
  how = {'sizes': V5P_64[1], 'remat': 'full', 'exchange': 'auto', 'rows': 8}
  works = workload(config, 'video_1x1_16s'), work
  muon, adamw = (estimate(each, place, **how) for each in works)
  saved = adamw.bytes['moments'] - muon.bytes['moments']
  assert saved == pytest.approx(4 * work.depth * (8 * d * d + 3 * d * f) / 64, rel=0.01)
  stacks = [jax.ShapeDtypeStruct((8 * work.depth, d, d), jnp.bfloat16)]
  stacks += [jax.ShapeDtypeStruct((3 * work.depth, d, f), jnp.bfloat16)]
  programs = [jax.jit(orthogonalised).lower(each) for each in stacks]
  flops = sum(each.cost_analysis()['flops'] for each in programs)
  spent = (muon.time.fast.optimizer - adamw.time.fast.optimizer) * rates_of('v5p').fast.linear
  assert spent == pytest.approx(flops / (64 * place.chip.flops), rel=0.02)


@pytest.mark.parametrize(('topology', 'mesh', 'remat', 'rows', 'gib'), COMPILED)
def test_the_peak_is_within_a_tenth_of_the_compiler_s(work, topology, mesh, remat, rows, gib):
  place = parse_topology(topology)
  way = estimate(work, place, mesh, remat=remat, exchange='auto', rows=rows)
  assert way.peak / GIB == pytest.approx(gib, rel=0.1)


def written(function, queries, keys, heads):
  """Returns the arrays that the one kernel of a backward pass writes, by its traced program."""
  q, k = (jax.ShapeDtypeStruct((1, n, heads, 128), jnp.bfloat16) for n in (queries, keys))
  sums = jax.ShapeDtypeStruct((1, heads, queries), jnp.float32)
  traced = jax.make_jaxpr(lambda q, k, *s: function((q, k, k, None, *s), q))(q, k, sums, sums)
  found, left = [], [traced.jaxpr]
  while left:
    for each in left.pop().eqns:
      found += [each] if each.primitive.name == 'pallas_call' else []
      inner = jax.tree.leaves(list(each.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr'))
      left += [x.jaxpr for x in inner if hasattr(x, 'jaxpr') and each not in found]
  (kernel,) = found
  return [each.aval for each in kernel.outvars]


def size_of(*arrays):
  return sum(each.size * each.dtype.itemsize for each in arrays)


SHARED = [  # mesh and exchange; rows of a group, heads of a call
  ({'fsdp': 4, 'context': 16}, 'auto', 1, 1),
  ({'fsdp': 4, 'context': 16}, 'ring', 2, 96),
  ({'fsdp': 16, 'context': 4}, 'gather', 1, 48),
]


@pytest.mark.parametrize(('mesh', 'exchange', 'rows', 'heads'), SHARED)
def test_partial_gradients_are_what_the_kernels_write(work, mesh, exchange, rows, heads):
  chip, sizes = parse_topology('v5p:4x4x4').chip, make_sizes(mesh)
  call = attention_call(work, share_of_chip(work, sizes, rows * mesh['fsdp']), exchange)
  assert call.heads // call.parts == heads
  dq, dk, dv = written(backward.backward, call.queries, call.keys, heads)
  once, all_of_them = partial_gradients(work, call, chip)
  assert once == (0 if dk.dtype == jnp.bfloat16 else size_of(dk, dv))
  assert all_of_them == once * call.parts * call.steps
  # JAX's kernel takes one head at a time.
  theirs = dataclasses.replace(work, attention='splash')
  dq = next(
    each for each in written(splash.backward, call.queries, call.keys, 1) if len(each.shape) > 3
  )
  once, all_of_them = partial_gradients(theirs, call, chip)
  assert once == size_of(dq)
  assert all_of_them == once * call.heads * call.steps


def test_a_plan_with_splash_waits_for_its_partial_gradients(work):
  place, mesh = parse_topology('v5p:4x4x4'), {'fsdp': 4, 'context': 16}
  ours, theirs = (
    estimate(
      dataclasses.replace(work, attention=name), place, mesh, remat='attention', exchange='auto'
    ).time.fast
    for name in ('auto', 'splash')
  )
  # Written and read: 36 dQ of 18 MiB a head beside two dK and dV in float32, of 3 heads and 48
  # layers of a chip.
  more = 2 * (36 * 18 - 144) * 2**20 * 3 * 48 / place.chip.memory_bandwidth
  assert theirs.elementwise - ours.elementwise == pytest.approx(more)


@pytest.mark.parametrize(
  'topology',
  [pytest.param(each, marks=[pytest.mark.slow] * (each in SEARCHED_LONG)) for each in TOPOLOGIES],
)
def test_every_topology_gets_a_plan_that_fits_and_says_why(config, topology):
  plan = make_plan(workload(config), topology)
  assert plan.fits
  assert math.prod(plan.chosen.sizes.values()) == plan.topology.devices
  text = describe_plan(plan)
  for word in ('29,', 'parameters', 'linear', 'MFU', 'bound by', 'assumed', 'samples/s', 'days'):
    assert word in text
  assert all(len(line) <= 200 for line in text.splitlines())
  answer = json.loads(json.dumps(plan_as_json(plan)))
  mfu, seconds, ideal = (answer[k] for k in ('roofline_mfu', 'step_seconds', 'ideal_seconds'))
  assert 0.15 < mfu['low'] < mfu['high'] < 0.6
  assert 0 < ideal == pytest.approx(mfu['low'] * seconds['high'])
  assert ideal == pytest.approx(mfu['high'] * seconds['low'])
  assert f'{mfu["low"]:.1%} to {mfu["high"]:.1%}' in text  # never one of them alone
  for each in describe_efficiency(plan.topology.chip.name, backward=True):
    assert each in text and each in answer['assumed']
  assert answer['peak_gib_per_chip'] == pytest.approx(sum(answer['gib_per_chip'].values()))
  assert {'parameters', 'flops_per_sample', 'collectives'} <= set(answer)
  assert answer['configured_remat'] == plan.chosen.remat


def test_a_plan_is_of_the_configured_policy_and_says_which_is_recommended():
  work, page = workload(node.get_config()), (CHECKOUT / 'docs/tutorials/your_clips.md').read_text()
  for topology, each, best in (
    ('h100:1', '', 'attention_and_inputs'),
    ('h100:8', ' each', 'nothing'),
  ):
    plan = make_plan(work, topology, Choices(rows=32))
    text, answer = describe_plan(plan), plan_as_json(plan)
    assert (answer['configured_remat'], answer['recommended_remat']) == ('attention', best)
    for name, mark in (('attention', ' (as configured, planned here)'), (best, '')):
      way = plan.policies[name]
      low, high = (end.step for end in (way.time.fast, way.time.slow))
      assert f' {name} {way.peak / GIB:.1f} GiB {low:.3g} to {high:.3g} s{mark}\n' in text
      hours = f'{low / 0.036:.2g} to {high / 0.036:.2g} hours'
      row = f' | {way.peak / GIB:.1f} GiB{each} | {low:.2f} to {high:.2f} s | {hours} |'
      assert re.search(rf'`{name}`, \w+( \w+)?{re.escape(row)}', page)
  assert 'recommended --config.model.remat=nothing, 19% to 20% less time a step' in text
  assert '`--config.model.remat=nothing` takes 19% to 20% less time' in page

  assert '32 samples, which --rows=32 plans\n' in describe_plan(make_plan(work, 'h100:8'))
  large = dataclasses.replace(work, remat='nothing')
  text = describe_plan(make_plan(large, 'h100:1', Choices(rows=32)))
  assert '=attention_and_inputs; as configured it does not fit\n' in text
  same = dataclasses.replace(work, remat='attention_and_inputs')
  text = describe_plan(make_plan(same, 'h100:1', Choices(rows=32)))
  assert 'configured  ' not in text and 'recommended remat attention_and_inputs, as conf' in text
  assert '(as configured, planned here)' in text


def test_collectives_move_the_bytes_that_the_arrays_have(config):
  plan = make_plan(
    workload(config), 'v6e:16x16', Choices(mesh={'fsdp': 16, 'context': 16}, remat='attention')
  )
  moved = {(each.what, each.kind, each.axis): each for each in plan.chosen.collectives}
  work = plan.work
  # All matrices in bfloat16, twice; their gradients once.
  whole = moved['weights', 'all-gather', 'context'].bytes
  assert whole == pytest.approx(4 * work.count, rel=0.01)
  assert moved['gradients', 'reduce-scatter', 'context'].bytes == pytest.approx(whole / 2, rel=0.01)
  # Pieces over both axes become pieces over context: a sixteenth.
  assert moved['weights', 'all-gather', 'fsdp'].bytes == pytest.approx(whole / 16, rel=0.01)
  one = work.tokens // 16 * work.dim * 2
  assert moved['attention', 'all-to-all', 'context'].bytes == 11 * work.depth * one


def test_fewer_bytes_kept_are_more_seconds(work):
  place = parse_topology('v5p:8x8x8')
  ways = [
    estimate(work, place, {'fsdp': 64, 'context': 8}, remat=remat, exchange='ulysses')
    for remat in ('full', 'attention', 'attention_and_projections', 'nothing')
  ]
  assert [way.peak for way in ways] == sorted(way.peak for way in ways)
  for end in ('slow', 'fast'):
    times = [getattr(way.time, end) for way in ways]
    assert [each.compute for each in times] == sorted((t.compute for t in times), reverse=True)
  for way in ways:
    slow, fast = way.time.slow, way.time.fast
    assert slow.communication == fast.communication == slow.waiting >= fast.waiting
    assert slow.compute > fast.compute


def test_products_of_one_byte_halve_what_they_make_of_the_linear_maps(work):
  place, sizes = parse_topology('v5p:4x4x4'), {'fsdp': 4, 'context': 16}
  works = [dataclasses.replace(work, products=kind) for kind in ('dtype', 'int8', 'int8_both')]
  found = [estimate(w, place, sizes, remat='nothing', exchange='ulysses') for w in works]
  usual, forward, both = (each.time.fast.linear for each in found)
  assert (forward / usual, both / usual) == pytest.approx((5 / 6, 1 / 2))  # of three products


def test_what_does_not_fit_has_no_price():
  priced = plan('video/t2iv_768:30b', 'rtx4090', price=0.5)
  assert priced.text.endswith('cost        none: it does not fit')
  assert priced.numbers['dollars'] == {'chip-hour': 0.5} and priced.numbers['fits'] is False


@pytest.mark.parametrize(
  ('name', 'topology', 'options', 'unit'),
  [
    ('video/t2iv_768:30b', '512xH200', {}, 'the stage'),
    ('video/t2iv_768:30b', '8xH200', {'how': 'search', 'mesh': {'context': 8}}, 'a step'),
    ('tae/tae', 'v5p-16', {}, 'a step'),
    ('video/t2iv_768:30b', 'v6e-16', {'what': 'sample'}, 'a sample'),
    ('upsampler/upsampler:7b', 'tpu7x:1x1x1', {'what': 'sample'}, 'a second of film'),
  ],
)
def test_at_a_price_a_plan_says_what_it_costs(name, topology, options, unit):
  plain, priced = (plan(name, topology, price=price, **options) for price in (None, 2.0))
  assert priced.text.startswith(plain.text) and 'dollars' not in plain.numbers
  found = priced.numbers['dollars'][unit]
  seconds = {
    'the stage': lambda found: {k: 86400 * v for k, v in found['stage']['days'].items()},
    'a step': lambda found: (
      found.get('candidates', [found])[0].get('step_seconds') or found['seconds']
    ),
    'a sample': lambda found: found['seconds'],
    'a second of film': lambda found: found['seconds_a_second_of_film'],
  }[unit](plain.numbers)
  # A TPU7x chip is two devices, and one is paid for.
  chips = {'512xH200': 512, '8xH200': 8, 'v5p-16': 8, 'v6e-16': 16, 'tpu7x:1x1x1': 1}[topology]
  for end in ('low', 'high'):
    assert found[end] == pytest.approx(seconds[end] / 3600 * 2 * chips)
  assert f'{unit}: {chips:,} chip(s) at the price you gave, $2 a chip-hour' in priced.text


def test_a_search_ranks_what_fits(config):
  found = search_plans(workload(config, 'video_1x1_16s'), 'v6e:16x16')
  _, place, candidates = found
  ordinary = [each for each in candidates if each.remat != 'offload']
  middles = [(e.time.slow.step + e.time.fast.step) / e.rows for e in ordinary]
  assert middles == sorted(middles)
  assert all(each.peak <= 0.9 * place.chip.memory for each in candidates)
  assert mesh_flag(candidates[0].sizes) in describe_search(*found)
  rows = json.loads(json.dumps(search_as_json(*found)))['candidates']
  assert [each['rows'] for each in rows] == [each.rows for each in candidates]


def test_short_videos_take_less(config):
  short, long = (
    make_plan(
      workload(each.get_config('30b')), 'v5e:16x16', Choices(mesh={'fsdp': 256}, remat='full')
    )
    for each in (t2iv_256, t2iv_768)
  )
  assert short.fits and not long.fits
  assert short.stage()[0] == 't2iv_256' and long.stage()[0] == 't2iv_768'
  assert 'does not fit' in describe_plan(long)


def test_what_is_compiled_is_the_model_as_the_plan_runs_it(config, monkeypatch):
  mesh = {'context': 4, 'tensor': 2}
  choices = Choices(mesh=mesh, rows=2, remat='full', exchange='ring')
  plan = make_plan(workload(config), 'h200:8', choices)
  asked = []

  def compile_step(*arguments):
    asked.append(arguments)
    return aot.CompiledStep(1.0, 2.0, 2.5, 60.0, None)

  monkeypatch.setattr(aot, 'compile_step', compile_step)
  run = FlowRun.of(config)
  assert compile_plan(run, plan).peak_gib == 2.5
  ((changed, _, sizes, latents, rows),) = asked
  assert (make_sizes(mesh), plan.work.latents, 2) == (sizes, latents, rows)
  backbone = run.outline.model.backbone
  assert changed.outline.model.backbone == backbone.clone(remat='full', exchange='ring') != backbone


@pytest.mark.parametrize(
  ('options', 'sentence'),
  [
    ({'remat': 'most'}, r"^unknown remat policy 'most'; expected one of full, "),
    ({'mesh': {'fsdp': 3}}, r'^the mesh fsdp=3 has 3 devices, h200:8 has 8; '),
    ({'mesh': {'fsdp': 8}, 'rows': 9}, r'^9 rows do not divide over the 8 groups .* take 8 or 16$'),
    ({'mesh': {'tensor': 8}, 'exchange': 'mail'}, r"^unknown exchange 'mail'; expected one of "),
    (
      {'mesh': {'fsdp': 2, 'contex': 4}},
      r"^unknown mesh axes \['contex'\]; expected some of slice, data, fsdp, context, tensor$",
    ),
  ],
)
def test_what_does_not_fit_together_is_said_in_a_sentence(config, options, sentence):
  with pytest.raises(ConfigError, match=sentence):
    make_plan(workload(config), 'h200:8', Choices(**options))
  with pytest.raises(ConfigError, match=r"^there is no bucket 'long'; take one of image_16x9, "):
    workload(config, 'long')


def test_heads_that_do_not_divide_are_said_with_those_that_do(config):
  with pytest.raises(ConfigError, match=r'^48 heads do not divide over tensor = 64; .* 1, 2, 3, '):
    make_plan(workload(config), 'v5p:4x4x4', Choices(mesh={'tensor': 64}))
  with pytest.raises(ConfigError, match=r'trades 48 heads a device over mesh\.context = 64'):
    make_plan(workload(config), 'v5p:4x4x4', Choices(mesh={'context': 64}, exchange='ulysses'))


def test_a_recipe_is_planned_as_its_stages_are_trained():
  answer = plan('video/recipe:30b', '512xH200', price=2.0)
  recipe = load_config('video/recipe:30b')
  stages = recipe.stages
  assert list(answer.numbers['stages']) == [name for name in recipe.order if name != 'average']
  for name, each in answer.numbers['stages'].items():
    stage = stages[name]
    alone = plan_any(
      stage, 'h200:8x64', mesh=each['mesh'], rows=each['batch'] // each['micro_batches']
    ).numbers
    assert alone['remat'] == stage.model.remat and alone['fits'] and each['fits']
    assert each['peak_gib_per_chip'] == alone['peak_gib_per_chip']
    for end in ('low', 'high'):
      seconds = each['micro_batches'] * alone['step_seconds'][end]
      assert each['days'][end] == pytest.approx(seconds * stage.train.steps / 86_400)
  # Of one more micro-batch less does not fit, and the command says what training needs for it.
  assert answer.numbers['flags'] == ['--config.stages.t2iv_768.train.accumulate=3']
  assert '--config.stages.t2iv_768.train.accumulate=3' in answer.text
  days = answer.numbers['stage']['days']
  dollars = answer.numbers['dollars']['all stages']
  assert dollars['low'] == pytest.approx(days['low'] * 24 * 512 * 2)
  with pytest.raises(ConfigError, match='its stages are planned as they are configured'):
    plan('video/recipe:30b', '512xH200', rows=8)


@pytest.mark.parametrize('topology', ['512xH200', 'v5p:8x8x8'])
def test_the_page_of_30b_has_the_numbers_that_its_command_prints(topology):
  page = pathlib.Path('docs/how_to/plan_30b.md').read_text()
  lines = plan('video/recipe:30b', topology, price=2.5).text.splitlines()
  table = [line for line in lines if line.startswith('|')]
  assert topology != '512xH200' or '\n'.join(table) in page
  days = table[-1].strip('| ').split('|')[-1].strip()
  assert f'| {days} |' in page
  assert all(flag in page for flag in lines if flag.startswith('--config'))


def test_a_stage_of_less_than_a_day_is_told_in_hours():
  assert lasting(Ends(0.9, 0.4)) == '9.6 to 21.6 hours'
  assert lasting(Ends(1 / 240, 1 / 240)) == '0.1 hours'
  assert lasting(Ends(30.2, 11.9)) == '12 to 30 days'
