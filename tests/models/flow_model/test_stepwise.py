"""The sampler that the host drives step by step makes what the whole loop makes."""

import numpy as np
import pytest

import mgjax
from mgjax.core.errors import ConfigError

PROMPTS = ['the green digit 3 moves left', 'the red digit 7 bounces']


@pytest.mark.parametrize(
  ('name', 'changes'),
  [
    ('digits/few_steps', {}),
    ('digits/video', {'steps': 5}),
    ('digits/video', {'steps': 4, 'solver': 'midpoint', 'guidance': {'text': (4.0, (0.2, 0.7))}}),
    ('digits/video', {'steps': 4, 'guidance': 0.0}),
    ('digits/personalization', {'steps': 2, 'guidance': {'text': 3.0, 'identity': 3.0}}),
  ],
)
def test_step_by_step_and_whole_are_the_same_samples(name, changes):
  pipeline, seen = mgjax.load(name).changed(**changes), []
  whole = pipeline.generate(PROMPTS, seed=3)
  stepwise = pipeline.generate(PROMPTS, seed=3, callback=lambda *step: seen.append(step))
  assert np.abs(whole.astype(int) - stepwise).max() <= 1  # of 255, by rounding
  steps = pipeline.settings['steps']
  assert [step[:2] for step in seen] == [(number, steps) for number in range(1, steps + 1)]
  assert seen[0][2].latents.shape == (2, 4, 8, 8, 8)


def test_the_last_step_shows_what_the_samples_are():
  pipeline, seen = mgjax.load('digits/video', steps=3), []
  made = pipeline.generate(PROMPTS, seed=3, callback=lambda *step: seen.append(step[2]))
  assert np.abs(seen[-1]().astype(int) - made).max() <= 1


def test_scales_and_steps_share_a_program_and_weights():
  pipeline = mgjax.load('digits/video', steps=3)
  watch = lambda *step: None  # noqa: E731
  other = pipeline.changed(guidance=2.5, steps=4)
  made = other.generate(PROMPTS, seed=3, callback=watch)
  pipeline.generate(PROMPTS, seed=3, callback=watch)
  assert other._params is pipeline._params and len(pipeline._stepwise) == 1
  assert np.abs(made.astype(int) - other.generate(PROMPTS, seed=3)).max() <= 1


def test_each_of_a_batch_may_have_a_seed_of_its_own():
  pipeline = mgjax.load('digits/few_steps')
  both = pipeline.generate(PROMPTS, seed=[3, 2**40 + 5], first=[0, 0])
  for prompt, seed, made in zip(PROMPTS, (3, 2**40 + 5), both, strict=True):
    assert np.abs(pipeline.generate([prompt], seed=seed)[0].astype(int) - made).max() <= 1


def test_what_watches_may_end_it():
  def stop(step, steps, preview):
    if step == 2:
      raise KeyError

  with pytest.raises(KeyError):
    mgjax.load('digits/video', steps=5).generate(PROMPTS, callback=stop)


def test_an_adaptive_solver_has_no_steps_to_watch():
  pipeline = mgjax.load('digits/video', solver='dormand_prince')
  with pytest.raises(ConfigError, match='step by step'):
    pipeline.generate(PROMPTS, callback=lambda *step: None)
