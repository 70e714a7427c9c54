"""Recipes: stages that build on one another, stopped anywhere, and what is wrong with them."""

import itertools
import json
import os
import signal
import sys

import jax
import numpy as np
import pytest

from configs.digits import personalization_stages as digits_stages
from configs.digits import recipe as digits_recipe
from configs.video import recipe as video_recipe
from mgjax.api import train
from mgjax.apps import recipe
from mgjax.apps.recipe import describe_recipe, plan_stages, run_recipe
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.models.clip.towers import clip_inputs
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.flops import backbone_flops
from mgjax.parallel.mesh import make_mesh
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.settings import run_settings
from mgjax.training.step import accumulation
from tests import tiny
from tests.end_to_end.test_kills import SHORT, finish, running, wait_until
from tests.training.checkpoints.test_manager import make_state
from tests.turns import seen_in_stage

CONFIG = """
import pathlib
from tests.apps.test_recipe import stages

def get_config():
  return stages(pathlib.Path({runs!r}), order=('images', 'joint'))
"""


def stages(runs, **changes):
  """The digits' recipe after its autoencoder, too small to learn anything."""
  config = digits_recipe.get_config('finetunes')
  config.order = ('images', 'joint', 'double', 'finetune_1', 'finetune_2', 'average')
  config.stages.average.of = ('finetune_1', 'finetune_2')
  positions = {'images': (1, 2, 2), 'joint': (2, 4, 4)}
  for name in config.order[:-1]:
    stage = config.stages[name]
    pixels = 16 if name in positions else 32
    fields = {key: value for key, value in tiny.VIDEO.items() if key not in ('data.threads',)}
    for bucket in ('image', 'video'):
      fields |= {f'buckets.{bucket}.{side}': pixels for side in ('height', 'width')}
    if name == 'images':
      fields = {key: value for key, value in fields.items() if 'buckets.video' not in key}
    fields |= {'model.positions': positions.get(name, (2, 8, 8)), 'train.steps': 2}
    fields |= {'autoencoder': str(runs / 'autoencoder'), 'encode.train': 16, 'train.log_every': 1}
    fields |= {'data.latents': f'latents_{pixels}', 'optimizer.warmup': 1}
    stage.update_from_flattened_dict(fields)
  config.update_from_flattened_dict({key.replace('__', '.'): v for key, v in changes.items()})
  return config


def table(workdir, name):
  return np.asarray(load_params(workdir)[0]['backbone']['positions'][name])


@pytest.mark.slow
def test_stages_build_on_one_another_and_a_second_call_ends_at_once(
  tiny_runs, tmp_path, monkeypatch
):
  config = stages(tiny_runs)
  assert run_recipe(config.to_dict(), tmp_path)
  # Images have one entry of time; what the next stage starts with is that one, repeated.
  assert table(tmp_path / 'images', 'time').shape[0] == 1
  # Spatial tables double with the first videos and once more with the larger pictures.
  for name, length in (('images', 2), ('joint', 4), ('double', 8)):
    assert table(tmp_path / name, 'height').shape[0] == length
  averaged = named_leaves(load_params(tmp_path / 'average')[0])
  tuned = [named_leaves(load_params(tmp_path / f'finetune_{i}')[0]) for i in (1, 2)]
  for name, leaf in averaged.items():
    mean = (np.float64(tuned[0][name]) + np.float64(tuned[1][name])) / 2
    np.testing.assert_array_equal(leaf, np.float32(mean))
  for name in ('train', 'encode', 'average_runs'):  # of which nothing is left to do
    monkeypatch.setattr(recipe, name, None)
  assert run_recipe(config.to_dict(), tmp_path)
  assert describe_recipe(config.to_dict(), tmp_path).count(': done') == len(
    plan_stages(config.to_dict(), tmp_path)
  )


