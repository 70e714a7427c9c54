"""A small video in, a large one out with its sound, on any devices; or a sentence."""

import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import av
import jax
import numpy as np
import pytest
from PIL import Image

import mgjax
from mgjax.apps.encode import encode
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.data.media.audio import write_soundtrack
from mgjax.data.media.video import probe, stream_frames, write_video
from mgjax.data.records.reader import Records
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import example_batch, small_inputs
from mgjax.sections.upsampler.pipeline import Upsampler
from mgjax.training.checkpoints.load_params import load_params
from tests import binaries, tiny, tiny_upsampler
from tests.data.media.audio_files import encode_video, noise, turn
from tests.data.media.hostile_clips import encoded
from tests.tiny_upsampler import SIDE, WINDOW

RATE = 48_000
FRAMES = np.random.default_rng(0).integers(0, 256, (15, 8, 12, 3), np.uint8)
LOSSLESS = ('matroska', 'ffv1', 'bgr0')


def write_sounding(path, frames, size):
  """A digit that moves, with a sound."""
  write_video(path, Digits(captions='all', frames=frames, size=size)[0]['video'], 8)
  sound = np.random.default_rng(0).uniform(-0.3, 0.3, (RATE, 1)).astype(np.float32)
  write_soundtrack(path, path, [sound], RATE)
  return path


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  """Of two windows."""
  return write_sounding(tmp_path_factory.mktemp('clips') / 'small.mp4', 2 * WINDOW + 3, (8, 8))


def packets(path):
  with av.open(str(path)) as container:
    sounds = container.streams.audio
    return [bytes(packet) for packet in container.demux(*sounds)] if sounds else []


def upsample(runs, *arguments):
  return binaries.finish('sample', 'upsample', f'--workdir={runs / "upsampler"}', *arguments)


def encode_clip(path, frames=FRAMES, kind=LOSSLESS, times=None):
  path = path.with_suffix('.mkv' if kind[0] == 'matroska' else '.mp4')
  path.write_bytes(encoded(frames, *kind, times, {}))
  return path


def odd(path):
  return encode_clip(path, np.tile(FRAMES[:7], (1, 3, 3, 1))[:, :23, :17])


def turned(path):
  path = path.with_suffix('.mp4')
  write_video(path, FRAMES[:3, :8, :12], fps=8)
  return turn(path)


def still(path):
  path = path.with_suffix('.png')
  Image.fromarray(FRAMES[0]).save(path)
  return path


def changing(path):
  """Pictures that are wider from the fourth on."""
  path = path.with_suffix('.mkv')
  with av.open(str(path), 'w') as to:
    stream = to.add_stream('mjpeg', rate=25)
    stream.width, stream.height, stream.pix_fmt = 16, 16, 'yuvj420p'
    to.start_encoding()
    for number in range(6):
      side = 16 if number < 3 else 32
      one = av.CodecContext.create('mjpeg', 'w')
      one.width, one.height, one.pix_fmt = side, 16, 'yuvj420p'
      one.time_base = one.framerate = 25
      picture = av.VideoFrame.from_ndarray(np.full((16, side, 3), 40 * number, np.uint8))
      for packet in [*one.encode(picture.reformat(format='yuvj420p')), *one.encode(None)]:
        packet.stream, packet.pts, packet.dts = stream, number * 40, number * 40
        packet.time_base = stream.time_base
        to.mux(packet)
  return path


def sounding(path, **options):
  return encode_video(
    path.with_suffix('.mp4'), np.tile(FRAMES, (1, 4, 4, 1)), noise(0.6), **options
  )


# name: (makes the file, frames, (height, width) of what comes out, more flags)
RIGHT = {
  'odd sizes': (odd, 7, (46, 34), {}),
  'a still picture': (still, 1, (16, 24), {}),
  'odd sides asked for': (encode_clip, 15, (18, 24), {'size': (17, 23)}),
  'portrait, turned by its metadata': (turned, 3, (24, 16), {}),
  'times that vary': (
    lambda path: encode_clip(path, FRAMES[:8], times=[0, 1, 2, 40, 41, 300, 301, 302]),
    8,
    (16, 24),
    {},
  ),
  'a size that changes': (changing, 6, (32, 32), {}),
  'sound that starts late': (functools.partial(sounding, late=0.37), 15, (64, 96), {}),
  'a prompt with a frame rate': (encode_clip, 15, (16, 24), {'prompt': 'FPS-16 a red digit'}),
}


