"""Tries of what is around a command: odd media, full disks, clocks that jump."""

import os
import pathlib
import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.hostile.driver import Chance, Try
from tests.hostile.ground import COMMANDS
from tests.media.audio_files import encode_sound, noise, turn

_FRAMES = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), np.uint8)


def _patched(path: pathlib.Path, box: bytes, at: int, *numbers: int) -> None:
  """Overwrites numbers of four bytes in every box of a kind, from `at` bytes after its name."""
  data, place = bytearray(path.read_bytes()), 0
  while (place := data.find(box, place) + 4) > 3:
    for index, number in enumerate(numbers):
      if place + at + 4 * index + 4 <= len(data):
        struct.pack_into('>I', data, place + at + 4 * index, number % 2**32)
  path.write_bytes(data)


def _odd_video(path: pathlib.Path, chance: Chance) -> str:
  """Writes a video that some camera might make, or none, and says what is odd."""
  what = chance.pick(('turned', 'matrix', 'timescale', 'duration', 'deltas', 'edits', 'rate', 'few',
    'sizes', 'cover', 'sound only', 'sound first', 'two', 'subtitles', 'pixels', 'aspect',
    'samples', 'late', 'kind', 'titles', 'start'))  # fmt: skip
  rate, frames, size, pixels, container = Fraction(25), 12, (32, 32), 'yuv420p', 'mp4'
  big = chance.pick((0, 1, -1, 2**31 - 1, 2**31, 1000, 7))
  if what == 'rate':
    rate = chance.pick((Fraction(1000), Fraction(1, 100), Fraction(1, 3600), Fraction(90_000, 1),
      Fraction(30_000, 1001)))  # fmt: skip
  elif what == 'few':
    frames = chance.pick((0, 1, 2))
  elif what == 'sizes':
    size = chance.pick(((2, 2), (16, 2048), (2048, 16), (34, 30), (2, 4096)))
  elif what == 'pixels':
    pixels = chance.pick(('yuv420p10le', 'yuv444p', 'gray', 'yuvj420p', 'yuv422p'))
  elif what == 'kind':
    container = chance.pick(('mov', 'matroska', 'avi', 'mpegts', 'flv', 'mp4'))
  with av.open(str(path), 'w', format=container) as out:
    heard, shown = None, []
    if what in ('sound first', 'sound only', 'cover', 'late'):
      heard = out.add_stream('aac', rate=48_000, layout='mono')
    if what != 'sound only':
      codec = 'mjpeg' if what == 'cover' else 'libx264'
      for _ in range(2 if what == 'two' else 1):
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = 'yuvj420p' if what == 'cover' else pixels
        if what == 'cover':
          stream.disposition = av.stream.Disposition.attached_pic
          frames = 1
        if what == 'aspect':
          stream.codec_context.sample_aspect_ratio = chance.pick(
            (Fraction(1000), Fraction(1, 500), Fraction(4, 3))
          )
        shown.append(stream)
    if what == 'titles':
      out.metadata.update({chance.pick(('title', 'comment', 'rotate')): chance.pick(('\x1b[31m',
        'x' * 10**5, '\ud800'.encode('utf-8', 'replace').decode(), 'nan'))})  # fmt: skip
    for stream in shown:
      for number in range(frames):
        picture = np.resize(_FRAMES[number], (size[1], size[0], 3))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
        frame.pts, frame.time_base = number + (10**6 if what == 'start' else 0), 1 / rate
        out.mux(stream.encode(frame))
      out.mux(stream.encode(None))
    if heard is not None:
      _write_sound(out, heard, begin=chance.pick((0.0, 5.0, 3600.0)) if what == 'late' else 0.0)
  match what:
    case 'turned':
      turn(path)
    case 'matrix':
      cells = (0, 1, -1, 2**16, -(2**16), 46341, 2**31)
      _patched(path, b'tkhd', 44, *[chance.pick(cells) for _ in range(9)])
    case 'timescale':
      _patched(path, chance.pick((b'mdhd', b'mvhd')), 12, big)
    case 'duration':
      box, at = chance.pick(((b'mdhd', 16), (b'mvhd', 16), (b'tkhd', 20), (b'elst', 8)))
      _patched(path, box, at, big)
    case 'deltas':
      _patched(path, chance.pick((b'stts', b'ctts')), chance.pick((4, 8, 12)), big)
    case 'edits':
      _patched(path, b'elst', 8, big, chance.pick((-1, 0, 2**31, 10**6)), chance.pick((0, 2**16,
        -(2**16), 1)))  # fmt: skip
    case 'samples':
      box, at = chance.pick(((b'stsz', 4), (b'stsz', 8), (b'stsc', 8), (b'stco', 8), (b'stss', 4)))
      _patched(path, box, at, big)
  return what


