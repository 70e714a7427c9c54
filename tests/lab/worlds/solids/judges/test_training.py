"""What judges of solids learn from is true, and training makes what `load` reads."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges import video as judges
from mgjax.lab.worlds.solids.judges.examples import make_examples
from mgjax.lab.worlds.solids.judges.network import flow, tell
from mgjax.lab.worlds.solids.judges.training import BLEMISHES, mirrored, spoil, train_judge
from mgjax.lab.worlds.solids.kinds import CAMERAS, COLOURS, MOTIONS


@pytest.fixture(scope='module')
def examples():
  return make_examples(Solids(split='judge', solids=(1, 4), extras=('segmentation',)), 0, 12)


def test_solids_are_where_their_course_says(examples):
  inside = seen = 0
  for clip, colour in np.argwhere(examples.motion >= 0):
    u, v = examples.course[clip, :, colour, 5], examples.course[clip, :, colour, 6]
    for frame in np.flatnonzero((np.abs(u) < 0.9) & (np.abs(v) < 0.9)):
      row, column = int(32 * (1 - v[frame])), int(32 * (1 + u[frame]))
      inside += examples.owner[clip, frame, row, column] == colour
      seen += 1
  assert seen > 100 and inside > 0.85 * seen  # others stand in front of the rest


def test_left_and_right_are_exchanged_and_back(examples):
  there, back = mirrored(examples), mirrored(mirrored(examples))
  for name, mine, its in zip(examples._fields, examples, back, strict=True):
    np.testing.assert_array_equal(mine, its, err_msg=name)
  names = ['', *MOTIONS]
  for mine, its in zip(examples.motion.ravel(), there.motion.ravel(), strict=True):
    swapped = {'left': 'right', 'right': 'left'}
    words = [swapped.get(word, word) for word in names[mine + 1].split()]
    assert names[its + 1] == ' '.join(words)
  moves = list(CAMERAS)
  pans = [k for k, camera in enumerate(examples.camera) if moves[camera] == 'pans left']
  assert all(moves[there.camera[k]] == 'pans right' for k in pans)


@pytest.mark.parametrize('right, down', [(0.5, 0.0), (-1.0, 0.6), (0.3, -0.8)])
def test_the_flow_of_a_moving_texture_is_its_speed(right, down):
  y, x = np.mgrid[:64, :64]
  frames = [
    np.sin(0.5 * (x - right * t) + 0.2) * np.cos(0.4 * (y - down * t)) for t in range(4)
  ]  # pixels a frame, waves of 13 and 16 pixels
  clip = jnp.asarray(np.stack(frames)[None, ..., None].repeat(3, -1), jnp.float32)
  found = np.asarray(flow(clip))[0, 2:-2, 2:-2, 3:5].mean((0, 1))
  np.testing.assert_allclose(found, [right, down], atol=0.1)


def test_blemishes_are_within_their_bounds(examples):
  import jax

  video = jnp.asarray(examples.video[:4], jnp.float32) / 127.5 - 1
  for blemishes in BLEMISHES.values():
    found = spoil(video, blemishes, jax.random.key(0))
    assert found.shape == video.shape and float(jnp.abs(found).max()) <= 1
    assert 0 < float(jnp.abs(found - video).mean()) < 0.2


@pytest.mark.slow
def test_what_is_trained_is_saved_and_read(tmp_path, monkeypatch):
  told = []
  weights = train_judge('filter', clips=4, steps=(1, 1), report=told.append)
  judges.save(tmp_path / 'own.safetensors', weights)
  monkeypatch.setattr(judges, '_HERE', tmp_path)
  read = judges.load('own')
  video = np.zeros((2, 16, 64, 64, 3), np.uint8)
  (mine, _), (its, rates) = tell(weights, video), tell(read, video)
  np.testing.assert_allclose(mine.camera, its.camera, atol=0.05)  # int8
  kinds = {leaf.dtype.name for leaf in load_file(tmp_path / 'own.safetensors').values()}
  assert kinds == {'int8', 'bfloat16', 'float16'}  # large matrices, their scales, all else
  shipped = pathlib.Path(judges.__file__).parent.glob('*.safetensors')
  assert all(path.stat().st_size < 1e6 for path in shipped)
  assert mine.present.shape == (2, len(COLOURS)) and rates.shape == (2, 13, 6)
  assert told[0].endswith('clips drawn')