@pytest.mark.slow
@pytest.mark.timeout(900)  # both processes compile, at both starts
def test_two_processes_are_stopped_together_in_a_stage_and_go_on_to_the_end(tiny_runs, tmp_path):
  workdir, path = tmp_path / 'run', tmp_path / 'config.py'
  path.write_text(CONFIG.format(runs=os.fspath(tiny_runs)))
  command = [sys.executable, '-m', 'launch.train', f'--config={path}', f'--workdir={workdir}']
  both = {'processes': 2, 'JAX_NUM_CPU_DEVICES': '2', **SHORT}
  with running(workdir, command, **both) as (processes, log):
    wait_until(
      lambda: log.read_text().count('stage 4 of 4: joint, on') == 2, processes, seconds=300
    )
    processes[1].send_signal(signal.SIGTERM)
    finish(processes)
    assert 'stage 4 of 4: joint is stopped; the same command goes on' in log.read_text()
  with running(workdir, command, **both) as (processes, log):
    finish(processes)
    assert log.read_text().count('stage 2 of 4: images is done') == 2
  assert sorted(tiny.losses(workdir / 'joint')) == [1, 2]


@pytest.mark.slow
def test_stopped_in_every_stage_a_recipe_ends_as_if_undisturbed(tiny_runs, tmp_path, monkeypatch):
  config = stages(tiny_runs, order=('images', 'joint', 'double'))
  assert run_recipe(config.to_dict(), tmp_path / 'whole')
  seen = set()

  def stopped(config, workdir):
    """As on a signal after the first step, the first time."""
    first = workdir not in seen
    seen.add(workdir)
    return train(config, workdir, stop_at=1 if first else None)

  monkeypatch.setattr(recipe, 'train', stopped)
  assert [run_recipe(config.to_dict(), tmp_path / 'stopped') for _ in range(4)] == [False] * 3 + [
    True
  ]
  monkeypatch.undo()
  for name in config.order:
    states = [
      tiny.final_state(tmp_path / which / name)
      if which == 'whole'
      else train(config_of(config, tmp_path / which, name), tmp_path / which / name)
      for which in ('whole', 'stopped')
    ]
    assert tiny.same_state(*states)


def config_of(config, workdir, name):
  return next(
    stage.config for stage in plan_stages(config.to_dict(), workdir) if stage.name == name
  )


def test_a_stage_begins_with_the_weights_of_the_one_before(tiny_runs, tmp_path):
  config = stages(tiny_runs, order=('joint', 'double'))
  config.stages.joint.start_from = ''
  (joint, _), (double, _) = (
    (stage, None) for stage in plan_stages(config.to_dict(), tmp_path) if stage.kind == 'train'
  )
  assert double.config.start_from == str(tmp_path / 'joint') == str(joint.workdir)
  assert double.after == ('joint',)
  kinds = [(stage.kind, stage.workdir.name) for stage in plan_stages(config.to_dict(), tmp_path)]
  assert kinds == [
    ('encode', 'latents_16'),
    ('train', 'joint'),
    ('encode', 'latents_32'),
    ('train', 'double'),
  ]


def test_a_failing_stage_ends_the_recipe_with_its_error_and_its_name(tiny_runs, tmp_path):
  config = stages(tiny_runs, order=('images',))
  config.stages.images.data.latents = str(tmp_path / 'nowhere')
  with pytest.raises(DataError, match=r"stage 'images': .*nowhere"):
    run_recipe(config.to_dict(), tmp_path / 'recipe')


def test_a_finished_stage_of_other_numbers_is_refused(tiny_runs, tmp_path):
  config = stages(tiny_runs, order=('images',))
  images = config_of(config, tmp_path, 'images')
  with Checkpoints(tmp_path / 'images' / 'checkpoints') as checkpoints:
    checkpoints.save(make_state(images.train.steps), {'config': images.to_dict()})
  (tmp_path / 'images' / 'config.json').write_text(json.dumps(images.to_dict()))
  lines = describe_recipe(config.to_dict(), tmp_path).splitlines()
  assert any(line.endswith('images: done') for line in lines)
  config.stages.images.optimizer.learning_rate = 0.5
  with pytest.raises(
    ConfigError, match=r"stage 'images': .*learning_rate.*launch\.train --new_rate"
  ):
    run_recipe(config.to_dict(), tmp_path)
  assert run_recipe(config.to_dict(), tmp_path, new_rate=True)
  assert run_recipe(config.to_dict(), tmp_path, new_data=True, new_rate=True)