QUICK = ('a still picture', 'times that vary')


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in RIGHT]
)
def test_what_is_a_video_becomes_a_large_one(upsampler, tmp_path, name):
  make, frames, size, options = RIGHT[name]
  options = dict(options)
  video, out = make(tmp_path / 'small'), tmp_path / 'new' / 'large.mp4'
  before = video.read_bytes()
  upsampler.save(options.pop('prompt', None), out, video=str(video), **options)
  info = probe(out)
  assert (info.frames, info.height, info.width) == (frames, *size)
  times = [[timed[:2] for timed in stream_frames(path)] for path in (video, out)]
  np.testing.assert_allclose(*times, atol=1e-3)
  assert packets(out) == packets(video) and info.has_audio == probe(video).has_audio
  assert video.read_bytes() == before


def test_the_binary_enlarges_a_video_and_leaves_its_sound(tiny_upsampler_runs, clip, tmp_path):
  out = tmp_path / 'new' / 'large.mp4'
  done = upsample(tiny_upsampler_runs, f'--video={clip}', f'--out={out}', '--factor=3', '--seed=5')
  assert done.stdout.split() == [
    str(out),
    str(tmp_path / 'new' / 'large_sheet.png'),
    str(out.with_suffix('.json')),
  ]
  before, after = probe(clip), probe(out)
  assert (after.height, after.width) == (3 * before.height, 3 * before.width)
  assert (after.frames, after.fps) == (before.frames, before.fps)
  assert packets(out) == packets(clip)
  times = [[timed[:2] for timed in stream_frames(path)] for path in (clip, out)]
  np.testing.assert_allclose(*times, atol=1e-3)
  record = json.loads(out.with_suffix('.json').read_text())
  assert record['weights']['step'] == 6 and record['request']['seed'] == 5
  again = tmp_path / 'again.mp4'
  upsample(tiny_upsampler_runs, f'--video={clip}', f'--out={again}', '--factor=3', '--seed=5')
  assert json.loads(again.with_suffix('.json').read_text())['pixels'] == record['pixels']


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
    if psnr['low'] is not None:  # of fewer than five clips there is no interval
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
  answer = jax.jit(new.apply)({'params': params}, x, time, batch, {})
  without = {name: array for name, array in batch.items() if name != 'low_resolution'}
  assert np.array_equal(answer, jax.jit(old.apply)({'params': kept}, x, time, without, {}))
  config.model.conditionings.low_resolution.residual = True
  residual = make_flow_model(config.model.to_dict())
  enlarged = jax.jit(residual.apply)({'params': params}, x, time, batch, {})
  np.testing.assert_array_equal(enlarged, answer + batch['low_resolution'])


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
  plain = Upsampler(workdir)
  found = [np.stack(list(plain.stream(iter(video), size=size)))]
  guided = plain.changed(guidance={'low_resolution': 9.0})
  found += [np.stack(list(guided.stream(iter(video), size=size)))]
  assert np.any(found[0] != found[1])


def test_reconstructions_need_latents(tiny_upsampler_runs, tmp_path):
  config = tiny_upsampler.upsampler(tiny_upsampler_runs, latents=False)
  config.pairs.temporal_autoencoder = str(tiny_upsampler_runs / 'autoencoder')
  config.pairs.reconstructed = 0.5
  with pytest.raises(ConfigError, match=r'reconstructed = 0\.5 needs clips that launch\.data'):
    mgjax.train(config, tmp_path / 'run')


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_degraded_clips(tiny_upsampler_runs, tmp_path):
  config = tiny_upsampler.upsampler(tiny_upsampler_runs, latents=False, pairs__variants=3)
  tiny.resumed(config, tmp_path, 3)
  assert (tmp_path / 'whole' / 'degraded.png').exists()
  other = config.copy_and_resolve_references()
  other.seed = 1
  mgjax.train(other, tmp_path / 'other', stop_at=2)
  assert tiny.losses(tmp_path / 'whole')[1] != tiny.losses(tmp_path / 'other')[1]


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
  config.pairs.noise = 0.5
  for name, pixels in (('noisy', 2**20), ('again', 1)):  # noise is the clip's, in whatever batch
    config.encode.pixels_per_device = pixels
    assert encode(config, tmp_path / name)
  noisy, again = (Records(str(tmp_path / name / 'train/video')) for name in ('noisy', 'again'))
  for i in range(16):
    low = noisy[i]['low_resolution']
    assert np.array_equal(low, mixed[i]['low_resolution']) == same[i]
    np.testing.assert_array_equal(low, again[i]['low_resolution'])