def _write_sound(out: Any, stream: Any, begin: float) -> None:
  frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(noise(0.5).T), 'fltp', 'mono')
  frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), round(48_000 * begin)
  out.mux(stream.encode(frame))
  out.mux(stream.encode(None))


def _odd_sound(path: pathlib.Path, chance: Chance) -> str:
  """Writes a .wav whose header or samples are odd, and says how."""
  what = chance.pick(
    ('rate', 'channels', 'bits', 'format', 'size', 'empty', 'nan', 'other', 'extra', 'quiet')
  )
  samples = np.zeros(16_000, np.float32) if what == 'quiet' else noise(1.0, 16_000)[:, 0]
  if what == 'nan':
    samples = samples.copy()
    samples[chance.number(8000) :] = chance.pick((np.nan, np.inf, -np.inf, 1e30))
  if what == 'empty':
    samples = samples[: chance.pick((0, 1, 2))]
  if what == 'other':
    kind, codec = chance.pick(
      (('mp3', 'libmp3lame'), ('ogg', 'libopus'), ('m4a', 'aac'), ('flac', 'flac'))
    )
    other = encode_sound(path.with_suffix(f'.{kind}'), noise(0.5, 48_000), 48_000, codec)
    shutil.move(other, path)
    return what
  rate, channels, bits, form = 16_000, 1, 32, 3
  if what == 'rate':
    rate = chance.pick((0, 1, 7, 999, 384_000, 2**31 - 1, 2**32 - 1))
  if what == 'channels':
    channels = chance.pick((0, 2, 3, 8, 9, 255, 65_535))
  if what == 'bits':
    bits = chance.pick((0, 1, 4, 7, 64, 65_535))
  if what == 'format':
    form = chance.pick((0, 1, 2, 6, 7, 17, 85, 0xFFFE, 0xFFFF))
  data = samples.astype('<f4').tobytes()
  block = channels * bits // 8 % 65_536
  head = struct.pack('<HHIIHH', form, channels, rate, rate * block % 2**32, block, bits)
  size = chance.pick((0, -1, 2**31, len(data) + 1, 10**9)) if what == 'size' else len(data)
  more = b'LIST' + struct.pack('<I', 2**31) + b'x' * 9 if what == 'extra' else b''
  body = (
    b'WAVEfmt '
    + struct.pack('<I', len(head))
    + head
    + more
    + b'data'
    + struct.pack('<I', size % 2**32)
    + data
  )
  path.write_bytes(b'RIFF' + struct.pack('<I', len(body)) + body)
  return what


