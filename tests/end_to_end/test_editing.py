"""A video and an instruction in, the edited video out with its sound, by the binary users call."""

import hashlib
import json

import jax
import numpy as np
import pytest
from PIL import Image

import mgjax
from mgjax.core.tree import named_leaves
from mgjax.data.media.video import probe, read_clip, stream_frames
from mgjax.lab.evaluation.suites.make_videos import SuiteSettings, run_suite
from mgjax.lab.evaluation.suites.suite import read_suite
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.sections.editing.pipeline import Editor
from mgjax.training.checkpoints.load_params import load_params
from tests import binaries, tiny, tiny_editing
from tests.end_to_end.test_upsampling import packets, write_sounding
from tests.tiny_editing import SIDE, WINDOW

RATE = 48_000
RED = 'make the digit red'


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  """A digit that moves for more than two windows, with a sound."""
  return write_sounding(tmp_path_factory.mktemp('clips') / 'in.mp4', 2 * WINDOW + 3, (40, 32))


def edit(runs, video, *arguments, run='editing'):
  return binaries.finish(
    'sample', 'edit', f'--workdir={runs / run}', f'--video={video}', *arguments
  )


def test_a_bench_of_pictures_is_edited_by_its_instructions_each_once(tiny_editing_runs, tmp_path):
  out = tmp_path / 'edited'
  rows = [{'video': f'{n}.png', 'instruction': RED, 'task': 'odd'} for n in range(2)]
  for number, row in enumerate(rows):
    picture = Digits(frames=1, size=(SIDE, SIDE))[number]['video'][0]
    Image.fromarray(picture).save(tmp_path / row['video'])
  (tmp_path / 'edits.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  for expected in ((2, 0), (0, 2)):
    suite, settings = read_suite(tmp_path), SuiteSettings()
    made = run_suite(tiny_editing_runs / 'editing', suite, out, settings, steps=2)
    assert (made.created, made.existing) == expected and (out / '0001_1.mp4').exists()
  assert json.loads((out / '0000_0.json').read_text())['request']['task'] == 'recolour'


def test_another_language_is_told_which_words_training_never_showed(
  tiny_editing_runs, tmp_path, caplog
):
  Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(tmp_path / 'in.png')
  editor = Editor(tiny_editing_runs / 'editing', steps=1)
  *_, record = editor.save('mach sie rot', tmp_path / 'out.png', video=tmp_path / 'in.png')
  assert 'mach' in caplog.text and '"mach"' in record.read_text()


def test_the_binary_edits_a_video_and_leaves_its_sound(tiny_editing_runs, clip, tmp_path):
  out, record = tmp_path / 'new' / 'out.mp4', tmp_path / 'new' / 'out.json'
  flags = [f'--prompt={RED}', '--task=recolour', '--guidance=source_video=1.2,text=2']
  done = edit(tiny_editing_runs, clip, f'--out={out}', *flags, '--seed=5', '--steps=2')
  assert done.stdout.split() == [str(out), str(tmp_path / 'new' / 'out_sheet.png'), str(record)]
  before, after = probe(clip), probe(out)
  assert (after.height, after.width) == (SIDE, SIDE)
  assert (after.frames, after.fps) == (before.frames, before.fps)
  assert packets(out) == packets(clip) != []
  times = [[timed[:2] for timed in stream_frames(path)] for path in (clip, out)]
  np.testing.assert_allclose(*times, atol=1e-3)
  found = json.loads(record.read_text())
  asked = found['request']
  assert (asked['prompt'], asked['task'], asked['how']) == (RED, 'recolour', 'edit')
  # All that is needed to make it again is there, and what it was made of.
  settings = {name: found['settings'][name] for name in ('steps', 'guidance', 'solver')}
  editor = mgjax.load(found['weights']['workdir'], **settings)
  video = read_clip(clip, frames=before.frames, size=(SIDE, SIDE), fps=before.fps)
  made = editor.generate(
    asked['prompt'],
    video=video,
    task=asked['task'],
    seed=asked['seed'],
    fps=found['fps'],
    batch_size=asked['batch_size'],
  )
  assert digest(video) == found['source_pixels']
  assert digest(made[0]) == found['pixels']
  again = tmp_path / 'again.mp4'
  paths = editor.save(RED, again, video=str(clip), task='recolour', seed=5)
  assert json.loads(paths[-1].read_text())['pixels'] == found['pixels']


def digest(video):
  return hashlib.sha256(video.tobytes()).hexdigest()[:16]


def test_sdedit_needs_no_editor(tiny_editing_runs, clip, tmp_path):
  out = tmp_path / 'out.mp4'
  edit(
    tiny_editing_runs,
    clip,
    f'--out={out}',
    '--strength=0.4',
    '--prompt=the red digit 3 moves left',
    run='video',
  )
  assert json.loads(out.with_suffix('.json').read_text())['request']['strength'] == 0.4
  assert probe(out).frames == probe(clip).frames
  edit(tiny_editing_runs, clip, f'--out={out}', '--strength=0.5', f'--prompt={RED}')
  assert json.loads(out.with_suffix('.json').read_text())['request']['strength'] == 0.5


def test_a_picture_is_edited_as_a_video_of_one_frame(tiny_editing_runs, tmp_path):
  picture = tmp_path / 'in.png'
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8)).save(picture)
  edit(tiny_editing_runs, picture, f'--prompt={RED}', f'--out={tmp_path / "out.png"}')
  with Image.open(tmp_path / 'out.png') as made:
    assert made.size == (16, 32)  # which the model can make
  assert (tmp_path / 'out_sheet.png').exists()


@pytest.mark.slow
@pytest.mark.parametrize('how', ['edit', 'sdedit'])
def test_sharded_is_unsharded(tiny_editing_runs, how):
  videos = np.random.default_rng(0).integers(0, 256, (4, WINDOW, SIDE, SIDE, 3), np.uint8)
  long = videos.reshape(1, -1, SIDE, SIDE, 3)
  for given in (videos, long):
    one, many = (
      Editor(tiny_editing_runs / 'editing', mesh=mesh).generate(
        [RED] * len(given), video=given, how=how
      )
      for mesh in (None, 'data=4,context=2')
    )
    assert np.abs(one.astype(int) - many).max() <= 1  # bytes rounded from sums in another order


@pytest.mark.slow
def test_an_editor_starts_from_text_to_video_and_goes_on_where_it_stopped(
  tiny_editing_runs, tmp_path
):
  """What text to video had is taken over, and a run that was stopped ends in the same bits."""
  changes = {'model__positions': tiny.VIDEO['model.positions'], 'train__steps': 4}
  config = tiny_editing.editing(tiny_editing_runs, **changes)
  tiny.resumed(config, tmp_path, 3)
  config.optimizer.learning_rate = 1e-12
  mgjax.train(config, tmp_path / 'still', stop_at=1)
  before = named_leaves(load_params(tiny_editing_runs / 'video')[0])
  after = named_leaves(load_params(tmp_path / 'still')[0])
  assert {name.partition('/')[0] for name in after.keys() - before.keys()} == {
    'source_video',
    'task',
  }
  for name, leaf in before.items():
    np.testing.assert_allclose(after[name], leaf, atol=1e-6)
  made = jax.tree.map(np.asarray, mgjax.load(tmp_path / 'whole').generate([RED]))
  assert made.shape == (1, WINDOW, SIDE, SIDE, 3)
