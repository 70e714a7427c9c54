"""What a display cannot show as it is stored: HDR, transparency, animations, interlaced fields."""

import av
import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.media.containers import Blob
from mgjax.data.media.transcode import reencode
from mgjax.data.media.video import Limits, probe, read_clip, stream_frames

PQ, HLG = 16, 18
WHITE = {PQ: 0.58, HLG: 0.75}  # the signal of reference white (ITU-R BT.2408)
GREY = {PQ: 0.38, HLG: 0.38}  # of a card of 18%


def shown(path, **more):
  return read_clip(path, frames=1, size=(16, 16), fps=1, **more)[0]


def write_hdr(path, signal, transfer, codec='libx265', primaries=9, values=(512, 512)):
  """A clip of one colour, in 10 bit."""
  colours = f'log-level=none:colorprim={primaries}:transfer={transfer}:colormatrix=9'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=24, options={'x265-params': colours})
    stream.width = stream.height = 64
    stream.pix_fmt = 'yuv420p10le'
    for target in (stream.codec_context,):
      target.color_trc, target.color_primaries, target.colorspace = transfer, primaries, 9
    for _ in range(4):
      frame = av.VideoFrame(64, 64, 'yuv420p10le')
      for plane, value in zip(frame.planes, (round(64 + 876 * signal), *values), strict=True):
        np.frombuffer(plane, np.uint16)[:] = value
      frame.color_trc, frame.color_primaries, frame.colorspace = transfer, primaries, 9
      frame.color_range = 1
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


@pytest.mark.parametrize('transfer', [PQ, HLG])
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.mov'])
def test_reference_white_of_hdr_is_white_and_grey_is_grey(tmp_path, transfer, name):
  white = shown(write_hdr(tmp_path / name, WHITE[transfer], transfer))
  assert white.min() >= 245
  grey = shown(write_hdr(tmp_path / name, GREY[transfer], transfer))
  assert grey.min() > 90 and grey.max() < 130
  black = shown(write_hdr(tmp_path / name, 0.0, transfer))
  assert black.max() < 3


def test_hdr_stays_what_it_shows_when_it_is_encoded_anew(tmp_path):
  path = write_hdr(tmp_path / 'a.mp4', 0.5, PQ, values=(450, 600))
  again = Blob('again', reencode(path))
  np.testing.assert_allclose(shown(path).astype(int), shown(again).astype(int), atol=4)


def test_colours_of_hdr_are_those_of_a_standard_display(tmp_path):
  red = shown(write_hdr(tmp_path / 'a.mp4', 0.3, PQ, values=(480, 650)))[0, 0].astype(int)
  assert red[0] > red[1] + 60 and red[0] > red[2] + 60


@pytest.mark.parametrize('name', ['a.png', 'a.webp', 'palette.png', 'grey.png', 'a.gif'])
def test_transparent_pixels_lie_over_white(tmp_path, name):
  pixels = np.zeros((32, 32, 4), np.uint8)
  pixels[...] = (0, 255, 0, 0)
  pixels[:16] = (40, 40, 40, 255)
  image = Image.fromarray(pixels)
  if name in ('palette.png', 'a.gif'):
    palette = Image.fromarray(np.repeat([[0], [1]], 16, axis=0).repeat(32, 1).astype(np.uint8), 'P')
    palette.putpalette([40, 40, 40, 0, 255, 0])
    palette.save(tmp_path / name, transparency=1)
  else:
    image = image.convert('LA') if name == 'grey.png' else image
    image.save(tmp_path / name, **({'lossless': True, 'exact': True} if 'webp' in name else {}))
  picture = shown(tmp_path / name)
  assert (picture[:6] == 40).all() and (picture[-6:] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
  Image.new('RGBA', (32, 32), (0, 100, 200, 128)).save(tmp_path / 'a.png')
  np.testing.assert_allclose(shown(tmp_path / 'a.png')[3, 3], (127, 177, 227), atol=1)


def write_alpha(path, codec, form, **options):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=8, options=options)
    stream.width = stream.height = 32
    stream.pix_fmt = form
    for _ in range(4):
      pixels = np.zeros((32, 32, 4), np.uint8)
      pixels[...] = (0, 255, 0, 0)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, 'rgba').reformat(format=form)))
    container.mux(stream.encode(None))
  return path


@pytest.mark.parametrize(
  ('name', 'codec', 'form'),
  [('a.mov', 'qtrle', 'argb'), ('b.mov', 'prores_ks', 'yuva444p10le'), ('c.mov', 'png', 'rgba')],
)
def test_transparent_videos_lie_over_white_too(tmp_path, name, codec, form):
  assert shown(write_alpha(tmp_path / name, codec, form)).min() > 250