MEASURED = r"""
import atexit, re, runpy, sys
# Not getrusage: its peak begins with that of the process that started this one.
peak = lambda: print(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])
atexit.register(peak)
runpy.run_module('launch.sample', run_name='__main__', alter_sys=True)
"""


def panning(path, count, side=32):
  """A picture that is panned over, with a sound."""
  field = np.random.default_rng(0).integers(0, 256, (320, 384, 3), np.uint8)
  places = [(3 * number % 64, 5 * number % 128) for number in range(count)]
  frames = np.stack([field[top : top + side, left : left + side] for top, left in places])
  return encode_video(path, frames, noise(count / 25))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('component', 'word', 'counts', 'flags'),
  [
    ('upsampler', 'upsample', (100, 2000), ['--size=16,24']),
    ('editing', 'edit', (200, 180 * 25), ['--prompt=make the digit red']),
  ],
)
def test_memory_does_not_grow_with_the_length(request, tmp_path, component, word, counts, flags):
  runs, peaks = request.getfixturevalue(f'tiny_{component}_runs'), []
  # An arena of memory a thread, and programs that one compiles and the other finds, are noise.
  alike = {'MALLOC_ARENA_MAX': '1', 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  for count in counts:
    # Frames that weigh 200 kB: were they kept, the long video would double what the process holds.
    video, out = panning(tmp_path / f'{count}.mp4', count, 256), tmp_path / f'large-{count}.mp4'
    command = [
      sys.executable,
      '-c',
      MEASURED,
      word,
      f'--workdir={runs / component}',
      f'--video={video}',
      f'--out={out}',
      '--steps=2',
      *flags,
    ]
    said = subprocess.check_output(
      command, cwd=binaries.CHECKOUT, text=True, env=os.environ | alike
    )
    peaks.append(int(said.split()[-1]))
    assert probe(out).frames == count and packets(out) == packets(video) != []
  assert peaks[1] <= 1.1 * peaks[0], peaks


@pytest.mark.slow
@pytest.mark.parametrize('ending', ['interrupted', 'full disk'])
def test_what_ends_early_leaves_nothing(tiny_upsampler_runs, tmp_path, ending):
  video, folder = panning(tmp_path / 'small.mp4', 400), tmp_path / 'out'
  before = video.read_bytes()
  words = [
    sys.executable,
    '-m',
    'launch.sample',
    'upsample',
    f'--workdir={tiny_upsampler_runs}/upsampler',
    f'--video={video}',
    f'--out={folder}/large.mp4',
    '--steps=2',
  ]
  room = 'ulimit -f 40; ' if ending == 'full disk' else ''  # blocks of 512 or 1024 bytes
  process = subprocess.Popen(
    ['sh', '-c', f'{room}exec {shlex.join(words)}'],
    cwd=binaries.CHECKOUT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env=os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false'},
  )
  while ending == 'interrupted' and process.poll() is None:
    if any(path.stat().st_size for path in folder.glob('.large.mp4.*')):
      process.send_signal(signal.SIGINT)
      break
    time.sleep(0.05)
  _, said = process.communicate(timeout=500)
  assert process.returncode == {'interrupted': 130, 'full disk': 3}[ending], said
  assert 'Traceback' not in said and ('make room' in said) == (ending == 'full disk')
  assert not list(folder.iterdir()) and video.read_bytes() == before
