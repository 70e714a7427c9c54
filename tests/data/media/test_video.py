"""Video files: what is read is what was asked for, and what cannot be read is a sentence."""

import io

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from mgjax.core.errors import DataError
from mgjax.data.media.containers import Blob
from mgjax.data.media.video import Limits, cover_size, probe, read_clip, stream_clip, write_video
from mgjax.lab.curation.frames import stream
from tests.data.media.audio_files import encode_video, turn
from tests.data.media.real_clips import real_clip


def smooth(frames=12, height=48, width=64):
  """A moving colour field that 4:2:0 can hold."""
  t, y, x = np.meshgrid(*map(np.arange, (frames, height, width)), indexing='ij')
  waves = np.sin((x + 3 * t) / 12), np.cos((y - 2 * t) / 15), np.sin((x + y + t) / 20)
  return np.stack([128 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)


def numbered(count, size=64):
  """Frame i shows i in binary, as eight black or white bars."""
  bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
  rows = np.repeat(bits * 255, size // 8, axis=1).astype(np.uint8)
  return np.broadcast_to(rows[:, :, None, None], (count, size, size, 3))


def numbers(clip):
  bars = clip.reshape(clip.shape[0], 8, -1).mean(axis=-1) > 127
  return (bars << np.arange(8)).sum(axis=-1).tolist()


def encode(path, frames, rate=25, codec='libx264', **options):
  """One key frame, then nothing but differences: the hardest file to seek in."""
  defaults = {'g': '250', 'sc_threshold': '0', 'crf': '20'} if codec == 'libx264' else {}
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=rate, options={**defaults, **options})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    for array in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(array))))
    container.mux(stream.encode(None))
  return path


def copy_with_index_first(path, copy):
  with (
    av.open(str(path)) as source,
    av.open(str(copy), 'w', options={'movflags': 'faststart'}) as target,
  ):
    stream = target.add_stream_from_template(source.streams.video[0])
    for packet in source.demux(video=0):
      if packet.dts is not None:
        packet.stream = stream
        target.mux(packet)


def numbered_file(folder, name='numbered.mp4', count=200, **options):
  return encode(folder / name, numbered(count), **options)


def reason(path, limits=None, **request):
  """The sentence that reading `path` is refused with."""
  limits = limits or Limits()
  with pytest.raises(DataError) as refusal:
    read_clip(
      path, **{'frames': 4, 'size': (32, 32), 'fps': 25, 'start': 0.0, **request}, limits=limits
    )
  assert str(refusal.value).startswith(f'{path}: ')
  assert refusal.value.exit_code == 3
  return str(refusal.value)


def test_what_is_written_is_read_back(tmp_path):
  frames = smooth()
  write_video(tmp_path / 'a.mp4', frames, fps=25)
  back = read_clip(tmp_path / 'a.mp4', frames=12, size=(48, 64), fps=25)
  assert back.dtype == np.uint8 and back.shape == frames.shape
  mean_square = np.mean((back.astype(float) - frames) ** 2)
  assert 10 * np.log10(255**2 / mean_square) > 38
  assert [path.name for path in tmp_path.iterdir()] == ['a.mp4']


def test_colours_survive(tmp_path):
  colours = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 30, 90]], np.uint8
  )
  write_video(tmp_path / 'a.mp4', np.tile(colours[:, None, None], (1, 32, 32, 1)), fps=8)
  back = read_clip(tmp_path / 'a.mp4', frames=6, size=(32, 32), fps=8)
  np.testing.assert_allclose(back[:, 16, 16].astype(int), colours, atol=4)


def test_odd_sizes_grow_to_even(tmp_path):
  write_video(tmp_path / 'a.mp4', smooth(2, 33, 47), fps=12.5)
  info = probe(tmp_path / 'a.mp4')
  assert (info.height, info.width, info.frames, info.fps) == (34, 48, 2, 12.5)
  write_video(tmp_path / 'dot.mp4', np.zeros((1, 1, 1, 3), np.uint8), fps=1)
  assert probe(tmp_path / 'dot.mp4').frames == 1


