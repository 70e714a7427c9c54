"""A text-to-video model learns to read known frames: pictures at its ends, clips to continue."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.apps.encode import encode
from mgjax.core.settings import fields_of
from mgjax.data.media.video import read_clip
from mgjax.data.media.viewing import write_clip
from mgjax.data.records.reader import Records
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import example_batch, prepare_samples, small_inputs
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.warm_start import start_from
from mgjax.training.checkpoints.workdir import write_workdir
from tests import binaries, tiny

PROMPT = 'the green digit 3 moves left'


@pytest.fixture(scope='module')
def config(tiny_runs, tmp_path_factory):
  """The configuration of a model that reads frames, and its work directory, made not trained."""
  folder = tmp_path_factory.mktemp('frames')
  config = tiny.video(tiny_runs, encode__train=8, encode__validation=4)
  config.data.latents = str(folder / 'latents')
  config.start_from = str(tiny_runs / 'video')
  config.model.conditionings.frames = {'kind': 'frames', 'stride': 2}
  config.objective.dropout.frames = 0.0
  config.sample.guidance = (('frames', 1.0), ('text', 4.0))
  params, meta = started(tiny_runs, config)
  kernel = params['frames']['project']['kernel']
  params['frames']['project']['kernel'] = jax.random.normal(jax.random.key(0), kernel.shape)
  write_workdir(config.to_dict(), params, meta['notes'], folder / 'video', origin={'order': 'made'})
  return config, folder / 'video'


def started(tiny_runs, config):
  """Parameters and record of the text-to-video model, which has gained the conditioning."""
  known, meta = load_params(tiny_runs / 'video')
  model = make_flow_model(fields_of(config, 'model'))
  drawn = model.init(jax.random.key(0), *small_inputs(model, 4))['params']
  return jax.tree.map(jnp.asarray, start_from(known, nn.unbox(drawn))), meta


@pytest.fixture(scope='module')
def sampler(config):
  return VideoPipeline(config[1])


@pytest.fixture(scope='module')
def world(config):
  data = data_settings(fields_of(config[0], 'data'))
  return make_world(data, 'train', frames=4, size=(16, 16))


@pytest.fixture(scope='module')
def clip(world, tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
  write_clip(path, np.concatenate([world[0]['video']] * 2), 8, 4)
  return path


def test_a_model_that_gains_the_conditioning_answers_as_before_bit_by_bit(tiny_runs, config):
  old = make_flow_model(fields_of(tiny.video(tiny_runs), 'model'))
  new = make_flow_model(fields_of(config[0], 'model'))
  known, _ = load_params(tiny_runs / 'video')
  params, _ = started(tiny_runs, config[0])
  latents = (2, 4, 4, 4)
  x, time = jax.random.normal(jax.random.key(1), (2, *latents)), jnp.array([0.2, 0.7])
  batch = example_batch(new, PROMPT, latents, rows=2)
  batch |= {n: jnp.ones_like(batch[n]) for n in ('known_frames', 'known')}
  answers = [
    jax.jit(model.apply)({'params': weights}, x, time, batch, {})
    for model, weights in ((old, known), (new, params))
  ]
  np.testing.assert_array_equal(*answers)


@pytest.mark.slow
def test_records_hold_what_is_drawn_of_the_clip_and_its_latents(config, sampler, world):
  encode(config[0], config[0].data.latents)
  rows = Records(f'{config[0].data.latents}/train/video')
  for index in range(8):
    made = prepare_samples(sampler._model, [world[index]], sampler._codec.encode)
    kept = prepare_samples(sampler._model, [rows[index]])
    np.testing.assert_array_equal(kept['known'], made['known'])
    # Stored in bfloat16, encoded in another batch.
    np.testing.assert_allclose(
      np.float32(kept['known_frames']), made['known_frames'], rtol=2**-7, atol=2**-7
    )


def test_conditions_of_data_are_those_of_training(sampler, world):
  samples = [world[index] for index in range(8)]
  given = sampler.conditions_of(samples)
  wanted = prepare_samples(sampler._model, samples)['known']
  np.testing.assert_array_equal(np.stack(given['known']), wanted)
  assert sampler.generate([PROMPT] * 8, **given).shape == (8, 4, 16, 16, 3)


def test_of_unknown_frames_nothing_is_read(sampler, world):
  clip, none = world[0]['video'], np.zeros(4, np.float32)
  alone = sampler.generate([PROMPT])
  np.testing.assert_array_equal(sampler.generate([PROMPT], known_frames=clip, known=none), alone)
  first = sampler.generate([PROMPT], first_frame=clip[0])
  assert (first != alone).any()
  same = sampler.generate([PROMPT], known_frames=clip, known=np.eye(4, dtype=np.float32)[0])
  np.testing.assert_array_equal(first, same)


def test_a_clip_is_continued_window_by_window(sampler, world):
  clip, prompts = world[0]['video'], [PROMPT, 'the red digit 7 moves up']
  long = sampler.extend(prompts, clip, frames=11, seed=3)
  assert long.shape == (2, 11, 16, 16, 3)
  np.testing.assert_array_equal(long[:, :4], np.stack([clip, clip]))
  # What is known: the last two frames of the clip. The first window is an ordinary call ...
  shown, known = clip[[2, 3, 3, 3]], np.array([1, 1, 0, 0], np.float32)
  window = sampler.generate(prompts, known_frames=shown, known=known, seed=3)
  np.testing.assert_array_equal(long[:, 4:6], window[:, 2:])
  # ... a shorter continuation is the beginning of a longer one, and so is what follows of it.
  np.testing.assert_array_equal(sampler.extend(prompts, clip, frames=7, seed=3), long[:, :7])
  # One frame is continued by a window less that frame.
  single = sampler.extend([PROMPT], clip[:1], frames=4, seed=3)
  np.testing.assert_array_equal(
    single[:, 1:], sampler.generate([PROMPT], seed=3, first_frame=clip[:1])[:, 1:]
  )


def sample(workdir, *arguments):
  return binaries.finish(
    'sample', 'video', f'--workdir={workdir}', f'--prompt={PROMPT}', *arguments
  )


@pytest.mark.slow
def test_the_binary_animates_pictures_and_continues_clips(config, sampler, world, clip, tmp_path):
  for name, frame in (('first', 0), ('last', 3)):
    write_clip(tmp_path / f'{name}.png', world[0]['video'][frame : frame + 1], 8, 1)
  pictures = [f'--condition={name}_frame={tmp_path}/{name}.png' for name in ('first', 'last')]
  sample(config[1], *pictures, f'--out={tmp_path}/ends.mp4', '--seed=2')
  ends = {'first_frame': world[0]['video'][0], 'last_frame': world[0]['video'][3]}
  made = sampler.generate([PROMPT], seed=2, **ends)
  write_clip(tmp_path / 'same.mp4', made[0], 8)
  shape = {'frames': 4, 'size': (16, 16), 'fps': 8}
  np.testing.assert_array_equal(
    read_clip(tmp_path / 'ends.mp4', **shape), read_clip(tmp_path / 'same.mp4', **shape)
  )
  sample(config[1], f'--continue={clip}', '--frames=13', f'--out={tmp_path}/long.mp4')
  record = json.loads((tmp_path / 'long.json').read_text())
  assert record['frames'] == 13 and record['conditions']['video']['shape'] == [8, 16, 16, 3]
  assert read_clip(tmp_path / 'long.mp4', frames=13, size=(16, 16), fps=8).shape[0] == 13
