"""Makes broken and hostile clips out of real ones: name -> whether it is usable, None if either."""

import contextlib
import fractions
import io
import os
import pathlib
import struct
import tempfile
import wave

import av
import numpy as np
from PIL import Image

from tests.data.media.real_clips import real_clip

_FRAMES = 12
_ADDRESSES = '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n'
_SCRIPT = 'ffconcat version 1.0\nfile whole.mp4\n'


def make_clips(folder: pathlib.Path) -> dict[str, bool | None]:
  """Writes some two hundred files into a new folder, each with a caption."""
  folder.mkdir()
  usable: dict[str, bool | None] = {}

  def put(name: str, data: bytes | str, expected: bool | None) -> None:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    usable[name] = expected

  bikes = cut(real_clip('bikes.mp4'), 'mp4')
  streamed = cut(real_clip('carphone_pristine.mp4'), 'mp4', movflags='faststart')
  matroska = cut(real_clip('carphone_pristine.mp4'), 'matroska')
  sounding = cut(real_clip('bigbuckbunny.mp4'), 'mp4', sound=True)
  for name, data in {'whole': bikes, 'streamed': streamed, 'sounding': sounding}.items():
    put(f'{name}.mp4', data, True)
  put('matroska.mkv', matroska, True)
  _truncated(put, {'bikes.mp4': bikes, 'streamed.mp4': streamed, 'matroska.mkv': matroska})
  _flipped(put, {'bikes.mp4': bikes, 'matroska.mkv': matroska}, 40)
  _flipped(put, {'sounding.mp4': sounding}, 10)
  _unusual(put)
  _pretenders(put, bikes, matroska)
  _strange_files(folder, put, usable, bikes)
  for name in [*usable, 'folder.mp4']:
    caption = (folder / name).with_suffix('.txt')
    if not caption.exists():
      caption.write_text(f'the clip {name}')
  return usable


def cut(path: pathlib.Path, container: str, sound: bool = False, **options: str) -> bytes:
  """Copies the first packets of a clip."""
  with contextlib.ExitStack() as stack:
    copy = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()), 'copy')
    source = stack.enter_context(av.open(str(path)))
    to = av.open(str(copy), 'w', format=container, options=options)
    streams = [source.streams.video[0], *(source.streams.audio[:1] if sound else ())]
    copies = {stream.index: to.add_stream_from_template(stream) for stream in streams}
    counts = dict.fromkeys(copies, 0)
    for packet in source.demux(streams):
      if packet.dts is not None and counts[packet.stream.index] < _FRAMES * len(streams):
        counts[packet.stream.index] += 1
        packet.stream = copies[packet.stream.index]
        to.mux(packet)
    to.close()
    return copy.read_bytes()


def _truncated(put, clips):
  for name, data in clips.items():
    for number in range(20):
      put(f'cut{number}-{name}', data[: len(data) * number // 20], None if number else False)


def _flipped(put, clips, count):
  for name, data in clips.items():
    for number in range(count):
      chance = np.random.default_rng(number)
      damaged = np.frombuffer(data, np.uint8).copy()
      # The headers are where damage is worst: every second file is damaged in its last tenth,
      # where mp4 keeps its index, or in its first, where Matroska does.
      places = chance.integers(0, len(data), 4 ** (number % 5))
      if number % 2:
        tenth = len(data) // 10
        places = places % tenth + (0 if name.endswith('mkv') else len(data) - tenth)
      damaged[places] = chance.integers(0, 256, len(places))
      put(f'flip{number}-{name}', damaged.tobytes(), None)


def _unusual(put):
  def video(name, frames, expected=True, *, codec='libx264', layout='yuv420p', times=None, **more):
    suffix = name.rpartition('.')[2]
    format_ = {'mkv': 'matroska'}.get(suffix, suffix)
    put(name, encoded(frames, format_, codec, layout, times, more), expected)

  noise = np.random.default_rng(0).integers(0, 255, (8, 32, 48, 3)).astype(np.uint8)
  video('one.mp4', noise[:1])
  video('vertical.mp4', noise[:, :, :24])
  video('dot.mp4', noise[:, :2, :2])
  video('long-and-thin.mkv', np.tile(noise[:, :1], (1, 1, 40, 1)), codec='ffv1', layout='bgr0')
  video('odd.mkv', noise[:, :31, :47], codec='ffv1', layout='bgr0')
  video('irregular.mp4', noise, times=[0, 1, 2, 40, 41, 300, 301, 302])
  video('ten-bit.mp4', noise, layout='yuv420p10le')
  video('four-four-four.mp4', noise, layout='yuv444p')
  video('alpha.mov', noise, codec='qtrle', layout='argb')
  video('alpha.webm', noise, False, codec='libvpx-vp9', layout='yuva420p', deadline='realtime')
  video('grey.mkv', noise, codec='ffv1', layout='gray')
  video('huge.mp4', np.zeros((1, 4096, 4096, 3), np.uint8), False, preset='ultrafast')
  video('no-frames.mp4', noise[:0], False)
  video('no-frames.mkv', noise[:0], False)
  picture = io.BytesIO()
  Image.fromarray(noise[0]).convert('RGBA').save(picture, 'PNG')
  put('alpha.png', picture.getvalue(), True)
  bomb = bytearray(picture.getvalue())
  bomb[16:24] = struct.pack('>2I', 60_000, 60_000)
  put('bomb.png', bytes(bomb), False)
  animation = io.BytesIO()
  frames = [Image.fromarray(frame) for frame in noise]
  frames[0].save(animation, 'GIF', save_all=True, append_images=frames[1:], duration=50)
  put('moving.gif', animation.getvalue(), True)
  bomb = bytearray(animation.getvalue())
  bomb[6:10] = b'\xff' * 4
  put('bomb.gif', bytes(bomb), False)


def encoded(frames, container, codec, layout, times, options) -> bytes:
  """Encodes frames (t h w 3), shown at `times` / 100 s if they are given."""
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format=container) as to:
    stream = to.add_stream(codec, rate=25, options=options)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = layout
    if times:
      stream.codec_context.time_base = fractions.Fraction(1, 100)
    to.start_encoding()
    for number, array in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array)).reformat(format=layout)
      frame.pts = times[number] if times else number
      to.mux(stream.encode(frame))
    to.mux(stream.encode(None))
  return buffer.getvalue()