def test_only_uint8_videos_are_written(tmp_path):
  for wrong in (np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3))):
    with pytest.raises((ValueError, TypeError), match=r'uint8|UInt8'):
      write_video(tmp_path / 'a.mp4', wrong, fps=8)
  assert not list(tmp_path.iterdir())


def test_probe_describes(tmp_path):
  info = probe(numbered_file(tmp_path))
  assert (info.width, info.height, info.fps, info.frames) == (64, 64, 25.0, 200)
  assert info.seconds == pytest.approx(8.0)
  assert not info.has_audio


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.mov'])
def test_seek_is_exact_to_the_frame(tmp_path, name):
  path = numbered_file(tmp_path, name)
  for first in (0, 1, 77, 150, 195):
    clip = read_clip(path, frames=5, size=(64, 64), fps=25, start=first / 25)
    assert numbers(clip) == list(range(first, first + 5))


def test_seek_is_exact_with_many_key_frames_and_in_other_codecs(tmp_path):
  files = [
    numbered_file(tmp_path, 'short.mp4', g='7', bf='3'),
    numbered_file(tmp_path, 'open.mp4', g='12', **{'x264-params': 'open-gop=1'}),
    numbered_file(tmp_path, 'a.webm', count=100, codec='libvpx-vp9', deadline='realtime'),
    numbered_file(tmp_path, 'a.avi', count=100, codec='mpeg4'),
  ]
  for path in files:
    for first in (3, 36, 61, 90):
      clip = read_clip(path, frames=4, size=(64, 64), fps=25, start=first / 25)
      assert numbers(clip) == list(range(first, first + 4)), path


