"""Clips whose conditions a model is judged under are of the captions that are asked for."""

import dataclasses

import pytest

from mgjax.core.errors import ConfigError
from mgjax.lab.worlds.digits.clips import Digits, all_captions, is_held_out
from mgjax.lab.worlds.digits.judges.digit import labels_of
from mgjax.lab.worlds.digits.judges.video import clips_of

UNSEEN = [caption for caption in all_captions() if is_held_out(*caption[:3])]


def test_clips_have_their_labels_and_none_comes_twice():
  labels = UNSEEN * 2
  source = Digits(split='test', captions='held_out', frames=2, size=(8, 8), length=1000)
  clips = clips_of(source, labels)
  assert [reading[:3] for reading in labels_of(clips)] == [label[:3] for label in labels]
  assert len({clip['video'].tobytes() for clip in clips}) == len(labels)
  with pytest.raises(ConfigError, match='27 clips are asked for, the data have'):
    clips_of(dataclasses.replace(source, length=10), UNSEEN)
