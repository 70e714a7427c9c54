"""The stages of editing as a recipe: the pairs of the last are made by the model of the second."""

import json
import os

import pytest

from configs.digits import editing as digits_editing
from configs.editing import recipe as editing_recipe
from mgjax.apps import recipe
from mgjax.apps.pairs.make_pairs import PAGE
from mgjax.apps.recipe import describe_recipe, plan_stages, run_recipe
from mgjax.data.records.reader import Records
from tests import binaries, tiny, tiny_editing
from tests.tiny_personalization import make_recogniser

ORDER = ('images', 'frames', 'backtranslation')


def stages(runs, recogniser, **changes):
  """The digits' three stages, too small to learn anything."""
  config = editing_recipe.get_config('debug')
  config.stages = {name: digits_editing.get_config(name) for name in ORDER}
  for place, name in enumerate(ORDER):
    stage = config.stages[name]
    fields = {key: value for key, value in tiny_editing.OVERRIDES.items() if 'buckets' not in key}
    for bucket, shape in stage.buckets.items():
      sizes = {'frames': min(shape.frames, 4), 'height': 16, 'width': 16, 'batch_size': 8}
      fields |= {f'buckets.{bucket}.{key}': value for key, value in sizes.items()}
    fields |= {'train.steps': 2, 'optimizer.warmup': 1, 'encode.train': 8, 'encode.validation': 8}
    fields |= {'train.evaluate_every': 2, 'train.save_every': 1}
    fields |= {'autoencoder': str(runs / 'autoencoder'), 'data.latents': f'latents_{name}'}
    fields['start_from'] = ORDER[place - 1] if place else str(runs / 'video')
    for source in stage.data.sources:
      fields[f'data.sources.{source}.latents'] = f'latents_{name}'
    stage.update_from_flattened_dict(fields)
  last = config.stages.backtranslation
  last.data.sources.captions.latents = 'latents_frames'  # what an earlier stage had encoded
  last.backtranslation.update(
    editor='frames',
    recogniser=str(recogniser),
    clips=8,
    validation=8,
    direction=-1.0,
    structure=-1.0,
  )
  config.update_from_flattened_dict(tiny.dotted(changes))
  return config


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_last_stage_learns_from_pairs_that_the_second_one_makes(
  tiny_runs, tmp_path, monkeypatch
):
  config = stages(tiny_runs, make_recogniser(tmp_path / 'clip'))
  workdir, make = tmp_path / 'recipe', recipe.backtranslate

  def stopped(*arguments):
    monkeypatch.setattr(recipe, 'backtranslate', make)
    raise KeyboardInterrupt

  monkeypatch.setattr(recipe, 'backtranslate', stopped)
  with pytest.raises(KeyboardInterrupt):
    run_recipe(config.to_dict(), workdir)
  told = describe_recipe(config.to_dict(), workdir)
  assert told.count(': done') == 4
  assert 'latents_backtranslation for backtranslation, on frames: to do' in told
  assert run_recipe(config.to_dict(), workdir)
  pairs = workdir / 'latents_backtranslation'
  for split, count in (('train', 8), ('validation', 8)):
    assert (pairs / split / 'backtranslated' / PAGE).exists()
    assert len(Records(pairs / split / 'backtranslated')) == count
  assert not (pairs / 'train' / 'video').exists()  # latents_frames has them
  assert sorted(tiny.losses(workdir / 'backtranslation')) == [1, 2]
  for name in ('train', 'encode', 'backtranslate'):  # of which nothing is left to do
    monkeypatch.setattr(recipe, name, None)
  assert run_recipe(config.to_dict(), workdir)
  assert describe_recipe(config.to_dict(), workdir).count(': done') == 6
  # Pairs that are to be kept otherwise are pairs to make, and the latents of others are as before.
  config.stages.backtranslation.backtranslation.direction = 0.5
  (left,) = (
    stage.name
    for stage in plan_stages(config.to_dict(), workdir)
    if stage.kind == 'encode' and not recipe._Log(workdir).done(stage)
  )
  assert left == 'latents_backtranslation for backtranslation'


def test_a_dry_run_says_who_makes_which_pairs(tiny_runs, tmp_path):
  config = stages(tiny_runs, tmp_path / 'clip')
  found = plan_stages(config.to_dict(), tmp_path)
  assert [(stage.name, stage.after) for stage in found] == [
    ('latents_images for images', ()),
    ('images', ()),
    ('latents_frames for frames', ()),
    ('frames', ('images',)),
    ('latents_backtranslation for backtranslation', ('frames',)),
    ('backtranslation', ('frames',)),
  ]
  last = found[-1].config
  assert last.backtranslation.editor == os.fspath(tmp_path / 'frames')
  assert last.data.sources.captions.latents == os.fspath(tmp_path / 'latents_frames')
  assert describe_recipe(config.to_dict(), tmp_path).count('to do') == 6


def test_the_reports_recipe_is_planned(tmp_path):
  done = binaries.finish(
    'train',
    '--config=configs/editing/recipe.py:30b',
    f'--workdir={tmp_path}/edit',
    '--dry_run',
    '--config.recogniser=elsewhere/clip',
  )
  for number, line in enumerate(
    (
      'latents_images for images: to do',
      'images: to do, 30,000 steps',
      'latents_frames for frames: to do',
      'frames, on images: to do, 1,000 steps',
      'latents_backtranslation for backtranslation, on frames: to do',
      'backtranslation, on frames: to do, 1,000 steps',
    ),
    1,
  ):
    assert f'stage {number} of 6, {line}' in done.stdout
  config = editing_recipe.get_config('30b')
  config.recogniser = 'elsewhere/clip'
  made = plan_stages(config.to_dict(), tmp_path)[4].config
  assert made.backtranslation.recogniser == 'elsewhere/clip'
  assert json.loads(made.to_json_best_effort())['data']['latents'].endswith('backtranslation')