def _odd_picture(path: pathlib.Path, chance: Chance) -> str:
  """Writes a picture of an odd kind."""
  mode = chance.pick(('1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'I;16', 'F', 'I', 'HSV', 'tiny', 'long',
    'turned', 'moving'))  # fmt: skip
  size = {'tiny': (1, 1), 'long': (5000, 2)}.get(mode, (40, 30))
  picture = Image.fromarray(np.resize(_FRAMES[0], (size[1], size[0], 3)))
  kind, more = 'PNG', {}
  if mode in ('CMYK', 'HSV', 'F', 'turned'):
    kind = 'TIFF' if mode in ('F', 'HSV') else 'JPEG'
  if mode == 'turned':
    exif = Image.Exif()
    exif[0x0112] = chance.pick((0, 3, 6, 8, 9, 65_535))
    more['exif'] = exif
  if mode == 'moving':
    kind, more = 'GIF', {'save_all': True, 'append_images': [picture.rotate(90)], 'duration': 0}
  if mode in ('1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'F', 'I'):
    picture = picture.convert(mode if mode != 'LA' else 'L').convert(mode)
  picture.convert('RGB' if mode == 'HSV' else picture.mode).save(path, kind, **more)
  return mode


_OF_VIDEOS = ('convert', 'convert', 'convert anew', 'enlarge', 'edit', 'sample a soundtrack',
  'curate', 'evaluate', 'find references')  # fmt: skip


def draw_media(chance: Chance) -> Try:
  """A video, a sound or a picture whose metadata are odd."""
  kind, seed = chance.pick(('video', 'video', 'sound', 'picture')), chance.number(1 << 30)
  command = (
    chance.pick(_OF_VIDEOS)
    if kind == 'video'
    else {'sound': 'go on with a sound', 'picture': 'show a person'}[kind]
  )

  def spoil(folder: pathlib.Path) -> None:
    if kind == 'video':
      _odd_video(folder / 'clips/0.mp4', Chance(seed))
      if command == 'evaluate':
        shutil.copy(folder / 'clips/0.mp4', folder / 'a/00000.mp4')
    else:
      write = {'sound': _odd_sound, 'picture': _odd_picture}[kind]
      write(folder / f'{kind}.{"wav" if kind == "sound" else "png"}', Chance(seed))

  return Try(COMMANDS[command], spoil, seconds=90, about=f'{kind} {seed}')


# Commands that write, and into what.
_WRITERS = {'convert': 'converted', 'convert anew': 'converted', 'curate': 'curated',
  'evaluate': 'a', 'analyse': 'votes', 'import votes': 'votes', 'export votes': 'place',
  'export': 'place', 'import': 'imported', 'plot': 'laws', 'average': 'averaged', 'prune': 'run',
  'sample a video': 'place', 'sample a soundtrack': 'place', 'go on with a sound': 'place',
  'enlarge': 'place', 'find references': 'people', 'inspect': 'place', 'train a little': 'new',
  'serve votes': 'votes', 'sample a suite': 'place', 'verify': 'run'}  # fmt: skip


def draw_disk(chance: Chance) -> Try:
  """A disk that is full, or that nobody may write to."""
  name = chance.pick(sorted(_WRITERS))
  place = _WRITERS[name]
  words = [
    word.replace('--out=', '--out=place/') if place == 'place' else word for word in COMMANDS[name]
  ]
  if name == 'inspect':
    words.append('--sheet=place/clips.png')
  how = chance.pick(('4k', '12k', '40k', '100k', '200k', '400k', 'read-only', 'user'))
  disk = (
    {'place': place, 'size': how}
    if how[0].isdigit()
    else {'place': place if how != 'user' else '.'}
  )

  def spoil(folder: pathlib.Path) -> None:
    (folder / place).mkdir(exist_ok=True)
    for path in (folder, folder / place) if how == 'user' else ():
      path.chmod(0o555)

  conditions = {'disk': disk} if how != 'user' else {'user': True}
  return Try(words, spoil, conditions=conditions, seconds=90, changes=[f'{place}/**'], about=how)


def draw_clock(chance: Chance) -> Try:
  """A clock that jumps, and files from before and after all times."""
  name = chance.pick(sorted(COMMANDS))
  seconds = chance.pick((0, 3600, -3600, 1e9, 1e11, -3e9))
  age = chance.pick((None, 0, -1, 2**31, 2**33, 10**11, -(10**9)))

  def spoil(folder: pathlib.Path) -> None:
    for path in folder.rglob('*') if age is not None else ():
      os.utime(path, (age, age))

  changes, about = _MAY_CHANGE.get(name, ()), f'clock {seconds:g}, files of {age}'
  conditions = {'clock': seconds}
  return Try(COMMANDS[name], spoil, False, changes, conditions, seconds=90, about=about)


_MAY_CHANGE = {'analyse': ('votes/analysis.*',), 'prune': ('run/**',), 'serve votes': ('votes/**',)}
CLASSES: dict[str, Callable[[Chance], Try]] = {
  'media': draw_media,
  'disks': draw_disk,
  'clocks': draw_clock,
}
