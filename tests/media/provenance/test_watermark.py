"""The bits of the example watermark are read back from compressed files, and are not seen."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.digits.clips import Digits
from mgjax.media.containers import Blob
from mgjax.media.provenance import watermark
from mgjax.media.provenance.watermark import FOUND, PAYLOAD, embed, find, read
from mgjax.media.video import encode_frames, read_clip, stream_frames
from mgjax.media.viewing import enlarged, write_clip
from tests.media.real_clips import real_clip

BITS = '24101372'


def compressed(video, crf):
  times = ((i / 16, (i + 1) / 16, frame) for i, frame in enumerate(video))
  data = encode_frames(times, fps=16, clock=16, crf=crf)
  return [frame for *_, frame in stream_frames(Blob('film.mp4', data))]


def film(name):
  if name == 'digits':
    return enlarged(np.asarray(Digits()[0]['video']), 8)
  return read_clip(real_clip(name), frames=16, size=(256, 256), fps=16)


@pytest.mark.parametrize('crf', [12, 16])  # of samples, and of changed videos
@pytest.mark.parametrize('name', ['digits', 'bikes.mp4', 'bigbuckbunny.mp4'])
def test_all_bits_survive_the_compression_of_what_is_written(name, crf):
  payload, strength = read(compressed(embed(film(name), BITS), crf))
  assert payload == BITS and strength > 2 * FOUND


@pytest.mark.parametrize('name', ['digits', 'bikes.mp4', 'bigbuckbunny.mp4'])
def test_a_film_without_a_watermark_has_none(name):
  assert read(film(name))[1] < FOUND


def test_noise_has_none_at_the_least_size():
  noise = np.random.default_rng(0).integers(0, 256, (20, 128, 256, 3), np.uint8)
  assert max(read([frame])[1] for frame in noise) < FOUND


def test_it_is_not_seen():
  """Coefficients move by up to STEP / 2: a mean square of STEP^2 / 12 in a block; and rounding."""
  before = np.clip(film('bikes.mp4'), 12, 243)
  after = embed(before, BITS)
  error = np.square(after.astype(float) - before).mean()
  rounding = 1 / 12
  assert 0 < error < watermark.STEP**2 / 12 / 64 + rounding
  assert 10 * np.log10(255**2 / error) > 48  # dB


@pytest.mark.parametrize('value', [0, 255])
def test_black_and_white_carry_it(value):
  video = np.full((1, 128, 256, 3), value, np.uint8)
  assert read(embed(video, BITS)) == (BITS, pytest.approx(1, abs=0.1))


def test_the_file_says_in_words_what_it_carries(tmp_path, monkeypatch):
  monkeypatch.setenv(PAYLOAD, 'CAFE0123')
  sound = np.zeros((9, 1), np.float32)
  marked, same = watermark.postprocess(film('digits'), sound)
  assert same is sound and watermark.postprocess(None, sound) == (None, sound)
  write_clip(tmp_path / 'a.mp4', marked, 8)
  write_clip(tmp_path / 'b.png', film('digits')[:1], 8)
  assert find(tmp_path / 'a.mp4').startswith('watermark cafe0123 (strength 0.9')
  assert find(tmp_path / 'b.png').startswith('no watermark found (strength 0.1')


@pytest.mark.parametrize('payload', ['', '123', 'hexadeci', '0123456789'])
def test_what_is_no_payload_is_refused(payload):
  with pytest.raises(ConfigError, match='expected 8 hexadecimal digits'):
    embed(np.zeros((1, 256, 256, 3), np.uint8), payload)


def test_frames_too_small_are_refused():
  with pytest.raises(ConfigError, match='120 x 256 pixels are too small'):
    embed(np.zeros((1, 256, 120, 3), np.uint8), BITS)
