"""Whatever a stranger asks of an editor: the right video, or one sentence and no harm."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mgjax.editing.files import Request, write_edited
from mgjax.editing.pipeline import Editor
from mgjax.media.video import probe, stream_frames
from tests import binaries
from tests.end_to_end.test_upsample_inputs import (
  MEASURED,
  changing,
  digests,
  packets,
  panning,
  slides,
  sounding,
  turned,
)
from tests.media.audio_files import encode_sound, noise

RED = 'make the digit red'


@pytest.fixture(scope='module')
def editor(tiny_editing_runs):
  return Editor(tiny_editing_runs / 'editing')


# name: (makes the file, frames, (height, width) of what comes out)
RIGHT = {
  'portrait, turned by its metadata': (turned, 3, (16, 16)),
  'a slide show': (slides, 3, (16, 16)),
  'a size that changes': (changing, 6, (16, 16)),
  'sound that starts late': (lambda path: sounding(path, late=0.37), 15, (16, 16)),
}


@pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=[pytest.mark.slow] * (name != 'a slide show')) for name in RIGHT],
)
def test_what_is_a_video_is_edited(editor, tmp_path, name):
  make, frames, size = RIGHT[name]
  video, out = make(tmp_path / 'in'), tmp_path / 'new' / 'out.mp4'
  before = video.read_bytes()
  write_edited(editor, Request(video=str(video), instruction=RED), out)
  info = probe(out)
  assert (info.frames, info.height, info.width) == (frames, *size)
  times = [[timed[:2] for timed in stream_frames(path)] for path in (video, out)]
  np.testing.assert_allclose(*times, atol=1e-3)
  assert packets(out) == packets(video) and info.has_audio == probe(video).has_audio
  assert video.read_bytes() == before


def test_another_language_is_told_which_words_training_never_showed(editor, tmp_path, caplog):
  video, out = slides(tmp_path / 'in'), tmp_path / 'out.mp4'
  *_, record = write_edited(editor, Request(video=str(video), instruction='mach sie rot'), out)
  assert 'mach' in caplog.text and '"mach"' in record.read_text()
  assert out.exists()


@pytest.fixture(scope='module')
def folder(tiny_editing_runs, tmp_path_factory):
  """Files of all kinds."""
  place = tmp_path_factory.mktemp('inputs')
  sounding(place / 'good')
  whole = (place / 'good.mp4').read_bytes()
  (place / 'half.mp4').write_bytes(whole[: len(whole) // 2])
  (place / 'text.mp4').write_text('these are words\n' * 200)
  (place / 'empty.mp4').touch()
  encode_sound(place / 'sound.m4a', noise(1.0))
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / 'still_sheet.png')
  return place


GOOD, TOLD = '--video={in}/good.mp4', f'--instruction={RED}'
# name: (flags, exit code, what is said)
WRONG = {
  'no such file': (['--video={in}/none.mp4', TOLD], 3, 'none.mp4: there is no such file'),
  'cut off': (['--video={in}/half.mp4', TOLD], 3, 'half.mp4: .*cut off'),
  'text': (['--video={in}/text.mp4', TOLD], 3, 'text.mp4: is a text file, not a video'),
  'empty': (['--video={in}/empty.mp4', TOLD], 3, 'empty.mp4: is empty'),
  'sound alone': (['--video={in}/sound.m4a', TOLD], 3, 'has no video stream, only sound'),
  'no video': ([TOLD], 2, '--video is missing; for example'),
  'no instruction': ([GOOD], 2, '--instruction is missing; for example'),
  'an empty instruction': ([GOOD, '--instruction= '], 2, 'there is no instruction; say what'),
  'invisible letters': ([GOOD, '--instruction=\u200e'], 2, 'holds no text'),
  'an unknown task': ([GOOD, TOLD, '--task=paint'], 2, "'paint': expected one of recolour, "),
  'a task for SDEdit': ([GOOD, TOLD, '--task=add', '--how=sdedit'], 2, 'a prompt and no task'),
  'an unknown way': ([GOOD, TOLD, '--how=paint'], 2, 'paint'),
  'a strength of editing': ([GOOD, TOLD, '--strength=0.5'], 2, 'is of --how=sdedit; leave it out'),
  'no strength': ([GOOD, TOLD, '--how=sdedit', '--strength=0'], 2, 'strength'),
  'too much strength': ([GOOD, TOLD, '--how=sdedit', '--strength=1.1'], 2, '1.1'),
  'a model of text to video': (
    [GOOD, TOLD, '--workdir={runs}/video'], 2, 'reads no source video.*--how=sdedit',
  ),
  'another model': ([GOOD, TOLD, '--workdir={runs}/autoencoder'], 2, 'a video editor'),
  'no work directory': ([GOOD, TOLD, '--workdir={in}/nowhere'], 2, 'nowhere'),
  'guidance of what it lacks': ([GOOD, TOLD, '--guidance=sound=2'], 2, 'sound'),
  'a picture of several frames': ([GOOD, TOLD, '--out={out}/out.png'], 2, 'are written as .mp4'),
  'the video itself': ([GOOD, TOLD, '--out={in}/good.mp4'], 2, 'would write over --video='),
  'the video as sheet': (
    ['--video={in}/still_sheet.png', TOLD, '--out={in}/still.mp4'], 2, 'would write over --video=',
  ),
  'a folder that takes no file': ([GOOD, TOLD, '--out=/proc/out.mp4'], 2, 'cannot be written'),
  'another word': (['paint', GOOD, TOLD], 2, 'expected generate as the first word'),
}  # fmt: skip
QUICK = (
  'cut off',
  'no instruction',
  'an unknown task',
  'a model of text to video',
  'another model',
)


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in WRONG]
)
def test_what_is_none_ends_with_a_sentence(tiny_editing_runs, folder, tmp_path, name):
  given, code, said = WRONG[name]
  places = {'in': folder, 'out': tmp_path, 'runs': tiny_editing_runs}
  flags = [flag.format(**places) for flag in given]
  flags += [f'--workdir={tiny_editing_runs}/editing'] * ('--workdir' not in ' '.join(flags))
  flags += [f'--out={tmp_path}/out.mp4'] * ('--out' not in ' '.join(flags))
  before = digests(folder)
  done = binaries.run('edit', *flags, timeout=120)
  assert done.returncode == code, done.stderr
  assert re.fullmatch(rf'edit\.py: .*{said}.*\n', done.stderr), done.stderr
  assert not done.stdout
  assert digests(folder) == before and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_three_minutes_take_no_more_memory_than_seconds(tiny_editing_runs, tmp_path):
  peaks = []
  # An arena of memory a thread, and programs that one compiles and the other finds, are noise.
  alike = {'MALLOC_ARENA_MAX': '1', 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  measured = MEASURED.replace('launch.upsample', 'launch.edit')
  for count in (200, 180 * 25):
    # Kept at the size that it has, 200 kB a frame, it would double what the process holds.
    video, out = panning(tmp_path / f'{count}.mp4', count, 256), tmp_path / f'out-{count}.mp4'
    command = [sys.executable, '-c', measured, f'--workdir={tiny_editing_runs}/editing',
               f'--video={video}', f'--instruction={RED}', f'--out={out}', '--steps=2']  # fmt: skip
    said = subprocess.check_output(
      command, cwd=binaries.CHECKOUT, text=True, env=os.environ | alike
    )
    peaks.append(int(said.split()[-1]))
    assert probe(out).frames == count and packets(out) == packets(video) != []
  assert peaks[1] <= 1.1 * peaks[0], peaks
