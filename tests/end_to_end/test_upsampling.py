"""A small video in, a large one out with its sound, on any devices; or a sentence."""

import json
import shutil

import av
import jax
import numpy as np
import pytest

import mgjax
from mgjax.checkpoints.workdir import load_params
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.data.records.reader import Records
from mgjax.digits.clips import Digits
from mgjax.flow_models.build import make_flow_model
from mgjax.flow_models.conditions import example_batch, small_inputs
from mgjax.media.audio import write_soundtrack
from mgjax.media.video import probe, stream_frames, write_video
from mgjax.upsampler.pipeline import Upsampler
from mgjax.workflows.encode import encode
from tests import binaries, tiny, tiny_upsampler
from tests.tiny_upsampler import SIDE, WINDOW

RATE = 48_000


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  """A digit that moves for two windows, with a sound."""
  path = tmp_path_factory.mktemp('clips') / 'small.mp4'
  frames = Digits(captions='all', frames=2 * WINDOW + 3, size=(8, 8))[0]['video']
  write_video(path, frames, 8)
  sound = np.random.default_rng(0).uniform(-0.3, 0.3, (RATE, 1)).astype(np.float32)
  write_soundtrack(path, path, [sound], RATE)
  return path


def packets(path):
  with av.open(str(path)) as container:
    return [bytes(packet) for packet in container.demux(container.streams.audio[0])]


def upsample(runs, *arguments):
  return binaries.run('upsample', f'--workdir={runs / "upsampler"}', *arguments)


def test_the_binary_enlarges_a_video_and_leaves_its_sound(tiny_upsampler_runs, clip, tmp_path):
  out = tmp_path / 'new' / 'large.mp4'
  done = upsample(tiny_upsampler_runs, f'--video={clip}', f'--out={out}', '--scale=3', '--seed=5')
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == [str(out), str(tmp_path / 'new' / 'large_sheet.png'),
                                 str(out.with_suffix('.json'))]  # fmt: skip
  before, after = probe(clip), probe(out)
  assert (after.height, after.width) == (3 * before.height, 3 * before.width)
  assert (after.frames, after.fps) == (before.frames, before.fps)
  assert packets(out) == packets(clip)
  times = [[timed[:2] for timed in stream_frames(path)] for path in (clip, out)]
  np.testing.assert_allclose(*times, atol=1e-3)
  record = json.loads(out.with_suffix('.json').read_text())
  assert record['weights']['step'] == 6 and record['request']['seed'] == 5
  again = tmp_path / 'again.mp4'
  done = upsample(tiny_upsampler_runs, f'--video={clip}', f'--out={again}', '--scale=3', '--seed=5')
  assert done.returncode == 0, done.stderr
  assert json.loads(again.with_suffix('.json').read_text())['pixels'] == record['pixels']


@pytest.mark.parametrize(
  'flags, code, said',
  [
    (['--video=none.mp4'], 3, 'none.mp4: there is no such file'),
    (['--video={text}'], 3, 'text.mp4'),
    (['--video={clip}', '--out=out.wav'], 2, '.mp4'),
    (['--video={clip}', '--scale=0.5'], 2, 'scale'),
    (['--video={clip}', '--size=8,20000'], 2, '20000 x 8 pixels'),
    (['--video={clip}', '--scale=2', '--size=16,16'], 2, 'one of --scale=2 and --size'),
  ],
)
def test_what_cannot_be_is_said_in_a_sentence(
  tiny_upsampler_runs, clip, tmp_path, flags, code, said
):
  text = tmp_path / 'text.mp4'
  text.write_text('no video')
  flags = [flag.format(clip=clip, text=text) for flag in flags]
  if not any(flag.startswith('--out') for flag in flags):
    flags.append(f'--out={tmp_path / "out.mp4"}')
  done = upsample(tiny_upsampler_runs, *flags)
  assert done.returncode == code and said in done.stderr, done.stderr
  assert 'Traceback' not in done.stderr
  assert not list(tmp_path.glob('out.*'))


def test_evaluation_stands_beside_bicubic_and_the_autoencoder(tiny_upsampler_runs, tmp_path):
  runs = shutil.copytree(tiny_upsampler_runs, tmp_path / 'runs')
  found = mgjax.evaluate(runs / 'upsampler', samples=8)
  record = json.loads(found.paths[-1].read_text())
  for given in ('clean', 'degraded'):
    for ways in record['scores'][given].values():
      assert {'bicubic', 'lanczos', 'upsampled', 'truth'} <= ways.keys()
      assert ways['truth']['psnr'] == 100 and ways['truth']['frechet'] < 1e-6
      assert ways['bicubic']['psnr'] > 10
  assert found.paths[0].exists()
  measured = record['measured']
  assert len(measured['samples']) == 2 * 8
  for kind, ways in record['scores']['degraded'].items():
    psnr = measured['metrics'][f'scores/degraded/{kind}/upsampled/psnr']
    assert psnr['value'] == ways['upsampled']['psnr'] and psnr['beside']['truth'] == 100
    if psnr['count'] > 1:  # of a single clip there is no interval
      assert psnr['low'] <= psnr['value'] <= psnr['high']
    assert [each is None for each in psnr['each'][:8]] == [True] * 8  # of clean inputs
  assert found.paths[-2].read_text().count('src="data:video') == len(measured['files']) > 8


