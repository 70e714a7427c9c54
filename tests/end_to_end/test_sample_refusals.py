"""What `launch.sample` cannot do is one sentence before anything is made, and no file changes."""

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mgjax.core.files import write_json
from mgjax.data.media.video import write_video
from tests import binaries
from tests.data.media.audio_files import encode_video, noise
from tests.folders import files_of
from tests.tiny_personalization import untrained

FRAMES = np.random.default_rng(0).integers(0, 256, (15, 32, 48, 3), np.uint8)


@pytest.fixture(scope='module')
def folder(tiny_upsampler_runs, tmp_path_factory):
  """Files of all kinds, and work directories without weights."""
  place = tmp_path_factory.mktemp('inputs')
  encode_video(place / 'good.mp4', FRAMES, noise(0.6))
  whole = (place / 'good.mp4').read_bytes()
  (place / 'half.mp4').write_bytes(whole[: len(whole) // 2])
  (place / 'linked.mp4').symlink_to('good.mp4')
  os.link(place / 'good.mp4', place / 'twin.mp4')
  (place / 'taken_sheet.png').mkdir()
  Image.fromarray(FRAMES[0]).save(place / 'still_sheet.png')
  write_video(place / 'eight.mp4', FRAMES[:8, :16, :16], 8)
  (place / 'two.txt').write_text('a\nb\n')
  write_json(place / 'person' / 'config.json', untrained(place).to_dict())
  (place / 'bare').mkdir()
  shutil.copy(tiny_upsampler_runs / 'upsampler/config.json', place / 'bare')
  return place


GOOD, RED = '--video={in}/good.mp4', '--prompt=make the digit red'
HER = '--reference={in}/still_sheet.png'
# The component whose work directory is meant: {name: (flags, exit code, what is said)}.
WRONG = {
  'video': {
    'two kinds of prompts': (['--prompt=a', '--prompts={in}/two.txt'], 2, 'give one of --prompt='),
    'no prompt': ([], 2, '--prompt is missing'),
    'sound of an image': (
      ['--prompt=a', '--frames=1', '--soundtrack={sound}/audio', '--out={out}/a.png'],
      2,
      'one frame makes an image',
    ),
    'a flag of sound': (['--prompt=a', '--loudness=-20'], 2, 'flag of audio, suite; video does'),
    'a flag of an editor': (['--prompt=a', '--task=add'], 2, 'is a flag of edit, suite; video'),
    'a word of an editor': (['edit', GOOD, RED], 2, 'a video model: expected launch.sample video'),
    'a suite of sounds': (
      ['suite', '--suite=digits:2', '--loudness=-20'],
      2,
      'says nothing to a video model; .* component audio',
    ),
    'a word that there is not': (['film', '--prompt=a'], 2, 'expected video or image or audio'),
    'a model that reads no frames': (
      ['--prompt=a', '--continue={in}/eight.mp4'],
      2,
      'train it on with a conditioning of the kind',
    ),
    'a rewriter that is none': (['--prompt=a', '--rewrite=llama'], 2, 'expected MODEL@URL'),
    'a share of nothing': (['--prompt=a', '--process=0/2'], 2, '--process is a flag of suite'),
    'a prompt and a suite': (['--prompt=a', '--suite=digits:2'], 2, '--suite is a flag of suite'),
    'a suite without a place': (['suite', '--suite=digits:2', '--out='], 2, 'folder of a suite'),
    'a suite of nothing': (['suite', '--suite=no.txt'], 3, r'no\.txt: cannot be read'),
    'an autoencoder': (['--prompt=a', '--workdir={runs}/autoencoder'], 2, 'that can be sampled'),
  },
  'audio': {
    'no length': (['--prompt=a'], 2, r'how long\? without a video the length is given'),
    'frames of a sound': (
      ['--prompt=a', '--seconds=1', '--frames=3'],
      2,
      '--frames is a flag of video',
    ),
    'several prompts': (['--prompts={in}/two.txt', '--seconds=1'], 2, '--prompts is a flag of'),
  },
  'upsampler': {
    'a prompt alone': (['--prompt=a'], 2, '--video is missing: what is changed'),
    'cut off': (['--video={in}/half.mp4'], 3, r'half\.mp4: .*cut off'),
    'an address': (['--video=https://a.org/b.mp4'], 3, r'a\.org/b\.mp4: is an address; download'),
    'too large a factor': ([GOOD, '--factor=17'], 2, 'scale = 17; expected'),
    'a factor and a size': (
      [GOOD, '--factor=2', '--size=16,16'],
      2,
      'one of a factor, as --factor=2',
    ),
    'a folder as output': ([GOOD, '--out={out}'], 2, r'are written as \.mp4'),
    'a folder as sheet': ([GOOD, '--out={in}/taken.mp4'], 2, r'taken_sheet\.png is a folder'),
    'the video itself': ([GOOD, '--out={in}/good.mp4'], 2, 'would write over --video='),
    'a link to the video': ([GOOD, '--out={in}/linked.mp4'], 2, 'would write over --video='),
    'its hard link': ([GOOD, '--out={in}/twin.mp4'], 2, 'would write over --video='),
    'the video as sheet': (
      ['--video={in}/still_sheet.png', '--out={in}/still.mp4'],
      2,
      'would write over --video=',
    ),
    'a folder that takes no file': ([GOOD, '--out=/proc/large.mp4'], 2, 'cannot be written'),
    'more devices than there are': ([GOOD, '--mesh=data=99'], 2, '99'),
    'no work directory': ([GOOD, '--workdir={in}/nowhere'], 2, 'nowhere'),
    'no checkpoint': ([GOOD, '--workdir={in}/bare'], 5, 'bare'),
  },
  'editing': {
    'no instruction': ([GOOD], 2, '--prompt is missing'),
    'an unknown task': ([GOOD, RED, '--task=paint'], 2, "'paint': expected one of recolour, "),
    'sound that is edited': (
      [GOOD, RED, '--strength=0.5', '--workdir={sound}/audio'],
      2,
      'an audio model: expected launch.sample audio',
    ),
  },
  'personalization': {
    'nobody': (['--prompt=a'], 2, '--reference is missing: a picture of the person'),
    'no such file': (['--prompt=a', '--reference=no.jpg'], 3, "--reference: there is no file 'no"),
    'a list for digits': (
      ['--prompt=a', HER, '--deny_list={in}/two.txt'],
      2,
      'looks for no faces',
    ),
    'too many': (['--prompt=a', HER + ',{in}/still_sheet.png'], 2, '2 references; the model reads'),
  },
}
CASES = [(component, name) for component, cases in WRONG.items() for name in cases]
QUICK = {
  'a flag of sound',
  'no prompt',
  'an autoencoder',
  'a prompt and a suite',
  'no length',
  'cut off',
  'the video itself',
  'an unknown task',
  'nobody',
  'a list for digits',
}


@pytest.mark.parametrize(
  ('component', 'name'),
  [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] not in QUICK)) for case in CASES],
)
def test_what_cannot_be_done_is_said_in_one_sentence(request, folder, tmp_path, component, name):
  given, code, said = WRONG[component][name]
  runs = {name: f'tiny_{name}_runs' for name in ('upsampler', 'editing')}
  runs |= {'video': 'tiny_runs', 'audio': 'tiny_sound_runs'}
  places = {'in': folder, 'out': tmp_path, 'runs': '', 'sound': ''}
  for key, fixture in (('runs', 'tiny_runs'), ('sound', 'tiny_sound_runs')):
    if any(f'{{{key}}}' in flag for flag in given):
      places[key] = request.getfixturevalue(fixture)
  workdir = folder / 'person'
  if component in runs:
    workdir = request.getfixturevalue(runs[component]) / component
  words = {'upsampler': 'upsample', 'editing': 'edit', 'personalization': 'personalize'}
  word = words.get(component, component)
  word, given = (given[0], given[1:]) if given and given[0][0] != '-' else (word, given)
  flags = [flag.format(**places) for flag in given]
  flags += [f'--workdir={workdir}'] * ('--workdir' not in ' '.join(flags))
  kind = 'wav' if component == 'audio' else 'mp4'
  out = tmp_path / ('suite' if '--suite' in ' '.join(flags) else f'out.{kind}')
  flags += [f'--out={out}'] * (
    '--out' not in ' '.join(flags) and '--prompts' not in ' '.join(flags)
  )
  before = files_of(folder)
  done = binaries.run('sample', word, *flags, timeout=120)
  assert done.returncode == code, done.stderr
  assert re.fullmatch(rf'sample\.py: .*{said}.*\n', done.stderr), done.stderr
  assert not done.stdout
  assert files_of(folder) == before and not list(tmp_path.iterdir())
