"""Whatever file a stranger gives the upsampler: the right video, or one sentence and no harm."""

import functools
import hashlib
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from PIL import Image

from mgjax.media.video import probe, stream_frames, write_video
from mgjax.upsampler.files import Request, write_upsampled
from mgjax.upsampler.pipeline import Upsampler
from tests import binaries
from tests.media.audio_files import encode_sound, encode_video, noise
from tests.media.hostile_clips import encoded

FRAMES = np.random.default_rng(0).integers(0, 256, (15, 8, 12, 3), np.uint8)
LOSSLESS = ('matroska', 'ffv1', 'bgr0')


def clip(path, frames=FRAMES, kind=LOSSLESS, times=None):
  path = path.with_suffix('.mkv' if kind[0] == 'matroska' else '.mp4')
  path.write_bytes(encoded(frames, *kind, times, {}))
  return path


def odd(path):
  return clip(path, np.tile(FRAMES[:7], (1, 3, 3, 1))[:, :23, :17])


def turned(path):
  path = path.with_suffix('.mp4')
  write_video(path, FRAMES[:3, :8, :12], fps=8)
  data = bytearray(path.read_bytes())
  matrix = data.find(b'tkhd') + 44
  data[matrix : matrix + 36] = struct.pack('>9i', 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
  path.write_bytes(data)
  return path


def still(path):
  path = path.with_suffix('.png')
  Image.fromarray(FRAMES[0]).save(path)
  return path


def slides(path):
  """One picture in two seconds."""
  path = path.with_suffix('.gif')
  frames = [Image.fromarray(frame) for frame in FRAMES[:3]]
  frames[0].save(path, 'GIF', save_all=True, append_images=frames[1:], duration=2000)
  return path


def fast(path):
  path = path.with_suffix('.mp4')
  write_video(path, FRAMES, fps=300)
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
  'one frame': (lambda path: clip(path, FRAMES[:1]), 1, (16, 24), {}),
  'a still picture': (still, 1, (16, 24), {}),
  '15 frames, an odd factor': (clip, 15, (10, 16), {'scale': 1.3}),
  'odd sides asked for': (clip, 15, (18, 24), {'size': (17, 23)}),
  'portrait, turned by its metadata': (turned, 3, (24, 16), {}),
  'times that vary': (
    lambda path: clip(path, FRAMES[:8], times=[0, 1, 2, 40, 41, 300, 301, 302]), 8, (16, 24), {},
  ),
  'a slide show': (slides, 3, (16, 24), {}),
  'faster than any model': (fast, 15, (16, 24), {}),
  '10 bits': (
    lambda path: clip(path, np.tile(FRAMES, (1, 4, 4, 1)), ('mp4', 'libx264', 'yuv420p10le')),
    15, (64, 96), {},
  ),
  'a size that changes': (changing, 6, (32, 32), {}),
  'sound that starts late': (functools.partial(sounding, late=0.37), 15, (64, 96), {}),
  'a prompt with a frame rate': (clip, 15, (16, 24), {'prompt': 'FPS-16 a red digit'}),
}  # fmt: skip


@pytest.fixture(scope='module')
def upsampler(tiny_upsampler_runs):
  return Upsampler(tiny_upsampler_runs / 'upsampler')


def packets(path):
  with av.open(str(path)) as container:
    sounds = container.streams.audio
    return [bytes(packet) for packet in container.demux(*sounds)] if sounds else []


QUICK = ('a still picture', 'times that vary')


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in RIGHT]
)
def test_what_is_a_video_becomes_a_large_one(upsampler, tmp_path, name):
  make, frames, size, options = RIGHT[name]
  video, out = make(tmp_path / 'small'), tmp_path / 'new' / 'large.mp4'
  before = video.read_bytes()
  write_upsampled(upsampler, Request(video=str(video), **options), out)
  info = probe(out)
  assert (info.frames, info.height, info.width) == (frames, *size)
  times = [[timed[:2] for timed in stream_frames(path)] for path in (video, out)]
  np.testing.assert_allclose(*times, atol=1e-3)
  assert packets(out) == packets(video) and info.has_audio == probe(video).has_audio
  assert video.read_bytes() == before