def _pretenders(put, bikes, matroska):
  put('script.mp4', _SCRIPT, False)
  put('addresses.mp4', _ADDRESSES, False)
  put('text.mp4', 'these are words\n' * 200, False)
  put('page.mp4', '<html><body>404 Not Found</body></html>', False)
  put('empty.mp4', b'', False)
  put('zeros.mp4', bytes(1 << 20), False)
  put('noise.mp4', np.random.default_rng(1).bytes(1 << 16), False)
  put('really-matroska.mp4', matroska, True)
  put('really-mp4.gif', bikes, True)
  put('twice.mp4', bikes + bikes, True)
  put('tail.mp4', bikes + b'\xff' * 4096, None)
  for place in (b'avc1', b'tkhd'):
    damaged = bytearray(bikes)
    at = damaged.find(place) + (28 if place == b'avc1' else 80)
    damaged[at : at + 4] = b'\xff\xff\xff\xff'
    put(f'wide-{place.decode()}.mp4', bytes(damaged), None)
  for name in (b'stts', b'stsz', b'stco', b'stsc', b'ctts', b'mdhd', b'elst', b'stsd'):
    for value in (b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', bytes(4)):
      damaged = bytearray(bikes)
      if (at := damaged.find(name)) < 0:
        continue
      damaged[at + 8 : at + 12] = value
      put(f'{name.decode()}-{value[0]}.mp4', bytes(damaged), None)


def _strange_files(folder, put, usable, bikes):
  sound = io.BytesIO()
  with wave.open(sound, 'wb') as file:
    file.setparams((1, 2, 8000, 0, 'NONE', ''))
    file.writeframes(bytes(16_000))
  put('sound.mp4', sound.getvalue(), False)
  only = io.BytesIO()
  with av.open(only, 'w', format='mp4') as to:
    stream = to.add_stream('aac', rate=16_000, layout='mono')
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), 'fltp', 'mono')
    frame.sample_rate = 16_000
    to.mux(stream.encode(frame))
    to.mux(stream.encode(None))
  put('only-sound.mp4', only.getvalue(), False)
  for name, caption in {'caption-noise': b'\xff\xfe\xfa', 'caption-empty': b' \n'}.items():
    put(f'{name}.mp4', bikes, 'empty' in name)  # whose name is its caption
    (folder / f'{name}.txt').write_bytes(caption)
  put('caption-long.mp4', bikes, True)
  (folder / 'caption-long.txt').write_text('word ' * 100_000)
  (folder / 'link.mp4').symlink_to('/etc/hostname')
  (folder / 'loop.mp4').symlink_to('loop.mp4')
  os.mkfifo(folder / 'pipe.mp4')
  usable.update({'link.mp4': False, 'loop.mp4': False, 'pipe.mp4': False})
  (folder / 'folder.mp4').mkdir()
