"""Clips marked by a segmenter: pixels, pairs, what cannot be marked, and training on them."""

import numpy as np
import pytest

from mgjax.data.ingest.entries import list_entries
from mgjax.data.media.video import read_clip, write_video
from mgjax.lab.curation.marked_clips import COLOURS, MarkSettings, mark_clips
from mgjax.lab.worlds.digits.clips import Digits
from tests import binaries

SEGMENTER = 'tests.lab.curation.test_marked_clips:bright'


def bright(frames, what):
  """Masks of what is bright, which a digit on black is; nothing of a ghost."""
  return np.zeros(frames.shape[:3]) if what == 'a ghost' else frames.max(-1) > 100


def make_clips(folder):
  folder.mkdir()
  source = Digits(frames=8, size=(32, 32))
  for index, caption in enumerate(('the digit', 'a ghost', 'the other digit')):
    write_video(folder / f'{index}.mp4', source[index]['video'], 8, 2)
    (folder / f'{index}.txt').write_text(caption)
  (folder / '3.mp4').write_bytes(b'no video')
  return folder


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
  return make_clips(tmp_path_factory.mktemp('marks') / 'clips')


def test_a_layer_of_colour_lies_where_the_masks_are_and_nowhere_else(clips, tmp_path):
  made = mark_clips(clips, tmp_path, bright, MarkSettings(opacity=0.5, crf=1))
  assert made.pairs == 2 and made.path == tmp_path / 'pairs.csv'
  assert made.rejected.keys() == {'1.mp4', '3.mp4'}
  assert "found 'a ghost' in 0.00% of its pixels" in made.rejected['1.mp4']
  for entry in list_entries(made.path):
    before, after = (
      read_clip(path, frames=8, size=(64, 64), fps=8).astype(float)
      for path in (tmp_path / entry.extra['source_video'], entry.path)
    )
    (name,) = [name for name in COLOURS if entry.caption.endswith(f' in {name}')]
    assert entry.caption.startswith('mark the ') and entry.extra['task'] == 'mark'
    mask = bright(before, '')
    expected = before + 0.5 * mask[..., None] * (np.array(COLOURS[name]) - before)
    # x264 at a rate factor of 1 and half the resolution of colours: some levels, at edges.
    assert np.abs(after - expected).mean() < 4
    assert np.abs(after - expected)[mask].mean() < 0.3 * np.abs(before - expected)[mask].mean()


def test_the_same_call_goes_on_and_writes_the_same_pairs(clips, tmp_path):
  mark_clips(clips, tmp_path, bright)
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  gone = next(tmp_path.glob('000000_????????.mp4'))
  gone.unlink()
  asked = []
  mark_clips(clips, tmp_path, lambda frames, what: asked.append(what) or bright(frames, what))
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
  assert len(asked) == 2  # what was not there, and the ghost


def test_the_binary_marks_clips_and_says_what_it_left_out(clips, tmp_path):
  arguments = ['mark', f'--input={clips}', f'--output={tmp_path}/marked']
  done = binaries.finish('data', *arguments, f'--segmenter={SEGMENTER}')
  lines = done.stdout.splitlines()
  assert lines[-1] == f'{tmp_path}/marked/pairs.csv: 2 pairs of 4 clips' and '1.mp4: ' in lines[0]
  done = binaries.run('data', *arguments, '--segmenter=nothing.at:all')
  assert done.returncode == 2 and "plug-in 'nothing.at:all' cannot be imported" in done.stderr