def test_transparency_that_cannot_be_read_is_refused_by_its_name(tmp_path):
  path = write_alpha(tmp_path / 'a.webm', 'libvpx-vp9', 'yuva420p')
  with pytest.raises(DataError, match='is transparent vp9, which is not read'):
    probe(path)


def animation(count=6, alpha=255):
  return [Image.new('RGBA', (32, 32), (40 * index, 0, 0, alpha)) for index in range(count)]


@pytest.mark.parametrize('name', ['a.webp', 'a.png', 'lossy.webp'])
def test_animations_are_videos(tmp_path, name):
  first, *rest = animation()
  options = {'lossless': 'lossy' not in name} if 'webp' in name else {}
  first.save(tmp_path / name, save_all=True, append_images=rest, duration=125, **options)
  info = probe(tmp_path / name)
  assert (info.frames, info.fps, info.seconds) == (6, 8, 0.75)
  clip = read_clip(tmp_path / name, frames=6, size=(16, 16), fps=8)
  np.testing.assert_allclose(clip[:, 8, 8, 0].astype(int), 40 * np.arange(6), atol=4)
  later = read_clip(tmp_path / name, frames=2, size=(16, 16), fps=8, start=0.5)
  np.testing.assert_array_equal(later, clip[4:6])
  in_memory = Blob(name, (tmp_path / name).read_bytes())
  np.testing.assert_array_equal(read_clip(in_memory, frames=6, size=(16, 16), fps=8), clip)


def test_frames_of_an_animation_last_as_long_as_it_says(tmp_path):
  first, *rest = animation(3)
  first.save(tmp_path / 'a.webp', save_all=True, append_images=rest, duration=[100, 400, 100])
  starts = [round(start, 2) for start, _, _ in stream_frames(tmp_path / 'a.webp')]
  assert starts == [0, 0.1, 0.5] and probe(tmp_path / 'a.webp').seconds == pytest.approx(0.6)


def test_animations_are_bounded_and_damage_is_a_sentence(tmp_path):
  first, *rest = animation()
  first.save(tmp_path / 'a.webp', save_all=True, append_images=rest, duration=125)
  with pytest.raises(DataError, match='6 frames of 1024 pixels'):
    probe(tmp_path / 'a.webp', Limits(frames=5))
  data = (tmp_path / 'a.webp').read_bytes()
  for cut in (30, len(data) // 2, len(data) - 9):
    try:
      probe(Blob('cut.webp', data[:cut]))
    except DataError as error:
      assert str(error).startswith('cut.webp')


def write_interlaced(path, codec='libx264', **options):
  """A bar that moves 8 pixels from the upper field of a frame to its lower one."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=25, options=options)
    stream.width = stream.height = 64
    stream.pix_fmt = 'yuv420p'
    stream.bit_rate = 4_000_000
    stream.codec_context.flags |= (1 << 18) | (1 << 29)  # interlaced DCT and motion
    for index in range(6):
      pixels = np.zeros((64, 64, 3), np.uint8)
      for field in (0, 1):
        left = 8 * ((2 * index + field) % 7)
        pixels[field::2, left : left + 8] = 255
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
    container.mux(stream.encode(None))
  return path


def combs(frames):
  """How much neighbouring lines differ more than lines two apart."""
  frames = frames.astype(int)
  return np.abs(np.diff(frames, axis=1)).mean() - np.abs(frames[:, 2:] - frames[:, :-2]).mean()


@pytest.mark.parametrize(
  ('name', 'codec', 'options'),
  [
    ('a.mp4', 'libx264', {'x264-params': 'interlaced=1:tff=1'}),
    ('a.mkv', 'libx264', {'x264-params': 'interlaced=1:bff=1'}),
    ('b.mp4', 'mpeg2video', {}),
  ],
)
def test_interlaced_clips_are_flagged_and_made_whole_on_request(tmp_path, name, codec, options):
  path = write_interlaced(tmp_path / name, codec, **options)
  assert probe(path).interlaced
  size = {'frames': 6, 'size': (64, 64), 'fps': 25}
  assert combs(read_clip(path, **size)) > 20
  whole = Blob('whole', reencode(path, deinterlace=True))
  assert combs(read_clip(whole, **size)) < 5 and not probe(whole).interlaced
  assert (probe(whole).frames, probe(whole).fps) == (6, 25)
  assert combs(read_clip(Blob('kept', reencode(path)), **size)) > 20


def test_progressive_clips_are_not_flagged(tmp_path):
  assert not probe(write_hdr(tmp_path / 'a.mp4', 0.5, PQ)).interlaced