@pytest.mark.parametrize('damage', ['no autoencoder', 'no latents'])
def test_a_dry_run_says_once_what_is_wrong_with_every_stage(tiny_runs, tmp_path, damage):
  config = stages(tiny_runs)
  for name in config.order[:-1]:
    if damage == 'no autoencoder':
      config.stages[name].autoencoder = 'runs/nowhere'
    else:
      config.stages[name].data.latents = str(tmp_path / 'nowhere')
  lines = describe_recipe(config.to_dict(), tmp_path).splitlines()
  notes = [line for line in lines if 'note:' in line]
  assert notes and len(set(notes)) == len(notes)
  assert sum(line.endswith(' more, as of images') for line in lines) == len(config.order) - 2
  assert sum(line.startswith('  total') for line in lines) == len(config.order) - 1


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    ({'order': ()}, 'needs stages and their order'),
    ({'order': ('imags',)}, "'imags'.*did you mean images"),
    ({'order': ('images', 'images')}, "'images' twice"),
    ({'order': ('joint', 'images')}, "'joint': start_from = 'images' does not come before it"),
    ({'order': ('images', 'average')}, "'average' averages"),
    ({'stages__joint__start_from': 'autoencoder', 'order': ('autoencoder', 'joint')}, 'cannot st'),
    ({'stages__joint__data__latents': 'images'}, 'is the name of a stage'),
  ],
)
def test_it_says_what_is_wrong(tiny_runs, tmp_path, change, sentence):
  with pytest.raises(ConfigError, match=sentence):
    plan_stages(stages(tiny_runs, **change).to_dict(), tmp_path)


