"""The bits of examples/watermark.py are read from a file, and not from a film without them."""

import importlib.util

import numpy as np
import pytest

from mgjax.data.media.video import stream_frames, write_video
from mgjax.lab.worlds.digits.clips import Digits
from tests.tiny import CHECKOUT


@pytest.fixture(scope='module')
def watermark():
  spec = importlib.util.spec_from_file_location('watermark', CHECKOUT / 'examples/watermark.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_bits_survive_a_file(watermark, tmp_path):
  film = Digits(size=(128, 256), frames=4, background='gradient')[0]['video']
  marked, audio = watermark.postprocess(film, None)
  write_video(tmp_path / 'marked.mp4', marked, 8)
  bits, strength = watermark.read(frame for *_, frame in stream_frames(tmp_path / 'marked.mp4'))
  assert (bits, audio) == (watermark.BITS, None)
  assert strength > 0.5 > 0.25 > watermark.read(film)[1]


def test_audio_is_left_as_it_is(watermark):
  audio = np.zeros((4, 1), np.float32)
  assert watermark.postprocess(None, audio) == (None, audio)