def test_text_to_image_weights_answer_the_same_before_the_first_step(tiny_upsampler_runs, tmp_path):
  """A model without the condition, its weights unchanged, and an upsampler that starts from it."""
  config = tiny_upsampler.upsampler(tiny_upsampler_runs)
  plain = config.copy_and_resolve_references()
  with plain.unlocked():
    del plain.model.conditionings['low_resolution']
  old, new = (make_flow_model(each.model.to_dict()) for each in (plain, config))
  latents = (1, 4, 4, 4)
  params = jax.jit(new.init)(jax.random.key(1), *small_inputs(new, 4))['params']
  kept = {name: leaf for name, leaf in params.items() if name != 'low_resolution'}
  x, time = jax.random.normal(jax.random.key(0), (2, *latents)), jax.numpy.array([0.2, 0.7])
  batch = example_batch(new, 'a red one', latents, rows=2)
  batch['low_resolution'] = jax.random.normal(jax.random.key(2), (2, *latents))
  answer = new.apply({'params': params}, x, time, batch, {})
  without = {name: array for name, array in batch.items() if name != 'low_resolution'}
  assert np.array_equal(answer, old.apply({'params': kept}, x, time, without, {}))


@pytest.mark.slow
def test_an_upsampler_starts_from_a_model_of_images(tiny_upsampler_runs, tmp_path):
  """Of another component and with fewer frames: what is there is taken over, bit for bit."""
  runs = tiny_upsampler_runs
  images = tiny_upsampler.upsampler(runs, latents=False)
  with images.unlocked():
    del images.model.conditionings['low_resolution']
    del images.objective.dropout['low_resolution']
    del images['pairs'], images['windows']
  images.component = 'video'
  images.buckets.video.frames = 1
  images.model.positions = (1, 2, 2)
  mgjax.train(images, tmp_path / 't2i')
  config = tiny_upsampler.upsampler(runs, optimizer__learning_rate=1e-12, train__steps=3)
  config.start_from = str(tmp_path / 't2i')
  mgjax.train(config, tmp_path / 'upsampler')
  before = named_leaves(load_params(tmp_path / 't2i')[0])
  after = named_leaves(load_params(tmp_path / 'upsampler')[0])
  assert after.keys() - before.keys() == {'low_resolution/project/kernel'}
  for name, leaf in before.items():
    if 'positions' not in name:  # stretched
      np.testing.assert_allclose(after[name], leaf, atol=1e-6)


def test_sharded_is_unsharded(tiny_upsampler_runs):
  video = np.random.default_rng(0).integers(0, 256, (2 * WINDOW, 8, 12, 3), np.uint8)
  workdir, size = tiny_upsampler_runs / 'upsampler', (SIDE, 24)
  one, many = (
    np.stack(list(Upsampler(workdir, mesh=mesh).stream(iter(video), size=size)))
    for mesh in (None, 'data=4,context=2')
  )
  assert np.abs(one.astype(int) - many).max() <= 1  # bytes rounded from sums in another order


def test_reconstructions_need_latents(tiny_upsampler_runs, tmp_path):
  config = tiny_upsampler.upsampler(tiny_upsampler_runs, latents=False)
  config.pairs.temporal_autoencoder = str(tiny_upsampler_runs / 'autoencoder')
  config.pairs.reconstructed = 0.5
  with pytest.raises(ConfigError, match=r'reconstructed = 0\.5 needs clips that launch\.data'):
    mgjax.train(config, tmp_path / 'run')


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_degraded_clips(tiny_upsampler_runs, tmp_path):
  config = tiny_upsampler.upsampler(tiny_upsampler_runs, latents=False, pairs__variants=3)
  whole = mgjax.train(config, tmp_path / 'whole')
  mgjax.train(config, tmp_path / 'stopped', stop_at=3)
  assert tiny.same_state(mgjax.train(config, tmp_path / 'stopped'), whole)
  assert (tmp_path / 'whole' / 'degraded.png').exists()
  other = config.copy_and_resolve_references()
  other.seed = 1
  assert (
    tiny.losses(tmp_path / 'whole')[1]
    != tiny.losses(_trained(other, tmp_path / 'other', stop_at=2))[1]
  )


def test_reconstructions_of_the_temporal_autoencoder_are_encoded_among_the_clips(
  tiny_runs, tiny_upsampler_runs, tmp_path
):
  config = tiny_upsampler.upsampler(tiny_upsampler_runs, encode__train=16, encode__validation=8)
  config.pairs.temporal_autoencoder = str(tiny_runs / 'autoencoder')
  config.pairs.reconstructed = 0.5
  assert encode(config, tmp_path / 'latents')
  usual = Records(str(tiny_upsampler_runs / 'latents' / 'train' / 'video'))
  mixed = Records(str(tmp_path / 'latents' / 'train' / 'video'))
  same = [np.array_equal(usual[i]['low_resolution'], mixed[i]['low_resolution']) for i in range(16)]
  assert 2 <= sum(same) <= 14  # of 16 with a chance of one half: all but 0.5% of draws
  assert all(np.array_equal(usual[i]['latents'], mixed[i]['latents']) for i in range(16))


def _trained(config, workdir, **options):
  mgjax.train(config, workdir, **options)
  return workdir