@pytest.fixture(scope='module')
def folder(tiny_upsampler_runs, tmp_path_factory):
  """Files of all kinds, and work directories that are none."""
  place = tmp_path_factory.mktemp('inputs')
  sounding(place / 'good')
  whole = (place / 'good.mp4').read_bytes()
  (place / 'half.mp4').write_bytes(whole[: len(whole) // 2])
  (place / 'text.mp4').write_text('these are words\n' * 200)
  (place / 'empty.mp4').touch()
  (place / 'clips').mkdir()
  (place / 'folder.mp4').mkdir()
  (place / 'linked.mp4').symlink_to('good.mp4')
  os.link(place / 'good.mp4', place / 'twin.mp4')
  (place / 'taken_sheet.png').mkdir()
  Image.fromarray(FRAMES[0]).save(place / 'still_sheet.png')
  encode_sound(place / 'sound.m4a', noise(1.0))
  shutil.copytree(tiny_upsampler_runs / 'upsampler', place / 'bare')
  for path in (place / 'bare').iterdir():
    if path.name != 'config.json':
      shutil.rmtree(path) if path.is_dir() else path.unlink()
  return place


GOOD = '--video={in}/good.mp4'
# name: (flags, exit code, what is said)
WRONG = {
  'no such file': (['--video={in}/none.mp4'], 3, 'none.mp4: there is no such file'),
  'cut off': (['--video={in}/half.mp4'], 3, 'half.mp4: .*cut off'),
  'text': (['--video={in}/text.mp4'], 3, 'text.mp4: is a text file, not a video'),
  'empty': (['--video={in}/empty.mp4'], 3, 'empty.mp4: is empty'),
  'a folder': (['--video={in}/clips'], 3, 'clips: is a folder, not a video'),
  'an address': (['--video=https://a.org/b.mp4'], 3, 'a.org/b.mp4: is an address; download'),
  'sound alone': (['--video={in}/sound.m4a'], 3, 'sound.m4a: has no video stream, only sound'),
  'too large a factor': ([GOOD, '--scale=17'], 2, '17'),
  'a factor that is no number': ([GOOD, '--scale=nan'], 2, 'scale'),
  '20,000 pixels': ([GOOD, '--size=8,20000'], 2, '20000 x 8 pixels; expected 1 to 16384'),
  'too many pixels': ([GOOD, '--size=9000,9000'], 2, '9000 x 9000 pixels; expected'),
  'a size that is none': ([GOOD, '--size=0,8'], 2, '--size=0,8: expected height,width'),
  'a folder as output': ([GOOD, '--out={out}'], 2, 'expected the name of an .mp4'),
  'a folder called .mp4': ([GOOD, '--out={in}/folder.mp4'], 2, 'folder.mp4 is a folder'),
  'a folder as sheet': ([GOOD, '--out={in}/taken.mp4'], 2, 'taken_sheet.png is a folder'),
  'another kind': ([GOOD, '--out={out}/large.mov'], 2, '.mp4 can be written'),
  'the video itself': ([GOOD, '--out={in}/good.mp4'], 2, 'good.mp4: would write over --video='),
  'a link to the video': ([GOOD, '--out={in}/linked.mp4'], 2, 'would write over --video='),
  'its hard link': ([GOOD, '--out={in}/twin.mp4'], 2, 'would write over --video='),
  'the video as sheet': (
    ['--video={in}/still_sheet.png', '--out={in}/still.mp4'], 2, 'would write over --video=',
  ),
  'a folder that takes no file': ([GOOD, '--out=/proc/large.mp4'], 2, 'cannot be written'),
  'a file as folder': ([GOOD, '--out={in}/good.mp4/large.mp4'], 2, 'cannot be written'),
  'too long a name': ([GOOD, f'--out={{out}}/{300 * "a"}.mp4'], 2, 'cannot be written'),
  'a prompt of nothing': ([GOOD, '--prompt= '], 2, 'holds no text'),
  'too large a seed': ([GOOD, '--seed=99999999999999999999'], 2, 'seed'),
  'no steps': ([GOOD, '--steps=0'], 2, 'steps'),
  'guidance that is none': ([GOOD, '--guidance=much'], 2, '--guidance=much: expected'),
  'more devices than there are': ([GOOD, '--mesh=data=99'], 2, '99'),
  'another model': ([GOOD, '--workdir={runs}/autoencoder'], 2, 'an upsampler'),
  'no work directory': ([GOOD, '--workdir={in}/nowhere'], 2, 'nowhere'),
  'a folder of clips': ([GOOD, '--workdir={in}/clips'], 2, 'clips'),
  'no checkpoint': ([GOOD, '--workdir={in}/bare'], 5, 'bare'),
}  # fmt: skip


def digests(folder):
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize('name', WRONG)
def test_what_is_none_ends_with_a_sentence(tiny_upsampler_runs, folder, tmp_path, name):
  given, code, said = WRONG[name]
  places = {'in': folder, 'out': tmp_path, 'runs': tiny_upsampler_runs}
  flags = [flag.format(**places) for flag in given]
  flags += [f'--workdir={tiny_upsampler_runs}/upsampler'] * ('--workdir' not in ' '.join(flags))
  flags += [f'--out={tmp_path}/large.mp4'] * ('--out' not in ' '.join(flags))
  before = digests(folder)
  done = binaries.run('upsample', *flags, timeout=60)
  assert done.returncode == code, done.stderr
  assert re.fullmatch(rf'upsample\.py: .*{said}.*\n', done.stderr), done.stderr
  assert not done.stdout
  assert digests(folder) == before and not list(tmp_path.iterdir())


MEASURED = r"""
import atexit, re, runpy, sys
# Not getrusage: its peak begins with that of the process that started this one.
peak = lambda: print(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])
atexit.register(peak)
runpy.run_module('launch.upsample', run_name='__main__', alter_sys=True)
"""


def panning(path, count, side=32):
  """A picture that is panned over, with a sound."""
  field = np.random.default_rng(0).integers(0, 256, (320, 384, 3), np.uint8)
  places = [(3 * number % 64, 5 * number % 128) for number in range(count)]
  frames = np.stack([field[top : top + side, left : left + side] for top, left in places])
  return encode_video(path, frames, noise(count / 25))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tiny_upsampler_runs, tmp_path):
  peaks = []
  # An arena of memory a thread, and programs that one compiles and the other finds, are noise.
  alike = {'MALLOC_ARENA_MAX': '1', 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  for count in (100, 2000):
    # Frames that weigh 200 kB: were they kept, 2,000 would double what the process holds.
    video, out = panning(tmp_path / f'{count}.mp4', count, 256), tmp_path / f'large-{count}.mp4'
    command = [sys.executable, '-c', MEASURED, f'--workdir={tiny_upsampler_runs}/upsampler',
               f'--video={video}', f'--out={out}', '--steps=2', '--size=16,24']  # fmt: skip
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
  words = [sys.executable, '-m', 'launch.upsample', f'--workdir={tiny_upsampler_runs}/upsampler',
           f'--video={video}', f'--out={folder}/large.mp4', '--steps=2']  # fmt: skip
  room = 'ulimit -f 40; ' if ending == 'full disk' else ''  # blocks of 512 or 1024 bytes
  process = subprocess.Popen(
    ['sh', '-c', f'{room}exec {shlex.join(words)}'], cwd=binaries.CHECKOUT, text=True,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    env=os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false'},
  )  # fmt: skip
  while ending == 'interrupted' and process.poll() is None:
    if any(path.stat().st_size for path in folder.glob('.large.mp4.*')):
      process.send_signal(signal.SIGINT)
      break
    time.sleep(0.05)
  _, said = process.communicate(timeout=500)
  assert process.returncode == {'interrupted': 130, 'full disk': 3}[ending], said
  assert 'Traceback' not in said and ('make room' in said) == (ending == 'full disk')
  assert not list(folder.iterdir()) and video.read_bytes() == before