def test_training_from_nothing_takes_no_less_compute_than_the_stages():
  def operations(stage):
    backbone, weights = make_flow_model(stage.model.to_dict()).backbone, 0
    total = 0.0
    for shape in stage.buckets.values():
      latents = (shape.batch_size, -(-shape.frames // 4), shape.height // 4, shape.width // 4, 8)
      total += shape.weight * backbone_flops(backbone, latents, context=40).training
      weights += shape.weight
    return stage.train.steps * total / weights

  config = digits_recipe.get_config('scratch').stages
  three = sum(operations(config[name]) for name in ('images', 'joint', 'double'))
  assert 1 <= operations(config.scratch) / three < 1.02
  assert config.scratch.model == config.double.model
  assert config.scratch.buckets == config.double.buckets


def test_personalization_at_once_takes_no_less_compute_than_in_stages():
  def operations(stage):
    model = make_flow_model(stage.model.to_dict())
    latents = (1, stage.buckets.video.frames // 4, 8, 8, 8)
    (tower,) = (each.vision for each in model.conditionings if each.name == 'identity')
    inputs = clip_inputs(tower)
    places = (tower.size // tower.patch) ** 2 + 1
    weights = count_parameters(jax.eval_shape(tower.init, jax.random.key(0), *inputs))
    # Forward, and twice as much back where it is trained.
    passes = 3 if stage.optimizer.rates[0][1] else 1
    backbone = backbone_flops(model.backbone, latents, context=40, gated=(places,)).training
    return stage.train.steps * (backbone + passes * 2 * weights * places)

  stages = sum(operations(stage) for stage in digits_stages.get_config().stages.values())
  assert 1 <= operations(digits_stages.get_config('once').stages.once) / stages < 1.02


def test_the_small_stages_grow_their_positions_where_the_reports_do():
  stages = digits_recipe.get_config().stages
  tables = [stages[name].model.positions for name in ('images', 'joint', 'double')]
  growth = [
    [b // a for a, b in zip(first, second, strict=True)]
    for first, second in itertools.pairwise(tables)
  ]
  assert growth == [[4, 2, 2], [1, 2, 2]]  # the report: [32, 2, 2], [1, 3, 3]


def test_the_reports_stages_point_at_each_other_and_grow(tmp_path):
  config = video_recipe.get_config('debug')
  config.autoencoder = '/trained/tae'
  found = {stage.name: stage for stage in plan_stages(config.to_dict(), tmp_path)}
  assert list(found) == list(config.order)
  trained = [name for name in config.order if found[name].kind == 'train']
  for earlier, later in itertools.pairwise(trained):
    first, second = found[earlier].config, found[later].config
    if not later.startswith('finetune'):
      assert found[later].after == (earlier,)
    assert second.autoencoder == '/trained/tae'
    growth = [b // a for a, b in zip(first.model.positions, second.model.positions, strict=True)]
    assert growth == {'t2iv_256': [32, 2, 2], 't2iv_768': [1, 3, 3]}.get(later, [1, 1, 1])
  for name in ('t2iv_768', 't2iv_768_small'):
    optimizer = found[name].config.optimizer
    assert optimizer.learning_rate * optimizer.plateau.lowest == pytest.approx(1e-5)


@pytest.mark.parametrize('kind', ['few_images', 'few_wide'])
def test_the_reports_stages_see_the_reports_samples_by_the_turns_of_the_loader(kind):
  stages, seen = video_recipe.get_config('debug').stages, {}
  for name in ('t2i_256', 't2iv_256', 't2iv_256_large', 't2iv_768', 't2iv_768_small'):
    rare = 'image' if kind == 'few_images' else '16x9'
    counts = {each: 10**5 if rare in each else 10**7 for each in stages[name].buckets}
    seen[name] = seen_in_stage(stages[name], counts)
    images = sum(rows for bucket, rows in seen[name].items() if bucket.startswith('image'))
    seen[name] = images, sum(seen[name].values())
  total = {name: rows for name, (_, rows) in seen.items()}
  assert total['t2i_256'] == 210_000 * 9216  # 1.94B
  assert total['t2iv_256'] + total['t2iv_256_large'] == 394_752_000
  assert total['t2iv_768'] + total['t2iv_768_small'] == 73_779_200
  for name in ('t2iv_256', 't2iv_256_large', 't2iv_768', 't2iv_768_small'):
    images, rows = seen[name]
    assert images / rows == pytest.approx(1 / 11, rel=1e-3), name


def test_at_equal_cost_a_stage_sees_four_times_the_samples():
  stages = video_recipe.get_config('debug,equal_cost').stages
  seen = [sum(seen_in_stage(stages[name]).values()) for name in ('t2iv_256', 't2iv_256_large')]
  assert sum(seen) / 394.8e6 == pytest.approx(4, abs=0.3)


@pytest.mark.parametrize(
  ('groups', 'meant', 'expected'),
  [(8, 0, 3), (8, 8, 3), (4, 8, 6), (2, 8, 12), (8, 4, 3), (4, 6, 6)],
)
def test_with_fewer_devices_a_batch_is_cut_into_more_pieces(tiny_runs, groups, meant, expected):
  config = tiny.video(
    tiny_runs, train__accumulate=3, train__device_groups=meant, rules='fsdp_tp_cp'
  )
  config.mesh.update(data=groups, context=8 // groups)
  settings = run_settings(config.train.to_dict())
  assert accumulation(settings, make_mesh(config.mesh.to_dict(), config.rules)) == expected


@pytest.mark.slow
def test_a_run_that_lost_devices_goes_on_with_the_same_batch(tiny_runs, tmp_path, caplog):
  config = tiny.video(tiny_runs, train__device_groups=8, rules='fsdp_tp_cp')
  train(config, tmp_path, stop_at=2)
  config.mesh.update(data=4, context=2)
  assert int(train(config, tmp_path, stop_at=4).step) == 4
  assert '4 groups of devices instead of 8: every batch in 2 micro-batches' in caplog.text