def test_frame_rate_conversion_shows_what_is_on_screen(tmp_path):
  path = numbered_file(tmp_path)
  down = read_clip(path, frames=16, size=(64, 64), fps=16, start=2.0)
  assert numbers(down) == [50 + (25 * i) // 16 for i in range(16)]
  up = read_clip(path, frames=16, size=(64, 64), fps=100)
  assert numbers(up) == [i // 4 for i in range(16)]


def test_the_last_frame_is_shown_until_it_ends(tmp_path):
  path = numbered_file(tmp_path, count=10)
  assert numbers(read_clip(path, frames=4, size=(64, 64), fps=100, start=0.36)) == [9] * 4
  assert 'ends at 0.40 s' in reason(path, frames=5, fps=100, start=0.36)
  assert reason(path, frames=1, start=5.0)


@pytest.mark.parametrize('fps', [8, 25, 30.0])
def test_a_stream_shows_what_a_clip_does(tmp_path, fps):
  path = encode(tmp_path / 'a.mp4', numbered(60))
  count = int(np.ceil(60 / 25 * fps - 1e-6))
  whole = np.stack(list(stream_clip(path, size=(64, 64), fps=fps)))
  clip = read_clip(path, frames=count, size=(64, 64), fps=fps)
  np.testing.assert_array_equal(whole, clip)
  with pytest.raises(DataError, match='no such file'):
    next(stream_clip(tmp_path / 'b.mp4', size=(64, 64), fps=fps))


def test_shape_is_kept_and_centre_is_cropped(tmp_path):
  frames = np.zeros((2, 64, 192, 3), np.uint8)
  frames[:, :, 64:128] = 255  # the middle third, a square
  write_video(tmp_path / 'wide.mp4', frames, fps=8)
  clip = read_clip(tmp_path / 'wide.mp4', frames=2, size=(32, 32), fps=8)
  assert clip[:, :, 2:-2].min() > 230
  wider = read_clip(tmp_path / 'wide.mp4', frames=2, size=(32, 64), fps=8)
  np.testing.assert_array_equal(wider[:, :, [4, 59]] < 25, True)
  assert wider[:, :, 20:44].min() > 230


def test_cover_size_is_the_least_that_covers():
  assert cover_size(720, 1280, (256, 256)) == (256, 455)
  assert cover_size(100, 50, (64, 64)) == (128, 64)
  with pytest.raises(DataError, match='too long'):
    cover_size(2, 100_000, (256, 256))


def test_pixels_that_are_not_square_are_made_square(tmp_path):
  frames = np.zeros((4, 64, 64, 3), np.uint8)
  frames[:, :, 32:] = 255
  path = encode(tmp_path / 'a.mp4', frames, **{'x264-params': 'sar=2/1'})
  info = probe(path)
  assert (info.width, info.height) == (128, 64)
  assert read_clip(path, frames=1, size=(64, 128), fps=25).shape == (1, 64, 128, 3)


def test_a_turned_video_is_read_upright(tmp_path):
  frames = np.zeros((4, 32, 64, 3), np.uint8)
  frames[:, :, :32] = 255  # bright on the left; turned clockwise, bright at the top
  write_video(tmp_path / 'a.mp4', frames, fps=8)
  turn(tmp_path / 'a.mp4')
  info = probe(tmp_path / 'a.mp4')
  assert (info.height, info.width) == (64, 32)
  clip = read_clip(tmp_path / 'a.mp4', frames=1, size=(64, 32), fps=8)
  assert clip[0, :28].min() > 230 and clip[0, 36:].max() < 25


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp', 'gif'])
def test_a_still_image_is_a_video_of_one_frame(tmp_path, suffix):
  path = tmp_path / f'a.{suffix}'
  Image.new('RGB', (64, 48), (200, 30, 90)).save(path)
  assert probe(path).frames == 1
  clip = read_clip(path, frames=1, size=(32, 32), fps=16)
  np.testing.assert_allclose(clip[0, 16, 16].astype(int), (200, 30, 90), atol=4)
  assert 'ends at' in reason(path, frames=16)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp', 'gif'])
@pytest.mark.parametrize('name', ['a', 'a%03d', 'a{b}*?'])
def test_a_photograph_is_read_whatever_its_size_and_name(tmp_path, suffix, name):
  path = tmp_path / f'{name}.{suffix}'
  noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
  Image.fromarray(noise).save(path)
  assert path.stat().st_size > 4096
  assert (probe(path).height, probe(path).width) == (96, 128)
  assert read_clip(path, frames=1, size=(32, 32), fps=1).std() > 0


def test_what_is_called_a_photograph_but_is_a_film_is_one(tmp_path):
  write_video(tmp_path / 'a.jpg', smooth(), fps=25)
  assert probe(tmp_path / 'a.jpg').frames == 12


def test_a_turned_photograph_is_read_upright(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6  # orientation: turn clockwise
  Image.new('RGB', (64, 32)).save(tmp_path / 'a.jpg', exif=exif)
  info = probe(tmp_path / 'a.jpg')
  assert (info.height, info.width) == (64, 32)


def corners():
  """A picture of four colours, which no turn and no mirror leaves as it is."""
  pixels = np.zeros((32, 64, 3), np.uint8)
  pixels[:16, :32], pixels[:16, 32:] = (200, 30, 40), (20, 180, 60)
  pixels[16:, :32], pixels[16:, 32:] = (0, 60, 220), 240
  return Image.fromarray(pixels)


def whole(path):
  info = probe(path)
  return read_clip(path, frames=1, size=(info.height, info.width), fps=1)[0].astype(int)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp'])
def test_a_picture_is_read_as_its_exif_orientation_shows_it(tmp_path, suffix, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  corners().save(tmp_path / f'a.{suffix}', exif=exif, quality=95)
  with Image.open(tmp_path / f'a.{suffix}') as image:
    expected = np.asarray(ImageOps.exif_transpose(image).convert('RGB')).astype(int)
  assert np.abs(whole(tmp_path / f'a.{suffix}') - expected).mean() < 5
  assert next(stream(tmp_path / f'a.{suffix}')).luma.shape == expected.shape[:2]


@pytest.mark.parametrize(
  ('matrix', 'method'),
  [
    ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
    ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
    ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
    ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
  ],
)
def test_a_mirrored_clip_is_read_as_players_show_it(tmp_path, matrix, method):
  write_video(tmp_path / 'a.mp4', np.asarray(corners())[None], fps=8)
  turn(tmp_path / 'a.mp4', matrix)
  expected = np.asarray(corners().transpose(method)).astype(int)
  assert np.abs(whole(tmp_path / 'a.mp4') - expected).mean() < 8
  luma = next(stream(tmp_path / 'a.mp4')).luma.astype(int)
  grey = np.asarray(Image.fromarray(expected.astype(np.uint8)).convert('L')).astype(int)
  assert np.abs(luma - grey).mean() < 30


def jpeg_of_inks(transform):
  """A JPEG of the corners as inks, CMYK (0) or YCCK (2), as Adobe's programs write it."""
  inks = np.asarray(corners().convert('CMYK'))
  if transform:
    colours = np.asarray(Image.fromarray(inks[..., :3].copy()).convert('YCbCr'))
    inks = np.concatenate([255 - colours, inks[..., 3:]], axis=-1)
  made = io.BytesIO()
  Image.frombytes('CMYK', (64, 32), inks.tobytes()).save(made, 'JPEG', quality=95)
  data = bytearray(made.getvalue())
  data[data.index(b'Adobe') + 11] = transform
  return Blob('inks.jpg', bytes(data))


@pytest.mark.parametrize('transform', [0, 2])
def test_a_jpeg_of_inks_has_the_colours_that_it_was_printed_from(transform):
  assert np.abs(whole(jpeg_of_inks(transform)) - np.asarray(corners())).mean() < 5


@pytest.mark.parametrize('begin', [0, 10, 20])
@pytest.mark.parametrize('suffix', ['mkv', 'mp4'])
def test_a_clip_whose_sound_begins_long_before_is_not_stretched(tmp_path, suffix, begin):
  sound = np.zeros((48_000 * (begin + 2), 1), np.float32)
  path = encode_video(tmp_path / f'a.{suffix}', numbered(50), sound, begin=begin, late=-begin)
  info = probe(path)
  assert (info.fps, info.seconds) == (25, pytest.approx(2, abs=0.02))
  assert numbers(read_clip(path, frames=50, size=(64, 64), fps=25)) == list(range(50))


def test_a_name_is_never_a_protocol(tmp_path, monkeypatch):
  write_video(tmp_path / 'a.mp4', smooth(), fps=25)
  monkeypatch.chdir(tmp_path)
  assert 'no such file' in reason('concat:a.mp4|a.mp4')
  (tmp_path / 'concat:a.mp4').write_text('x')
  assert 'is a text file' in reason('concat:a.mp4')


def test_a_truncated_matroska_is_as_long_as_what_is_left(tmp_path):
  whole = numbered_file(tmp_path, 'a.mkv', g='25').read_bytes()
  (tmp_path / 'a.mkv').write_bytes(whole[: len(whole) // 2])
  assert 2 < probe(tmp_path / 'a.mkv').seconds < 6


def test_files_beyond_the_limits_are_refused(tmp_path):
  path = numbered_file(tmp_path)
  assert '64 x 64, more than 1000 pixels' in reason(path, Limits(pixels=1000), size=(8, 8))
  assert 'lasts 8 s, more than 5 s' in reason(path, Limits(seconds=5.0))
  assert 'over 20 decoded frames' in reason(path, Limits(frames=20), start=4.0)
  assert 'took over 0 s' in reason(path, Limits(wall_seconds=0.0))
  with pytest.raises(DataError, match='more than 1000 pixels'):
    probe(path, Limits(pixels=1000))


def test_real_footage_is_read():
  expected = {
    'bigbuckbunny.mp4': (1280, 720, 25.0, 132, True),
    'bikes.mp4': (640, 272, 25.0, 250, False),
    'carphone_pristine.mp4': (193, 144, 30000 / 1001, 120, False),  # 176 pixels, each 128 : 117
  }
  for name, (width, height, fps, frames, has_audio) in expected.items():
    info = probe(real_clip(name))
    assert (info.width, info.height, info.frames) == (width, height, frames)
    assert info.fps == pytest.approx(fps) and info.has_audio == has_audio
    clip = read_clip(real_clip(name), frames=16, size=(64, 96), fps=16, start=2.0)
    assert clip.shape == (16, 64, 96, 3) and clip.std() > 10
