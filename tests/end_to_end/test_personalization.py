"""Personalization from a video model to a video of somebody, by the binaries that users call."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import mgjax
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.data.records.reader import Records
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import example_batch
from mgjax.sections.flow.requests import describe_conditions
from mgjax.sections.personalization.section import ReferencePairs
from mgjax.training.checkpoints.load_params import load_params
from tests import tiny, tiny_personalization
from tests.binaries import finish
from tests.tiny_personalization import SIDE


@pytest.fixture(scope='module')
def pipeline(tiny_personalization_runs):
  return mgjax.load(tiny_personalization_runs / 'personalization')


@pytest.fixture(scope='module')
def pictures():
  world = Digits(size=(SIDE, SIDE), extras=('reference',), split='test')
  return [world[index]['reference'] for index in range(4)]


def test_a_video_model_answers_bit_for_bit_as_before_where_nobody_is_shown(tiny_runs, pipeline):
  config, before = pipeline.config, mgjax.load(tiny_runs / 'video').config
  model, old = (make_flow_model(each.model.to_dict()) for each in (config, before))
  params = load_params(tiny_runs / 'video')[0]
  latents = (2, 2, 2, 4)
  batch = example_batch(model, 'the red digit moves up', latents, rows=3)
  x, time = jax.random.normal(jax.random.key(0), (3, *latents)), jnp.array([0.1, 0.5, 0.9])
  init = jax.jit(model.init)(jax.random.key(1), x, time, batch, {})['params']
  both = {**params, 'identity': init['identity']}
  without = {name: array for name, array in batch.items() if name != 'reference'}
  apply = jax.jit(model.apply)
  was = jax.jit(old.apply)({'params': params}, x, time, without, {})
  assert np.array_equal(apply({'params': both}, x, time, without, {}), was)
  # Masked tokens weigh nothing, but sums over more of them may be rounded otherwise.
  same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  same(apply({'params': both}, x, time, batch, {}), was)  # all black
  batch['reference'] = jnp.full_like(batch['reference'], 200)
  drop = {'identity': jnp.array([True, True, False])}
  told = apply({'params': both}, x, time, batch, drop)
  same(told[:2], was[:2])
  assert not np.allclose(told[2], was[2])


def test_references_change_videos_and_none_are_needed(pipeline, pictures):
  prompts = ['the red digit moves up'] * 2
  one = pipeline.generate(prompts, reference=[pictures[0], pictures[1]])
  again = pipeline.generate(prompts, reference=[pictures[0], None])
  alone = pipeline.generate(prompts)
  assert np.array_equal(one[0], again[0])
  assert np.array_equal(again[1], alone[1])
  assert not np.array_equal(one, alone)
  with pytest.raises(ConfigError, match=r'3 values of the condition .reference. for 2 samples'):
    pipeline.generate(prompts, reference=pictures[:3])


def test_the_binary_writes_the_crops_that_it_used_and_digests_of_them(
  tiny_personalization_runs, pictures, tmp_path
):
  Image.fromarray(pictures[0][0]).save(tmp_path / 'digit.png')
  finish(
    'sample',
    'personalize',
    f'--workdir={tiny_personalization_runs / "personalization"}',
    f'--reference={tmp_path / "digit.png"}',
    '--prompt=the red digit moves up',
    f'--out={tmp_path / "out.mp4"}',
  )
  assert (tmp_path / 'out_reference.png').exists() and (tmp_path / 'out.mp4').exists()
  text = (tmp_path / 'out.json').read_text()
  told = json.loads(text)['conditions']['reference']
  assert told == describe_conditions({'reference': pictures[0]})['reference']
  assert 'digit.png' not in text  # nor names of files


@pytest.mark.slow
def test_sharded_is_unsharded_with_the_tower_trained(tiny_personalization_runs, tmp_path):
  """Losses, the second one after an update, and norms of gradients; AdamW signs what is near 0."""
  for name, rules, (data, fsdp, context) in (
    ('one', 'single', (8, 1, 1)),
    ('many', 'fsdp_tp_cp', (2, 2, 2)),
  ):
    config = tiny_personalization.personalization(
      tiny_personalization_runs,
      optimizer__rates=(),
      mesh__data=data,
      mesh__fsdp=fsdp,
      mesh__context=context,
      rules=rules,
      optimizer__warmup=1,
      train__steps=2,
      train__save_every=2,
      train__evaluate_every=2,
    )
    mgjax.train(config, tmp_path / name)
  found = [
    [
      row[key]
      for row in tiny.metrics(tmp_path / name)
      for key in ('loss', 'gradient_norm')
      if key in row
    ]
    for name in ('one', 'many')
  ]
  assert len(found[0]) == 4
  np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.mark.slow
def test_a_stage_goes_on_exactly_where_it_stopped_and_the_next_trains_the_tower(
  tiny_personalization_runs, tmp_path
):
  runs = tiny_personalization_runs
  frozen = {'optimizer__rates': (('identity/vision/*', 0.0),)}

  def stages(root, stop_at=None):
    first = tiny_personalization.personalization(runs, **frozen)
    if stop_at:
      mgjax.train(first, root / 'first', stop_at=stop_at)
    mgjax.train(first, root / 'first')
    second = tiny_personalization.personalization(runs)
    second.start_from = str(root / 'first')
    if stop_at:
      mgjax.train(second, root / 'second', stop_at=stop_at)
    return mgjax.train(second, root / 'second')

  assert tiny.same_state(stages(tmp_path / 'stopped', stop_at=4), stages(tmp_path / 'whole'))
  before, first, second = (
    named_leaves(load_params(path)[0])
    for path in (runs / 'video', tmp_path / 'whole' / 'first', tmp_path / 'whole' / 'second')
  )
  tower = [name for name in first if name.startswith('identity/vision/layers')]
  assert tower and not any(name in before for name in tower)
  assert any(not np.array_equal(first[name], second[name]) for name in tower)


def test_every_clip_is_paired_with_each_of_its_references(tmp_path):
  world = Digits(length=6, extras=('reference',), references=5)
  pairs = ReferencePairs(world, references=5, read=2)
  assert len(pairs) == 30
  seen = [pairs[index] for index in range(30)]
  for index, pair in enumerate(seen):
    clip = world[index // 5]
    assert np.array_equal(pair['video'], clip['video'])
    assert np.array_equal(pair['reference'][0], clip['reference'][index % 5])
  assert {len(pair['reference']) for pair in seen} == {1, 2}
  assert list(pairs.every_caption()) == list(world.every_caption())


def test_latents_are_stored_with_the_references(tiny_personalization_runs):
  records = Records(str(tiny_personalization_runs / 'pairs' / 'train' / 'video'))
  assert records[0]['reference'].shape == (1, SIDE, SIDE, 3)
  assert records[0]['reference'].any()
