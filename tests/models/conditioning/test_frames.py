"""Known frames: what is drawn in training, what the codec sees, and what is refused."""

import collections

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from mgjax.core.errors import ConfigError
from mgjax.models.conditioning.frames import Frames, nearest_known

SHARES = {'first': 0.3, 'ends': 0.15, 'prefix': 0.35}
DRAW = np.random.default_rng(0)


def make(**changes):
  return Frames(dim=8, patch=(1, 2, 2), stride=4, **(SHARES | changes))


def clip(frames=8):
  return DRAW.integers(256, size=(frames, 4, 4, 3), dtype=np.uint8)


def kind_of(known):
  count = int(known.sum())
  ends = known[0] and known[-1] and count == 2
  return 'ends' if ends else count if known[:count].all() else 'another'


def test_what_is_known_of_a_clip_of_training_follows_the_shares():
  # A prefix of 1 is a first frame; the others, of 2 to 7 frames, are equally frequent.
  expected = {1: 0.3 + 0.35 / 7, 'ends': 0.15, 0: 0.2, **dict.fromkeys(range(2, 8), 0.35 / 7)}
  found = collections.Counter(kind_of(make().draw(clip())) for _ in range(4000))
  assert found.keys() == expected.keys()
  counts = [found[kind] for kind in expected]
  assert chisquare(counts, [4000 * share for share in expected.values()]).pvalue > 1e-3


def test_what_is_known_depends_on_the_clip_alone():
  made, clips = make(), [clip() for _ in range(16)]
  masks = [made.prepare({'video': each})['known'] for each in clips]
  for each, mask in zip(clips, masks, strict=True):
    sample = {'video': each.copy(), 'caption': 'another'}
    np.testing.assert_array_equal(made.prepare(sample)['known'], mask)
  assert len({mask.tobytes() for mask in masks}) > 3


def test_of_a_picture_nothing_is_known_and_its_clip_is_black():
  for _ in range(16):
    sample = {'video': clip(1)}
    assert not make().prepare(sample)['known'].any()
    assert not make().clips(sample)['known_frames'].any()


def test_the_codec_sees_the_nearest_known_frame_in_place_of_each_unknown_one():
  frames = clip()
  known = np.isin(np.arange(8), (1, 5))
  np.testing.assert_array_equal(nearest_known(frames, known), frames[[1, 1, 1, 1, 5, 5, 5, 5]])
  sample = {'video': frames, 'known': known.astype(np.float32)}
  np.testing.assert_array_equal(
    make().clips(sample)['known_frames'], frames[[1, 1, 1, 1, 5, 5, 5, 5]]
  )


@pytest.mark.parametrize(
  'names', [('first_frame',), ('last_frame',), ('first_frame', 'last_frame')]
)
def test_pictures_are_the_ends_of_what_is_to_be_made(names):
  pictures, made = dict(zip(names, (clip(1), clip(1)), strict=False)), make()
  sample = {'frames': 6, **pictures}
  shown, known = made.clips(sample)['known_frames'], made.prepare(sample)['known']
  assert shown.shape == (6, 4, 4, 3)
  for name, place in (('first_frame', 0), ('last_frame', 5)):
    assert known[place] == (name in names)
    if name in names:
      np.testing.assert_array_equal(shown[place], pictures[name][0])
  assert not known[1:5].any()
  # A clip that does not fill its last latent: the rest of that is as its last frame.
  np.testing.assert_array_equal(known[5:], np.full(3, 'last_frame' in names))


def test_what_is_drawn_of_a_clip_that_fills_no_whole_latent_is_drawn_of_its_frames_again():
  for frames in (6, 7, 8):
    sample = {'video': clip(frames)}
    drawn = make().prepare(sample)['known']
    again = {'known_frames': make().clips(sample)['known_frames'], 'known': drawn}
    np.testing.assert_array_equal(make().prepare(again)['known'], drawn)


def test_without_known_frames_there_is_nothing():
  sample = {'caption': 'a', 'frames': 8}
  assert not make().prepare(sample) and not make().clips(sample)


def test_what_does_not_fit_is_refused():
  with pytest.raises(
    ConfigError, match=r"'known' is of shape \(3,\); expected a number for each of"
  ):
    make().prepare({'known_frames': clip(), 'known': np.ones(3)})
  with pytest.raises(ConfigError, match='shares that add up to 1 at most'):
    make(first=0.9)
  batch = {'known_frames': jnp.zeros((1, 4, 4, 4, 3)), 'known': jnp.zeros((1, 8))}
  with pytest.raises(ConfigError, match='8 frames are 4 latents, not 4 frames each; set'):
    make(name='frames').init_with_output({}, batch, jnp.zeros(1, bool), (4, 4, 4, 3))
